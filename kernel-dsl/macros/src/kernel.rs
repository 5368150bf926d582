//! `#[kernel]`: a block's program. Its builder half declares the arguments, then runs the body.
//!
//! A buffer marked `#[when(m.some)]` is an argument only of kernels for whose meta value that holds; the others must not touch it.

use crate::body::{Body, here};
use crate::reject::Reject;
use crate::types::{buffer_element, dtype_of, struct_param, text};
use proc_macro2::TokenStream;
use syn::spanned::Spanned;
use syn::*;

pub fn expand(item: TokenStream) -> TokenStream {
    let mut f: ItemFn = match parse2(item) {
        Ok(f) => f,
        Err(e) => return e.to_compile_error(),
    };
    let whens: Vec<Option<Expr>> = f.sig.inputs.iter_mut().map(taken_when).collect();
    let mut body = Body::of(&f.sig);
    if let ReturnType::Type(_, t) = &f.sig.output {
        body.reject(t, Reject::KernelReturns);
    }
    let mut inputs = f.sig.inputs.iter().zip(&whens);
    let (meta, meta_type) = match inputs.next().map(|(first, _)| first) {
        Some(FnArg::Typed(t)) if !matches!(&*t.ty, Type::Reference(_)) && dtype_of(&t.ty).is_none() => match &*t.pat {
            Pat::Ident(p) => (p.ident.clone(), (*t.ty).clone()),
            p => {
                body.reject(p, Reject::Pattern);
                (Ident::new("m", p.span()), (*t.ty).clone())
            }
        },
        other => {
            let e = match other {
                Some(first) => Error::new_spanned(first, Reject::KernelMeta),
                None => Error::new(f.sig.ident.span(), Reject::KernelMeta),
            };
            let e = e.to_compile_error();
            return q!(#f #e);
        }
    };
    body.hosts.push(meta.to_string());
    let (mut params, mut hosts) = (Vec::new(), Vec::new());
    for (i, when) in inputs {
        match crate::types::host_param(i) {
            Some(name) => {
                body.add_codec(name.to_string());
                hosts.push(q!(#i));
            }
            None => params.push(parameter(&mut body, i, when.as_ref())),
        }
    }
    let code = body.function(&f.block);
    // A rejected kernel still has its `build`, so that its users have nothing to complain of.
    let (errors, params, code) = match body.errors {
        Some(e) => (e.to_compile_error(), vec![], q!(::core::unimplemented!())),
        None => (TokenStream::new(), params, code),
    };
    let (vis, name, title) = (&f.vis, &f.sig.ident, f.sig.ident.to_string());
    let (generics, _, bounds) = f.sig.generics.split_for_impl();
    let line = here(f.sig.ident.span());
    q! {
        #[allow(clippy::too_many_arguments)]
        #f
        #errors
        #[allow(dead_code, non_camel_case_types)] #[doc(hidden)] #vis struct #name {}
        #[allow(dead_code, unused, clippy::all)]
        impl #name {
            /// The kernel's tile IR for one meta value and one choice of its `&dyn` parameters.
            #vis fn build #generics (#meta: &#meta_type, #(#hosts),*) -> ::core::result::Result<::kernel_dsl::ir::Program, ::kernel_dsl::report::Report> #bounds {
                let shape = ::kernel_dsl::Meta::launch(#meta);
                let builder = ::kernel_dsl::build::B::new(#title, shape.warps, shape.min_blocks);
                { let b = &builder; #line #(#params)* let _ = #code; }
                builder.finish()
            }
        }
    }
}

/// The condition of `#[when(..)]`, taken off the parameter; rustc knows no such attribute and so blames a wrong one.
fn taken_when(input: &mut FnArg) -> Option<Expr> {
    let FnArg::Typed(t) = input else { return None };
    let at = t.attrs.iter().position(|a| a.path().is_ident("when"))?;
    let when = t.attrs[at].parse_args().ok()?;
    t.attrs.remove(at);
    Some(when)
}

fn parameter(body: &mut Body, input: &FnArg, when: Option<&Expr>) -> TokenStream {
    let FnArg::Typed(t) = input else { return body.reject(input, Reject::Receiver) };
    let Pat::Ident(p) = &*t.pat else { return body.reject(&t.pat, Reject::Pattern) };
    let (name, title) = (&p.ident, p.ident.to_string());
    if let Some(d) = dtype_of(&t.ty) {
        let param = q!(b.scalar_param(#title, #d));
        return if p.mutability.is_some() { q!(let #name = b.var(#param);) } else { q!(let #name = #param;) };
    }
    if let Some(of) = struct_param(input) {
        return q!(let #name = <#of as ::kernel_dsl::build::Arguments>::declare(b, #title););
    }
    if let Type::Reference(r) = &*t.ty {
        if let Some(a) = buffer_element(&r.elem) {
            let writable = r.mutability.is_some();
            let buffer = q!(b.buffer(#title, <#a as ::kernel_dsl::dtype::Elem>::DTYPE, #writable));
            return match when {
                Some(when) => q!(let #name = if #when { #buffer } else { ::kernel_dsl::build::V::Unit };),
                None => q!(let #name = #buffer;),
            };
        }
    }
    body.reject(&t.ty, Reject::KernelParam(text(&t.ty)))
}
