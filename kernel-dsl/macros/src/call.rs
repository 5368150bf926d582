//! Calls: of device functions through their builder halves, of methods by name.

use crate::body::{Body, here};
use crate::reject::Reject;
use proc_macro2::{Span, TokenStream};
use quote::format_ident;
use syn::spanned::Spanned;
use syn::*;

/// Methods whose last argument names a device function, and how many values that takes.
const TAKES_FN: [(&str, usize); 6] = [("map", 1), ("map2", 2), ("map3", 3), ("keys", 1), ("values", 1), ("quads", 1)];

impl Body {
    pub fn call(&mut self, c: &ExprCall) -> TokenStream {
        let Expr::Path(p) = &*c.func else { return self.reject(&c.func, Reject::Expression) };
        let args: Vec<_> = c.args.iter().map(|a| self.expr(a)).collect();
        let line = here(c.func.span());
        let (segments, n) = (&p.path.segments, p.path.segments.len());
        if let ([x], true) = (args.as_slice(), n >= 2) {
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
        let names: Vec<_> = (0..args.len()).map(|i| Ident::new(&format!("a{i}"), Span::mixed_site())).collect();
        q!({ #(let #names = { let v = #args; b.get(&v) };)* #line b.call(#last, || #callee(b, #(#names),*)) })
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
        let recv = self.place(&m.receiver);
        let line = here(m.method.span());
        if let Some((_, arity)) = TAKES_FN.iter().find(|(n, _)| *n == name) {
            let last = m.args.len().saturating_sub(1);
            let Some(Expr::Path(f)) = m.args.last() else { return self.reject(m.args.last(), Reject::MapTarget(name)) };
            let (f, text) = (self.builder_path(f), f.path.segments.last().map(|s| s.ident.to_string()));
            let rest: Vec<_> = m.args.iter().take(last).map(|a| self.expr(a)).collect();
            let ids: Vec<_> = (0..*arity).map(|i| q!(v[#i].clone())).collect();
            return q!({ let r = #recv; let a = vec![#({ let v = #rest; b.get(&v) }),*]; #line b.method_fn(#name, &r, a, &|b: &::kernel_dsl::build::B, v: Vec<::kernel_dsl::build::V>| b.call(#text, || #f(b, #(#ids),*))) });
        }
        let args: Vec<_> = m.args.iter().map(|a| self.expr(a)).collect();
        if let Some(t) = &m.turbofish {
            let t = &t.args;
            return q!({ let r = #recv; let a = vec![#({ let v = #args; b.get(&v) }),*]; #line b.method_typed(#name, <#t as ::kernel_dsl::dtype::Elem>::DTYPE, &r, a) });
        }
        q!({ let r = #recv; let a = vec![#({ let v = #args; b.get(&v) }),*]; #line b.method(#name, &r, a) })
    }
}
