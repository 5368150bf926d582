//! `#[device]` and `#[codec]` on functions: their builder half.

use crate::body::Body;
use crate::reject::Reject;
use proc_macro2::TokenStream;
use quote::format_ident;
use syn::*;

/// Parameters, body and errors of a function's builder half.
fn half(sig: &Signature, block: &Block, of_codec: bool) -> (Vec<TokenStream>, TokenStream, Option<Error>) {
    let mut body = Body::of(sig);
    let (mut params, mut variables) = (Vec::new(), Vec::new());
    let value = |name: &Ident| q!(#name: ::kernel_dsl::build::V);
    for input in &sig.inputs {
        if let Some(name) = crate::types::host_param(input) {
            body.add_codec(name.to_string());
            params.push(q!(#input));
            continue;
        }
        if let Some(name) = crate::types::meta_param(input) {
            body.hosts.push(name.to_string());
            params.push(q!(#input));
            continue;
        }
        match input {
            FnArg::Typed(t) => {
                body.check_type(&t.ty);
                if let (Pat::Ident(p), Type::Reference(TypeReference { mutability: Some(_), .. })) = (&*t.pat, &*t.ty) {
                    body.changed.push(p.ident.to_string());
                }
                match &*t.pat {
                    Pat::Ident(p) if p.subpat.is_none() && p.by_ref.is_none() => {
                        params.push(value(&p.ident));
                        if p.mutability.is_some() {
                            variables.push(p.ident.clone());
                        }
                    }
                    Pat::Wild(_) => params.push(value(&format_ident!("_unused{}", params.len()))),
                    p => drop(body.reject(p, Reject::Pattern)),
                }
            }
            FnArg::Receiver(r) if of_codec && r.reference.is_some() && r.mutability.is_none() => body.add_codec("self".into()),
            FnArg::Receiver(r) => drop(body.reject(r, Reject::Receiver)),
        }
    }
    if let ReturnType::Type(_, t) = &sig.output {
        body.check_type(t);
    }
    let tokens = body.function(block);
    let structs = std::mem::take(&mut body.structs);
    let tokens = match body.errors {
        // The half still stands, so that its callers have nothing to complain of.
        Some(_) => q!(::core::unimplemented!()),
        None => q!(#(::kernel_dsl::build::device_struct::<#structs>();)* #(let #variables = b.var(#variables);)* #tokens),
    };
    (params, tokens, body.errors)
}

fn lints() -> TokenStream {
    q!(#[allow(dead_code, unused, non_snake_case, non_camel_case_types, clippy::all)] #[doc(hidden)])
}

fn compile_errors(e: Option<Error>) -> TokenStream {
    e.map(|e| e.to_compile_error()).unwrap_or_default()
}

pub fn expand(item: TokenStream) -> TokenStream {
    if let Ok(s) = parse2::<ItemStruct>(item.clone()) {
        return crate::structs::expand(s);
    }
    let f: ItemFn = match parse2(item) {
        Ok(f) => f,
        Err(e) => return e.to_compile_error(),
    };
    let (params, body, errors) = half(&f.sig, &f.block, false);
    let errors = compile_errors(errors);
    let (vis, name, lints) = (&f.vis, &f.sig.ident, lints());
    let (generics, _, bounds) = f.sig.generics.split_for_impl();
    // A struct with braces lives in the type namespace only, so one `use` brings the function and its builder half.
    q! {
        #f
        #errors
        #lints #vis struct #name {}
        #lints impl #name {
            #vis fn ir #generics (b: &::kernel_dsl::build::B, #(#params),*) -> ::kernel_dsl::build::V #bounds { #body }
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

/// What only says something about the codec, `fn spec(&self) -> Spec`, is the host's: it has no device half.
fn is_host(sig: &Signature) -> bool {
    sig.receiver().is_some() && sig.inputs.len() == 1
}

fn twin(sig: &Signature, params: &[TokenStream], body: Option<TokenStream>) -> TokenStream {
    let (lints, name) = (lints(), format_ident!("{}__ir", sig.ident));
    let end = match body {
        Some(b) => q!({ #b }),
        None => q!(;),
    };
    let receiver = sig.receiver().map(|r| q!(#r,));
    q!(#lints fn #name(#receiver b: &::kernel_dsl::build::B, #(#params),*) -> ::kernel_dsl::build::V #end)
}

fn on_trait(mut t: ItemTrait) -> TokenStream {
    let mut errors = TokenStream::new();
    let mut twins = Vec::new();
    for item in &t.items {
        let TraitItem::Fn(f) = item else { continue };
        if is_host(&f.sig) {
            continue;
        }
        let empty: Block = parse_quote!({});
        let (params, body, e) = half(&f.sig, f.default.as_ref().unwrap_or(&empty), true);
        errors.extend(compile_errors(e));
        twins.push(twin(&f.sig, &params, f.default.as_ref().map(|_| body)));
    }
    t.items.extend(twins.into_iter().map(TraitItem::Verbatim));
    q!(#t #errors)
}

fn on_impl(mut i: ItemImpl) -> TokenStream {
    let mut errors = TokenStream::new();
    let mut twins = Vec::new();
    for item in &i.items {
        let ImplItem::Fn(f) = item else { continue };
        if is_host(&f.sig) {
            continue;
        }
        let (params, body, e) = half(&f.sig, &f.block, true);
        errors.extend(compile_errors(e));
        twins.push(twin(&f.sig, &params, Some(body)));
    }
    i.items.extend(twins.into_iter().map(ImplItem::Verbatim));
    q!(#i #errors)
}
