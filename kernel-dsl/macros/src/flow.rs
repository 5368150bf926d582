//! Branches and loops: their bodies become closures, which the builder runs where it wants them.

use crate::body::{Body, here};
use crate::reject::Reject;
use proc_macro2::TokenStream;
use quote::format_ident;
use syn::spanned::Spanned;
use syn::*;

impl Body {
    pub fn if_else(&mut self, i: &ExprIf) -> TokenStream {
        let (cond, then) = (self.expr(&i.cond), self.block(&i.then_branch));
        let other = match &i.else_branch {
            Some((_, e)) => self.expr(e),
            None => q!(::kernel_dsl::build::V::Unit),
        };
        let line = here(i.if_token.span());
        q!({ let c = #cond; #line b.if_else(c, &|| #then, &|| #other) })
    }

    pub fn for_loop(&mut self, f: &ExprForLoop) -> TokenStream {
        let var = match &*f.pat {
            Pat::Ident(p) if p.subpat.is_none() && p.by_ref.is_none() && p.mutability.is_none() => q!(#p),
            Pat::Wild(_) => q!(_),
            p => return self.reject(p, Reject::Pattern),
        };
        let line = here(f.for_token.span());
        let body = self.block(&f.body);
        let body = q!(&|#var: ::kernel_dsl::build::V| { let _ = #body; });
        match &*f.expr {
            Expr::Range(ExprRange { start: Some(lo), end: Some(hi), limits: RangeLimits::HalfOpen(_), .. }) => {
                let (lo, hi) = (self.expr(lo), self.expr(hi));
                q!({ let lo = #lo; let hi = #hi; #line b.for_range(lo, hi, #body); ::kernel_dsl::build::V::Unit })
            }
            Expr::Call(c) => self.named_loop(c, &line, &body),
            Expr::MethodCall(m) if m.method == "step_by" => self.reject(&m.method, Reject::Method("step_by".into())),
            Expr::MethodCall(m) if m.method.to_string().contains("iter") => self.reject(&m.method, Reject::Method(m.method.to_string())),
            e => self.reject(e, Reject::Range),
        }
    }

    fn named_loop(&mut self, c: &ExprCall, line: &TokenStream, body: &TokenStream) -> TokenStream {
        let name = match &*c.func {
            Expr::Path(p) => p.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default(),
            _ => String::new(),
        };
        let a: Vec<_> = c.args.iter().map(|e| self.expr(e)).collect();
        let par = |kind: &str, n: &TokenStream| {
            let kind = format_ident!("{kind}");
            q!({ let n = #n; #line b.for_parallel(::kernel_dsl::ir::Par::#kind, n, #body); ::kernel_dsl::build::V::Unit })
        };
        match (name.as_str(), a.as_slice()) {
            ("strided", [lo, hi, step]) => q!({ let lo = #lo; let hi = #hi; let s = #step; #line b.for_stream(lo, hi, s, ::kernel_dsl::build::V::Int(0), #body); ::kernel_dsl::build::V::Unit }),
            ("stream", [lo, hi, step, n]) => q!({ let lo = #lo; let hi = #hi; let s = #step; let n = #n; #line b.for_pipelined(lo, hi, s, n, #body); ::kernel_dsl::build::V::Unit }),
            ("warps", [n]) => par("Warps", n),
            ("threads", [n]) => par("Threads", n),
            ("warpwise", [n]) => par("Warpwise", n),
            ("lanes", [n]) => par("Lanes", n),
            _ => self.reject(c, Reject::Range),
        }
    }
}
