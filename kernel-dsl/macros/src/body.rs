//! Statements: each sets its Rust line, then calls the builder `b`.

use crate::reject::Reject;
use crate::types::dtype_of;
use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;
use syn::*;

/// The translation of one function.
#[derive(Default)]
pub struct Body {
    pub errors: Option<Error>,
    /// The function's own name, which it may not call.
    pub own: String,
    /// Type parameters in scope: `C::f(x)` is then a function of a trait.
    pub generics: Vec<String>,
    /// Values of the host: the kernel's meta value, `&dyn` parameters, `self`. What they say is known while building.
    pub hosts: Vec<String>,
    /// Those among them that have device functions of their own: `&dyn` parameters and `self`.
    pub codecs: Vec<String>,
    /// `&mut` parameters, which pass on what they stand for.
    pub changed: Vec<String>,
    /// Types that must be `#[device]` structs.
    pub structs: Vec<Type>,
}

impl Body {
    pub fn of(sig: &Signature) -> Body {
        let mut body = Body { own: sig.ident.to_string(), generics: crate::types::generic_names(&sig.generics), ..Body::default() };
        body.check_signature(sig);
        body
    }

    /// A `&dyn Trait` parameter, or `self`: its functions have device halves.
    pub fn add_codec(&mut self, name: String) {
        self.hosts.push(name.clone());
        self.codecs.push(name);
    }

    /// `m`, `m.d`, `c.spec()`, `c.spec().bits`: what the host knows when it builds the kernel.
    pub fn is_host(&self, e: &Expr) -> bool {
        match e {
            Expr::Path(p) => p.path.get_ident().is_some_and(|i| self.hosts.iter().any(|h| i == h)),
            Expr::Index(_) => self.codec(e).is_some(),
            Expr::Field(f) => self.is_host(&f.base),
            Expr::MethodCall(m) => m.args.is_empty() && m.turbofish.is_none() && m.method != "clone" && self.is_host(&m.receiver),
            Expr::Paren(p) => self.is_host(&p.expr),
            Expr::Reference(r) => r.mutability.is_none() && self.is_host(&r.expr),
            _ => false,
        }
    }

