//! `#[device]` on a struct: values that travel together, such as the rows of a tensor and their strides.
//!
//! Device functions take and give it like any other value. A field may be a reference: arguments that a kernel took one by one go on
//! together. A struct whose fields are all buffers and scalars may also be a kernel's parameter: each field is then an argument of
//! the kernel, named after parameter and field; a buffer that is written is marked `#[out]`.

use crate::body::Body;
use crate::reject::Reject;
use crate::types::{buffer_element, dtype_of, generic_names, text};
use proc_macro2::TokenStream;
use syn::*;

pub fn expand(mut s: ItemStruct) -> TokenStream {
    let mut body = Body { generics: generic_names(&s.generics), ..Body::default() };
    if !matches!(s.fields, Fields::Named(_)) {
        body.reject(&s.ident, Reject::StructFields);
    }
    let mut arguments = Some(Vec::new());
    for field in &mut s.fields {
        let Some(name) = field.ident.as_ref().map(|i| i.to_string()) else { continue };
        let before = field.attrs.len();
        field.attrs.retain(|a| !a.path().is_ident("out"));
        let writable = field.attrs.len() < before;
        body.check_type(&unbound(&field.ty));
        let title = q!(&::std::format!("{name}_{}", #name));
        let argument = match (dtype_of(&field.ty), buffer_element(&field.ty)) {
            (Some(d), _) => Some(q!((#name, b.scalar_param(#title, #d)))),
            (_, Some(t)) => Some(q!((#name, b.buffer(#title, <#t as ::kernel_dsl::dtype::Elem>::DTYPE, #writable)))),
            _ => None,
        };
        if writable && buffer_element(&field.ty).is_none() {
            body.reject(&field.ty, Reject::Out(text(&field.ty)));
        }
        arguments = arguments.zip(argument).map(|(mut all, one)| {
            all.push(one);
            all
        });
    }
    let errors = body.errors.map(|e| e.to_compile_error());
    let (name, (generics, types, bounds)) = (&s.ident, s.generics.split_for_impl());
    let declared = arguments.map(|all| {
        q! {
            #[allow(clippy::all)]
            impl #generics ::kernel_dsl::build::Arguments for #name #types #bounds {
                fn declare(b: &::kernel_dsl::build::B, name: &str) -> ::kernel_dsl::build::V {
                    ::kernel_dsl::build::V::Struct(::std::vec![#(#all),*])
                }
            }
        }
    });
    q! {
        #s
        #errors
        impl #generics ::kernel_dsl::build::DeviceStruct for #name #types #bounds {}
        #declared
    }
}

/// A field's type without the lifetime of its reference, which rustc alone looks at.
fn unbound(t: &Type) -> Type {
    match t {
        Type::Reference(r) => Type::Reference(TypeReference { lifetime: None, ..r.clone() }),
        t => t.clone(),
    }
}
