//! The macros: each leaves the user's item as it is and emits beside it a builder of the same body.
//!
//! rustc checks the user's own function; the builder half is typed when it runs. A rejected item is
//! still emitted, so that editors keep working on it.

/// Quotes with names of its own: nothing generated can meet a name of the user's.
macro_rules! q {
    ($($t:tt)*) => { quote::quote_spanned!(proc_macro2::Span::mixed_site()=> $($t)*) };
}

mod body;
mod call;
mod device;
mod expr;
mod flow;
mod kernel;
mod reject;
mod structs;
mod types;

use proc_macro::TokenStream;

/// Scalar code, or code over tiles, that kernels call: runs on the CPU as written, and builds IR. On a struct: values that
/// travel together; a kernel may take one of buffers and scalars as a parameter, `rows: &Rows<T>`.
#[proc_macro_attribute]
pub fn device(_: TokenStream, item: TokenStream) -> TokenStream {
    device::expand(item.into()).into()
}

/// One block's program. The first parameter is the meta value, known when the kernel is built.
#[proc_macro_attribute]
pub fn kernel(_: TokenStream, item: TokenStream) -> TokenStream {
    kernel::expand(item.into()).into()
}

/// On a trait or an impl of one: gives each of its functions its builder half.
#[proc_macro_attribute]
pub fn codec(_: TokenStream, item: TokenStream) -> TokenStream {
    device::expand_codec(item.into()).into()
}
