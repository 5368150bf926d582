//! Expressions: every operator becomes a call of the builder `b`, at the operator's own line.

use crate::body::{Body, here};
use crate::reject::Reject;
use crate::types::{dtype, dtype_of, text};
use proc_macro2::{Span, TokenStream};
use syn::spanned::Spanned;
use syn::*;

impl Body {
    pub fn expr(&mut self, e: &Expr) -> TokenStream {
        match e {
            Expr::Lit(l) => self.literal(l),
            Expr::Path(p) => self.path(p),
            Expr::Paren(p) => self.expr(&p.expr),
            Expr::Group(p) => self.expr(&p.expr),
            Expr::Reference(r) => self.expr(&r.expr),
            Expr::Unary(u) => self.unary(u),
            Expr::Binary(x) => self.binary(x),
            Expr::Assign(a) => {
                let (line, place, v) = (here(a.eq_token.span()), self.place(&a.left), self.expr(&a.right));
                q!({ let v = #v; #line let p = #place; b.assign(&p, v) })
            }
            Expr::Call(c) => self.call(c),
            Expr::MethodCall(m) => self.method(m),
            Expr::Index(_) => {
                let p = self.place(e);
                q!({ let p = #p; b.get(&p) })
            }
            Expr::Field(f) => self.field(f),
            Expr::Array(a) => {
                let items: Vec<_> = a.elems.iter().map(|e| self.expr(e)).collect();
                q!(::kernel_dsl::build::V::Array(vec![#({ let v = #items; b.get(&v) }),*]))
            }
            Expr::Repeat(r) => {
                let (line, v, n) = (here(r.span()), self.expr(&r.expr), self.expr(&r.len));
                q!({ let v = #v; let n = #n; #line b.repeat(v, n) })
            }
            Expr::Tuple(t) => {
                let items: Vec<_> = t.elems.iter().map(|e| self.expr(e)).collect();
                if items.is_empty() { q!(::kernel_dsl::build::V::Unit) } else { q!(::kernel_dsl::build::V::Tuple(vec![#({ let v = #items; b.get(&v) }),*])) }
            }
            Expr::Struct(s) => self.structure(s),
            Expr::If(i) => self.if_else(i),
            Expr::Block(x) => self.block(&x.block),
            Expr::ForLoop(f) => self.for_loop(f),
            Expr::Cast(c) => self.cast(c),
            Expr::While(w) => self.reject(w.while_token, Reject::While),
            Expr::Loop(l) => self.reject(l.loop_token, Reject::While),
            Expr::Closure(_) => self.reject(e, Reject::Closure),
            Expr::Return(_) => self.reject(e, Reject::Return),
            Expr::Break(_) | Expr::Continue(_) => self.reject(e, Reject::Leave),
            Expr::Match(m) => self.reject(m.match_token, Reject::Match),
            Expr::Let(l) => self.reject(l.let_token, Reject::Match),
            Expr::Unsafe(u) => self.reject(u.unsafe_token, Reject::Unsafe),
            Expr::Async(a) => self.reject(a.async_token, Reject::Async),
            Expr::Await(a) => self.reject(a.await_token, Reject::Async),
            Expr::Macro(m) => self.foreign_macro(&m.mac),
            _ => self.reject(e, Reject::Expression),
        }
    }

    fn literal(&mut self, l: &ExprLit) -> TokenStream {
        let (value, suffix) = match &l.lit {
            Lit::Int(n) => match n.base10_parse::<u64>() {
                Ok(x) => {
                    let x = x as i64;
                    (q!(::kernel_dsl::build::V::Int(#x)), n.suffix().to_string())
                }
                Err(_) => return self.reject(l, Reject::Expression),
            },
            // The digits, not a number: f32 literals are parsed as f32, as rustc does.
            Lit::Float(x) => match x.base10_digits().parse::<f32>() {
                Ok(y) if x.suffix() == "f32" => return q!(::kernel_dsl::build::Konst::konst(#y, b)),
                Ok(y) => {
                    let y = f64::from(y);
                    (q!(::kernel_dsl::build::V::Float(#y)), x.suffix().to_string())
                }
                Err(_) => return self.reject(l, Reject::Expression),
            },
            Lit::Bool(x) => return q!(::kernel_dsl::build::V::Bool(#x)),
            _ => return self.reject(l, Reject::Expression),
        };
        if suffix.is_empty() || suffix == "usize" {
            return value;
        }
        match dtype(&suffix) {
            Some(d) => q!(b.typed(#value, #d)),
            None => self.reject(l, Reject::Type(suffix)),
        }
    }

    fn path(&mut self, p: &ExprPath) -> TokenStream {
        let last = p.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
        let constant = last.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if constant && last.chars().any(|c| c.is_ascii_uppercase()) {
            return q!(::kernel_dsl::build::Konst::konst(#p, b));
        }
        q!(::core::clone::Clone::clone(&#p))
    }

    /// Where a value lies: a variable, not its present value.
    pub fn place(&mut self, e: &Expr) -> TokenStream {
        match e {
            Expr::Index(i) => {
                let (line, base, at) = (here(i.index.span()), self.place(&i.expr), self.expr(&i.index));
                q!({ let base = #base; let at = #at; #line b.element(&base, at) })
            }
            Expr::Paren(p) => self.place(&p.expr),
            Expr::Unary(u) if matches!(u.op, UnOp::Deref(_)) => self.place(&u.expr),
            Expr::Field(f) => self.field(f),
            e => self.expr(e),
        }
    }

    fn field(&mut self, f: &ExprField) -> TokenStream {
        if self.is_host(&f.base) {
            let (base, member) = (self.host(&f.base), &f.member);
            return q!(::kernel_dsl::build::Konst::konst(#base.#member, b));
        }
        match &f.member {
            Member::Unnamed(i) => {
                let (base, i) = (self.place(&f.base), i.index as i64);
                q!({ let base = #base; b.element(&base, ::kernel_dsl::build::V::Int(#i)) })
            }
            Member::Named(name) => {
                let (line, base, name) = (here(name.span()), self.place(&f.base), name.to_string());
                q!({ let base = #base; #line b.field(&base, #name) })
            }
        }
    }

    /// `Rows { base, stride: 4_i64 }`.
    fn structure(&mut self, s: &ExprStruct) -> TokenStream {
        if let Some(rest) = &s.rest {
            return self.reject(rest, Reject::Expression);
        }
        let mut fields = Vec::new();
        for f in &s.fields {
            let Member::Named(name) = &f.member else { return self.reject(f, Reject::Expression) };
            let (name, v) = (name.to_string(), self.expr(&f.expr));
            fields.push(q!((#name, { let v = #v; b.get(&v) })));
        }
        q!(::kernel_dsl::build::V::Struct(::std::vec![#(#fields),*]))
    }

    fn unary(&mut self, u: &ExprUnary) -> TokenStream {
        let op = match u.op {
            UnOp::Neg(_) => q!(Neg),
            UnOp::Not(_) => q!(Not),
            UnOp::Deref(_) => return self.expr(&u.expr),
            _ => return self.reject(u, Reject::Expression),
        };
        let (line, v) = (here(u.op.span()), self.expr(&u.expr));
        q!({ let v = #v; #line b.unary(::kernel_dsl::ir::UnOp::#op, v) })
    }

    fn binary(&mut self, x: &ExprBinary) -> TokenStream {
        let line = here(x.op.span());
        let (name, assigns) = match x.op {
            BinOp::Add(_) => ("Add", false),
            BinOp::AddAssign(_) => ("Add", true),
            BinOp::Sub(_) => ("Sub", false),
            BinOp::SubAssign(_) => ("Sub", true),
            BinOp::Mul(_) => ("Mul", false),
            BinOp::MulAssign(_) => ("Mul", true),
            BinOp::Div(_) => ("Div", false),
            BinOp::DivAssign(_) => ("Div", true),
            BinOp::Rem(_) => ("Rem", false),
            BinOp::RemAssign(_) => ("Rem", true),
            BinOp::BitAnd(_) => ("And", false),
            BinOp::BitAndAssign(_) => ("And", true),
            BinOp::BitOr(_) => ("Or", false),
            BinOp::BitOrAssign(_) => ("Or", true),
            BinOp::BitXor(_) => ("Xor", false),
            BinOp::BitXorAssign(_) => ("Xor", true),
            BinOp::Shl(_) => ("Shl", false),
            BinOp::ShlAssign(_) => ("Shl", true),
            BinOp::Shr(_) => ("Shr", false),
            BinOp::ShrAssign(_) => ("Shr", true),
            BinOp::Eq(_) => ("Eq", false),
            BinOp::Ne(_) => ("Ne", false),
            BinOp::Lt(_) => ("Lt", false),
            BinOp::Le(_) => ("Le", false),
            BinOp::Gt(_) => ("Gt", false),
            BinOp::Ge(_) => ("Ge", false),
            // The right side runs only where the left one does not decide, on the device too.
            BinOp::And(_) | BinOp::Or(_) => {
                let (l, r) = (self.expr(&x.left), self.expr(&x.right));
                let (then, other) = match x.op {
                    BinOp::And(_) => (r, q!(::kernel_dsl::build::V::Bool(false))),
                    _ => (q!(::kernel_dsl::build::V::Bool(true)), r),
                };
                return q!({ let l = #l; #line b.if_else(l, &|| #then, &|| #other) });
            }
            _ => return self.reject(x, Reject::Expression),
        };
        let op = Ident::new(name, Span::call_site());
        let r = self.expr(&x.right);
        if assigns {
            let l = self.place(&x.left);
            return q!({ let p = #l; let r = #r; #line let v = b.binary(::kernel_dsl::ir::BinOp::#op, p.clone(), r); b.assign(&p, v) });
        }
        let l = self.expr(&x.left);
        q!({ let l = #l; let l = b.get(&l); let r = #r; #line b.binary(::kernel_dsl::ir::BinOp::#op, l, r) })
    }

    fn cast(&mut self, c: &ExprCast) -> TokenStream {
        let v = self.expr(&c.expr);
        if matches!(&*c.ty, Type::Path(t) if t.path.is_ident("usize")) {
            return v;
        }
        match dtype_of(&c.ty) {
            Some(d) => {
                let line = here(c.as_token.span());
                q!({ let v = #v; #line b.cast(v, #d) })
            }
            None => self.reject(&c.ty, Reject::Type(text(&c.ty))),
        }
    }
}
