//! `#[kernel]`: a block's program. Its builder half declares the arguments, then runs the body.

use crate::body::{Body, dtype_of};
use crate::reject::Reject;
use proc_macro2::TokenStream;
use syn::spanned::Spanned;
use syn::*;

pub fn expand(item: TokenStream) -> TokenStream {
    let f: ItemFn = match parse2(item) {
        Ok(f) => f,
        Err(e) => return e.to_compile_error(),
    };
    let generics: Vec<String> = f.sig.generics.params.iter().filter_map(|p| if let GenericParam::Type(t) = p { Some(t.ident.to_string()) } else { None }).collect();
    let mut body = Body { errors: None, generics, meta: None };
    if let ReturnType::Type(..) = f.sig.output {
        body.reject(&f.sig.output, Reject::KernelReturns);
    }
    let mut inputs = f.sig.inputs.iter();
    let (meta, meta_type) = match inputs.next() {
        Some(FnArg::Typed(t)) if !matches!(&*t.ty, Type::Reference(_)) && dtype_of(&t.ty).is_none() => match &*t.pat {
            Pat::Ident(p) => (p.ident.clone(), (*t.ty).clone()),
            p => {
                body.reject(p, Reject::Pattern);
                (Ident::new("m", p.span()), (*t.ty).clone())
            }
        },
        other => {
            let span = other.map_or(f.sig.ident.span(), |o| o.span());
            let e = Error::new(span, Reject::KernelMeta).to_compile_error();
            return q!(#f #e);
        }
    };
    body.meta = Some(meta.to_string());
    let params: Vec<TokenStream> = inputs.map(|i| parameter(&mut body, i)).collect();
    let code = body.block(&f.block);
    if let Some(e) = body.errors {
        let e = e.to_compile_error();
        return q!(#f #e);
    }
    let (vis, name, text) = (&f.vis, &f.sig.ident, f.sig.ident.to_string());
    let (generics, _, bounds) = f.sig.generics.split_for_impl();
    q! {
        #[allow(clippy::too_many_arguments)]
        #f
        #[allow(dead_code, non_camel_case_types)] #[doc(hidden)] #vis struct #name {}
        #[allow(dead_code, unused, clippy::all)]
        impl #name {
            /// The kernel's tile IR for one meta value.
            #vis fn build #generics (#meta: &#meta_type) -> ::core::result::Result<::kernel_dsl::ir::Program, ::kernel_dsl::report::Report> #bounds {
                let shape = ::kernel_dsl::Meta::launch(#meta);
                let builder = ::kernel_dsl::build::B::new(#text, shape.warps, shape.min_blocks);
                { let b = &builder; #(#params)* let _ = #code; }
                builder.finish()
            }
        }
    }
}

fn parameter(body: &mut Body, input: &FnArg) -> TokenStream {
    let FnArg::Typed(t) = input else { return body.reject(input, Reject::Expression) };
    let Pat::Ident(p) = &*t.pat else { return body.reject(&t.pat, Reject::Pattern) };
    let (name, text) = (&p.ident, p.ident.to_string());
    if let Some(d) = dtype_of(&t.ty) {
        return q!(let #name = b.scalar_param(#text, #d););
    }
    if let Type::Reference(r) = &*t.ty {
        if let Type::Path(path) = &*r.elem {
            if let Some(PathSegment { ident, arguments: PathArguments::AngleBracketed(a) }) = path.path.segments.last() {
                if ident == "Global" {
                    let (a, writable) = (&a.args, r.mutability.is_some());
                    return q!(let #name = b.buffer(#text, <#a as ::kernel_dsl::dtype::Elem>::DTYPE, #writable););
                }
            }
        }
    }
    let ty = &t.ty;
    body.reject(&t.ty, Reject::KernelParam(q!(#ty).to_string()))
}
