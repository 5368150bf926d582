//! `#[device]` and `#[codec]`: the builder half of functions.

use crate::body::Body;
use crate::reject::Reject;
use proc_macro2::TokenStream;
use quote::format_ident;
use syn::*;

/// Types a device function may take or give; tiles and buffers may only be taken.
fn check_type(body: &mut Body, t: &Type, parameter: bool) {
    match t {
        Type::Path(p) => {
            let Some(last) = p.path.segments.last() else { return };
            let name = last.ident.to_string();
            let known = crate::body::dtype(&name).is_some() || name == "usize" || body.generics.contains(&name) || matches!(name.as_str(), "Tile" | "Global" | "Shared" | "Page");
            if !known {
                body.reject(t, Reject::Type(q!(#t).to_string()));
            }
        }
        Type::Array(a) => check_type(body, &a.elem, parameter),
        Type::Tuple(x) => x.elems.iter().for_each(|t| check_type(body, t, parameter)),
        Type::Reference(r) => {
            let name = match &*r.elem {
                Type::Path(p) => p.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default(),
                _ => String::new(),
            };
            let view = matches!(name.as_str(), "Tile" | "Global" | "Shared" | "Page");
            if r.mutability.is_some() && !view {
                body.reject(t, Reject::MutParam);
            } else {
                check_type(body, &r.elem, parameter);
            }
        }
        Type::ImplTrait(_) => drop(body.reject(t, Reject::Async("impl Trait"))),
        Type::TraitObject(_) => drop(body.reject(t, Reject::Async("dyn"))),
        Type::Ptr(_) => drop(body.reject(t, Reject::Unsafe)),
        t => drop(body.reject(t, Reject::Type(q!(#t).to_string()))),
    }
}

fn generic_names(g: &Generics) -> Vec<String> {
    g.params.iter().filter_map(|p| if let GenericParam::Type(t) = p { Some(t.ident.to_string()) } else { None }).collect()
}

/// Parameters, body and errors of a function's builder half.
fn half(sig: &Signature, block: &Block) -> (Vec<Ident>, TokenStream, Option<Error>) {
    let mut body = Body { errors: None, generics: generic_names(&sig.generics), meta: None };
    if sig.asyncness.is_some() {
        body.reject(sig.asyncness, Reject::Async("async"));
    }
    if sig.unsafety.is_some() {
        body.reject(sig.unsafety, Reject::Unsafe);
    }
    let mut names = Vec::new();
    for input in &sig.inputs {
        match input {
            FnArg::Typed(t) => {
                check_type(&mut body, &t.ty, true);
                match &*t.pat {
                    Pat::Ident(p) => names.push(p.ident.clone()),
                    Pat::Wild(_) => names.push(format_ident!("_unused{}", names.len())),
                    p => drop(body.reject(p, Reject::Pattern)),
                }
            }
            FnArg::Receiver(r) => drop(body.reject(r, Reject::Expression)),
        }
    }
    if let ReturnType::Type(_, t) = &sig.output {
        check_type(&mut body, t, false);
    }
    let tokens = body.block(block);
    (names, tokens, body.errors)
}

fn lints() -> TokenStream {
    q!(#[allow(dead_code, unused, non_snake_case, non_camel_case_types, clippy::all)] #[doc(hidden)])
}

pub fn expand(item: TokenStream) -> TokenStream {
    let f: ItemFn = match parse2(item) {
        Ok(f) => f,
        Err(e) => return e.to_compile_error(),
    };
    let (names, body, errors) = half(&f.sig, &f.block);
    if let Some(e) = errors {
        let e = e.to_compile_error();
        return q!(#f #e);
    }
    let (vis, name, lints) = (&f.vis, &f.sig.ident, lints());
    let (generics, _, bounds) = f.sig.generics.split_for_impl();
    // A struct with braces lives in the type namespace only, so one `use` brings the function and its builder half.
    q! {
        #f
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
        errors.extend(e.map(|e| e.to_compile_error()));
        twins.push(twin(&f.sig, &names, f.default.as_ref().map(|_| body)));
    }
    for x in twins {
        t.items.push(TraitItem::Verbatim(x));
    }
    q!(#t #errors)
}

fn on_impl(mut i: ItemImpl) -> TokenStream {
    let mut errors = TokenStream::new();
    let mut twins = Vec::new();
    for item in &i.items {
        let ImplItem::Fn(f) = item else { continue };
        let (names, body, e) = half(&f.sig, &f.block);
        match e {
            Some(e) => errors.extend(e.to_compile_error()),
            None => twins.push(twin(&f.sig, &names, Some(body))),
        }
    }
    for x in twins {
        i.items.push(ImplItem::Verbatim(x));
    }
    q!(#i #errors)
}
