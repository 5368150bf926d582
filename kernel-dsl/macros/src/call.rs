//! Calls: of device functions through their builder halves, of methods by name.

use crate::body::{Body, here};
use crate::reject::Reject;
use proc_macro2::{Span, TokenStream};
use quote::format_ident;
use syn::spanned::Spanned;
use syn::*;

/// Methods whose last argument names a device function, and how many values that takes.
const TAKES_FN: [(&str, usize); 10] = [("map", 1), ("map2", 2), ("map3", 3), ("keys", 1), ("values", 1), ("grouped_keys", 1), ("grouped_values", 1), ("quads", 1), ("key_quads", 1), ("key_twos", 1)];

impl Body {
    pub fn call(&mut self, c: &ExprCall) -> TokenStream {
        let Expr::Path(p) = &*c.func else { return self.reject(&c.func, Reject::Expression) };
        let line = here(c.func.span());
        let args: Vec<_> = c.args.iter().map(|a| self.argument(a)).collect();
        let (segments, n) = (&p.path.segments, p.path.segments.len());
        if let ([Argument::Value(x)], true) = (args.as_slice(), n >= 2) {
            let of = segments[n - 2].ident.to_string();
            match segments[n - 1].ident.to_string().as_str() {
                "from_bits" => {
                    if let Some(d) = crate::types::dtype(&of) {
                        return q!({ let v = #x; #line b.bitcast(v, #d) });
                    }
                }
                "from_f32" => {
                    let mut ty = p.path.clone();
                    ty.segments.pop();
                    ty.segments.pop_punct();
                    return q!({ let v = #x; #line b.cast(v, <#ty as ::kernel_dsl::dtype::Elem>::DTYPE) });
                }
                _ => {}
            }
        }
        let last = segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
        if last == self.own && (n == 1 || n == 2 && segments[0].ident == "Self") {
            return self.reject(p, Reject::Recursion(last));
        }
        let callee = self.builder_path(p);
        let (lets, names) = bind(&args);
        q!({ #(#lets)* #line b.call(#last, || #callee(b, #(#names),*)) })
    }

    /// A value for the callee, or a host value passed on as it is.
    fn argument(&mut self, e: &Expr) -> Argument {
        match self.codec(e).or_else(|| self.meta(e)) {
            Some(value) => Argument::Host(value),
            // What the callee changes must be the caller's own.
            None => match e {
                Expr::Reference(r) if r.mutability.is_some() => Argument::Place(self.place(&r.expr)),
                Expr::Path(p) if p.path.get_ident().is_some_and(|i| self.changed.iter().any(|c| i == c)) => Argument::Place(self.place(e)),
                e => Argument::Value(self.expr(e)),
            },
        }
    }

    /// The kernel's meta value itself, `&m` or `m`.
    fn meta(&self, e: &Expr) -> Option<TokenStream> {
        match e {
            Expr::Path(p) => p.path.get_ident().filter(|_| self.is_host(e)).map(|i| q!(#i)),
            Expr::Reference(r) => self.meta(&r.expr),
            Expr::Paren(p) => self.meta(&p.expr),
            _ => None,
        }
    }

    /// The builder half of a function given by name or as `|x| ...`, as a closure over its `arity` values.
    fn function_argument(&mut self, f: Option<&Expr>, method: &str, arity: usize) -> TokenStream {
        match f {
            Some(Expr::Path(f)) => {
                let (callee, text) = (self.builder_path(f), f.path.segments.last().map(|s| s.ident.to_string()));
                let ids: Vec<_> = (0..arity).map(|i| q!(v[#i].clone())).collect();
                q!(&|b: &::kernel_dsl::build::B, v: Vec<::kernel_dsl::build::V>| b.call(#text, || #callee(b, #(#ids),*)))
            }
            Some(Expr::Closure(c)) if c.inputs.len() == arity => {
                let mut names = Vec::new();
                for p in &c.inputs {
                    match p {
                        Pat::Ident(p) if p.mutability.is_none() && p.subpat.is_none() && p.by_ref.is_none() => names.push(p.ident.clone()),
                        p => return self.reject(p, Reject::MapTarget(method.into())),
                    }
                }
                let (body, ids) = (self.expr(&c.body), 0..arity);
                q!(&|b: &::kernel_dsl::build::B, v: Vec<::kernel_dsl::build::V>| { #(let #names = v[#ids].clone();)* #body })
            }
            other => self.reject(other, Reject::MapTarget(method.into())),
        }
    }

    /// The builder half of a function: `C::f` of a trait is `C::f__ir`, a free function's is `f::ir`.
    fn builder_path(&mut self, p: &ExprPath) -> TokenStream {
        let mut path = p.path.clone();
        let first = path.segments.first().map(|s| s.ident.to_string()).unwrap_or_default();
        if path.segments.len() == 2 && (self.generics.contains(&first) || first == "Self") {
            if let Some(s) = path.segments.last_mut() {
                s.ident = format_ident!("{}__ir", s.ident);
            }
            return q!(#path);
        }
        let args = path.segments.last_mut().map(|s| std::mem::take(&mut s.arguments));
        match args {
            Some(PathArguments::AngleBracketed(a)) => q!(#path::ir #a),
            _ => q!(#path::ir),
        }
    }

    pub fn method(&mut self, m: &ExprMethodCall) -> TokenStream {
        let name = m.method.to_string();
        if Reject::method(&name).is_some() {
            return self.reject(&m.method, Reject::Method(name));
        }
        if m.args.is_empty() && self.is_host(&m.receiver) && name != "clone" {
            let (recv, method) = (self.host(&m.receiver), &m.method);
            return q!(::kernel_dsl::build::Konst::konst(#recv.#method(), b));
        }
        if let Some(codec) = self.codec(&m.receiver) {
            if name == self.own && matches!(&*m.receiver, Expr::Path(p) if p.path.is_ident("self")) {
                return self.reject(&m.method, Reject::Recursion(name));
            }
            let (line, twin) = (here(m.method.span()), format_ident!("{}__ir", m.method));
            let args: Vec<_> = m.args.iter().map(|a| self.argument(a)).collect();
            let (lets, names) = bind(&args);
            return q!({ #(#lets)* #line b.call(#name, || #codec.#twin(b, #(#names),*)) });
        }
        let recv = self.place(&m.receiver);
        let line = here(m.method.span());
        if let Some((_, arity)) = TAKES_FN.iter().find(|(n, _)| *n == name) {
            let last = m.args.len().saturating_sub(1);
            let f = self.function_argument(m.args.last(), &name, *arity);
            let rest: Vec<_> = m.args.iter().take(last).map(|a| self.expr(a)).collect();
            return q!({ let r = #recv; let a = vec![#({ let v = #rest; b.get(&v) }),*]; #line b.method_fn(#name, &r, a, #f) });
        }
        let args: Vec<_> = m.args.iter().map(|a| self.expr(a)).collect();
        if let Some(t) = &m.turbofish {
            let t = &t.args;
            return q!({ let r = #recv; let a = vec![#({ let v = #args; b.get(&v) }),*]; #line b.method_typed(#name, <#t as ::kernel_dsl::dtype::Elem>::DTYPE, &r, a) });
        }
        q!({ let r = #recv; let a = vec![#({ let v = #args; b.get(&v) }),*]; #line b.method(#name, &r, a) })
    }
}

/// What a call passes on.
enum Argument {
    Value(TokenStream),
    Place(TokenStream),
    Host(TokenStream),
}

/// `let`s that evaluate the values in order, and what to pass.
fn bind(args: &[Argument]) -> (Vec<TokenStream>, Vec<TokenStream>) {
    let (mut lets, mut names) = (Vec::new(), Vec::new());
    for (i, a) in args.iter().enumerate() {
        match a {
            Argument::Host(x) => names.push(x.clone()),
            Argument::Value(x) | Argument::Place(x) => {
                let name = Ident::new(&format!("a{i}"), Span::mixed_site());
                lets.push(if matches!(a, Argument::Value(_)) { q!(let #name = { let v = #x; b.get(&v) };) } else { q!(let #name = #x;) });
                names.push(q!(#name));
            }
        }
    }
    (lets, names)
}