    /// A value that has device functions of its own, in the builder half: `c`, or `c[i]` of a list.
    pub fn codec(&self, e: &Expr) -> Option<TokenStream> {
        match e {
            Expr::Path(p) => p.path.get_ident().filter(|i| self.codecs.iter().any(|c| *i == c)).map(|i| q!(#i)),
            Expr::Paren(p) => self.codec(&p.expr),
            Expr::Index(i) => {
                let (list, at) = (self.codec(&i.expr)?, host_index(&i.index)?);
                Some(q!(#list[#at]))
            }
            _ => None,
        }
    }

    /// An expression of the host as the builder half writes it: indices of lists are values known while building.
    pub fn host(&self, e: &Expr) -> TokenStream {
        match e {
            Expr::Field(f) => {
                let (base, member) = (self.host(&f.base), &f.member);
                q!(#base.#member)
            }
            Expr::MethodCall(m) => {
                let (recv, method) = (self.host(&m.receiver), &m.method);
                q!(#recv.#method())
            }
            Expr::Index(_) => self.codec(e).unwrap_or_default(),
            Expr::Paren(p) => self.host(&p.expr),
            e => q!(#e),
        }
    }

    /// Keeps the mistake and gives tokens that stand for a value, so that one run finds them all.
    pub fn reject(&mut self, at: impl ToTokens, why: Reject) -> TokenStream {
        let e = Error::new_spanned(at, why);
        match &mut self.errors {
            Some(all) => all.combine(e),
            None => self.errors = Some(e),
        }
        q!(::kernel_dsl::build::V::Unit)
    }

    /// A function's body: the one place where `return` may stand, as the last statement.
    pub fn function(&mut self, block: &Block) -> TokenStream {
        let Some((Stmt::Expr(Expr::Return(r), _), before)) = block.stmts.split_last() else { return self.block(block) };
        let stmts: Vec<_> = before.iter().map(|s| self.stmt(s, false)).collect();
        let line = here(r.span());
        let end = match &r.expr {
            Some(e) => self.expr(e),
            None => q!(::kernel_dsl::build::V::Unit),
        };
        q!({ #(#stmts)* #line #end })
    }

    pub fn block(&mut self, block: &Block) -> TokenStream {
        let value = matches!(block.stmts.last(), Some(Stmt::Expr(_, None)));
        let last = block.stmts.len();
        let stmts: Vec<_> = block.stmts.iter().enumerate().map(|(i, s)| self.stmt(s, value && i + 1 == last)).collect();
        let end = (!value).then(|| q!(::kernel_dsl::build::V::Unit));
        q!({ #(#stmts)* #end })
    }

    fn stmt(&mut self, s: &Stmt, value: bool) -> TokenStream {
        match s {
            Stmt::Local(l) => self.local(l),
            Stmt::Expr(e, _) => {
                let line = here(e.span());
                let e = self.expr(e);
                if value { q!(#line #e) } else { q!(#line let _ = #e;) }
            }
            Stmt::Macro(m) => self.foreign_macro(&m.mac),
            Stmt::Item(i) => self.reject(i, Reject::Item),
        }
    }

    pub fn foreign_macro(&mut self, m: &Macro) -> TokenStream {
        let name = m.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
        self.reject(&m.path, Reject::Macro(name))
    }

    fn local(&mut self, l: &Local) -> TokenStream {
        let Some(init) = &l.init else { return self.reject(l, Reject::Uninitialised) };
        if init.diverge.is_some() {
            return self.reject(l, Reject::LetElse);
        }
        let (pat, ty) = match &l.pat {
            Pat::Type(t) => (&*t.pat, Some(&*t.ty)),
            p => (p, None),
        };
        if ty.is_none() && untyped(&init.expr) {
            return self.reject(&init.expr, Reject::UntypedLet);
        }
        let line = here(l.span());
        let mut e = self.expr(&init.expr);
        if let Some(ty) = ty {
            match dtype_of(ty) {
                Some(d) => e = q!({ let v = #e; #line b.typed(v, #d) }),
                None => self.check_type(ty),
            }
        }
        match pat {
            Pat::Ident(p) if p.subpat.is_none() && p.by_ref.is_none() => {
                let name = &p.ident;
                if p.mutability.is_some() { q!(#line let #name = { let v = #e; #line b.var(v) };) } else { q!(#line let #name = { let v = #e; b.get(&v) };) }
            }
            Pat::Tuple(t) => {
                let mut binds = Vec::new();
                for (i, p) in t.elems.iter().enumerate() {
                    match p {
                        Pat::Ident(p) if p.subpat.is_none() && p.by_ref.is_none() => {
                            let name = &p.ident;
                            let i = i as i64;
                            let el = q!(b.element(&whole, ::kernel_dsl::build::V::Int(#i)));
                            binds.push(if p.mutability.is_some() { q!(let #name = b.var(#el);) } else { q!(let #name = #el;) });
                        }
                        Pat::Wild(_) => {}
                        p => return self.reject(p, Reject::Pattern),
                    }
                }
                q!(#line let whole = { let v = #e; b.get(&v) }; #line #(#binds)*)
            }
            Pat::Wild(_) => q!(#line let _ = #e;),
            p => self.reject(p, Reject::Pattern),
        }
    }
}

/// An index into a list of the host: a number, or the variable of a loop that is unrolled while building.
fn host_index(e: &Expr) -> Option<TokenStream> {
    match e {
        Expr::Lit(_) => Some(q!(#e)),
        Expr::Path(p) => p.path.get_ident().map(|i| q!(b.known(&#i))),
        _ => None,
    }
}

/// `b.at(file, line)` for a place in the user's source.
pub fn here(span: Span) -> TokenStream {
    let (file, line) = (quote_spanned!(span=> ::core::file!()), quote_spanned!(span=> ::core::line!()));
    q!(b.at(#file, #line);)
}

/// Literals whose type only rustc could tell, from how the name is used later.
fn untyped(e: &Expr) -> bool {
    match e {
        Expr::Lit(ExprLit { lit: Lit::Int(x), .. }) => x.suffix().is_empty(),
        Expr::Lit(ExprLit { lit: Lit::Float(x), .. }) => x.suffix().is_empty(),
        Expr::Unary(u) => untyped(&u.expr),
        Expr::Paren(p) => untyped(&p.expr),
        Expr::Repeat(r) => untyped(&r.expr),
        Expr::Array(a) => a.elems.iter().any(untyped),
        Expr::Tuple(t) => t.elems.iter().any(untyped),
        Expr::Binary(x) => untyped(&x.left) && untyped(&x.right),
        _ => false,
    }
}
