//! `#[device]` and `#[codec]`: the builder half of functions.

use crate::body::Body;
use crate::reject::Reject;
use proc_macro2::TokenStream;
use quote::format_ident;
use syn::*;

/// Parameters, body and errors of a function's builder half.
fn half(sig: &Signature, block: &Block) -> (Vec<Ident>, TokenStream, Option<Error>) {
    let mut body = Body::of(sig);
    let (mut names, mut variables) = (Vec::new(), Vec::new());
    for input in &sig.inputs {
        match input {
            FnArg::Typed(t) => {
                body.check_type(&t.ty);
                match &*t.pat {
                    Pat::Ident(p) if p.subpat.is_none() && p.by_ref.is_none() => {
                        names.push(p.ident.clone());
                        if p.mutability.is_some() {
                            variables.push(p.ident.clone());
                        }
                    }
                    Pat::Wild(_) => names.push(format_ident!("_unused{}", names.len())),
                    p => drop(body.reject(p, Reject::Pattern)),
                }
            }
            FnArg::Receiver(r) => drop(body.reject(r, Reject::Receiver)),
        }
    }
    if let ReturnType::Type(_, t) = &sig.output {
        body.check_type(t);
    }
    let tokens = body.function(block);
    let tokens = match body.errors {
        // The half still stands, so that its callers have nothing to complain of.
        Some(_) => q!(::core::unimplemented!()),
        None => q!(#(let #variables = b.var(#variables);)* #tokens),
    };
    (names, tokens, body.errors)
}

fn lints() -> TokenStream {
    q!(#[allow(dead_code, unused, non_snake_case, non_camel_case_types, clippy::all)] #[doc(hidden)])
}

fn compile_errors(e: Option<Error>) -> TokenStream {
    e.map(|e| e.to_compile_error()).unwrap_or_default()
}

pub fn expand(item: TokenStream) -> TokenStream {
    let f: ItemFn = match parse2(item) {
        Ok(f) => f,
        Err(e) => return e.to_compile_error(),
    };
    let (names, body, errors) = half(&f.sig, &f.block);
    let errors = compile_errors(errors);
    let (vis, name, lints) = (&f.vis, &f.sig.ident, lints());
    let (generics, _, bounds) = f.sig.generics.split_for_impl();
    // A struct with braces lives in the type namespace only, so one `use` brings the function and its builder half.
    q! {
        #f
        #errors
        #lints #vis struct #name {}
        #lints impl #name {
            #vis fn ir #generics (b: &::kernel_dsl::build::B, #(#names: ::kernel_dsl::build::V),*) -> ::kernel_dsl::build::V #bounds { #body }
        }
    }
}

pub fn expand_codec(item: TokenStream) -> TokenStream {
    if let Ok(t) = parse2::<ItemTrait>(item.clone()) {
        return on_trait(t);
    }
    match parse2::<ItemImpl>(item) {
        Ok(i) => on_impl(i),
        Err(e) => e.to_compile_error(),
    }
}

fn twin(sig: &Signature, names: &[Ident], body: Option<TokenStream>) -> TokenStream {
    let (lints, name) = (lints(), format_ident!("{}__ir", sig.ident));
    let end = match body {
        Some(b) => q!({ #b }),
        None => q!(;),
    };
    q!(#lints fn #name(b: &::kernel_dsl::build::B, #(#names: ::kernel_dsl::build::V),*) -> ::kernel_dsl::build::V #end)
}

fn on_trait(mut t: ItemTrait) -> TokenStream {
    let mut errors = TokenStream::new();
    let mut twins = Vec::new();
    for item in &t.items {
        let TraitItem::Fn(f) = item else { continue };
        let empty: Block = parse_quote!({});
        let (names, body, e) = half(&f.sig, f.default.as_ref().unwrap_or(&empty));
        errors.extend(compile_errors(e));
        twins.push(twin(&f.sig, &names, f.default.as_ref().map(|_| body)));
    }
    t.items.extend(twins.into_iter().map(TraitItem::Verbatim));
    q!(#t #errors)
}

fn on_impl(mut i: ItemImpl) -> TokenStream {
    let mut errors = TokenStream::new();
    let mut twins = Vec::new();
    for item in &i.items {
        let ImplItem::Fn(f) = item else { continue };
        let (names, body, e) = half(&f.sig, &f.block);
        errors.extend(compile_errors(e));
        twins.push(twin(&f.sig, &names, Some(body)));
    }
    i.items.extend(twins.into_iter().map(ImplItem::Verbatim));
    q!(#i #errors)
}
