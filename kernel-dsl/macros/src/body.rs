//! Translation of a function's body: every expression becomes a call of the builder `b`.

use crate::reject::Reject;
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote_spanned};
use syn::spanned::Spanned;
use syn::*;

/// Methods whose last argument names a device function, and how many values it takes.
const TAKES_FN: [(&str, usize); 6] = [("map", 1), ("map2", 2), ("map3", 3), ("keys", 1), ("values", 1), ("quads", 1)];
/// Methods a device function may call; those of tiles and buffers are checked by the builder.
const REJECTED: [&str; 17] = [
    "exp", "exp2", "ln", "log2", "sin", "cos", "tanh", "powf", "powi", "round", "unwrap", "expect", "iter", "into_iter", "iter_mut", "step_by", "collect",
];

pub struct Body {
    pub errors: Option<Error>,
    /// Type parameters in scope: `C::f(x)` is then a function of a trait.
    pub generics: Vec<String>,
    /// The kernel's meta value, whose fields are known while building.
    pub meta: Option<String>,
}

impl Body {
    pub fn reject(&mut self, at: impl Spanned, why: Reject) -> TokenStream {
        let e = Error::new(at.span(), why);
        match &mut self.errors {
            Some(all) => all.combine(e),
            None => self.errors = Some(e),
        }
        q!(::kernel_dsl::build::V::Unit)
    }

    pub fn block(&mut self, block: &Block) -> TokenStream {
        let mut stmts = Vec::new();
        let last = block.stmts.len();
        let mut value = false;
        for (i, s) in block.stmts.iter().enumerate() {
            if let Stmt::Expr(Expr::Return(r), _) = s {
                if i + 1 == last {
                    let e = r.expr.as_ref().map(|e| self.expr(e));
                    stmts.push(q!(#e));
                    value = true;
                    continue;
                }
            }
            value = matches!(s, Stmt::Expr(_, None)) && i + 1 == last;
            let s = self.stmt(s, value);
            stmts.push(s);
        }
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
            Stmt::Macro(m) => {
                let name = m.mac.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
                self.reject(m, Reject::Macro(name))
            }
            Stmt::Item(i) => self.reject(i, Reject::Statement),
        }
    }

    fn local(&mut self, l: &Local) -> TokenStream {
        let Some(init) = &l.init else { return self.reject(l, Reject::Statement) };
        if init.diverge.is_some() {
            return self.reject(l, Reject::LetElse);
        }
        let (pat, typed) = match &l.pat {
            Pat::Type(t) => (&*t.pat, true),
            p => (p, false),
        };
        if !typed && untyped_literal(&init.expr) {
            return self.reject(&init.expr, Reject::UntypedLet);
        }
        let line = here(l.span());
        let e = self.expr(&init.expr);
        let e = match &l.pat {
            Pat::Type(t) => match dtype_of(&t.ty) {
                Some(d) => q!(b.typed(#e, #d)),
                None => e,
            },
            _ => e,
        };
        match pat {
            Pat::Ident(p) if p.subpat.is_none() && p.by_ref.is_none() => {
                let name = &p.ident;
                if p.mutability.is_some() { q!(#line let #name = { let v = #e; b.var(v) };) } else { q!(#line let #name = { let v = #e; b.get(&v) };) }
            }
            Pat::Tuple(t) => {
                let mut binds = Vec::new();
                for (i, p) in t.elems.iter().enumerate() {
                    match p {
                        Pat::Ident(p) => {
                            let name = &p.ident;
                            let i = i as i64;
                            let el = q!(b.element(&whole, ::kernel_dsl::build::V::Int(#i)));
                            binds.push(if p.mutability.is_some() { q!(let #name = b.var(#el);) } else { q!(let #name = #el;) });
                        }
                        Pat::Wild(_) => {}
                        p => return self.reject(p, Reject::Pattern),
                    }
                }
                q!(#line let whole = { let v = #e; b.get(&v) }; #(#binds)*)
            }
            Pat::Wild(_) => q!(#line let _ = #e;),
            p => self.reject(p, Reject::Pattern),
        }
    }

    pub fn expr(&mut self, e: &Expr) -> TokenStream {
        match e {
            Expr::Lit(l) => self.literal(l),
            Expr::Path(p) => self.path(p),
            Expr::Paren(p) => self.expr(&p.expr),
            Expr::Group(p) => self.expr(&p.expr),
            Expr::Reference(r) => self.expr(&r.expr),
            Expr::Unary(u) => {
                let v = self.expr(&u.expr);
                match u.op {
                    UnOp::Neg(_) => q!({ let v = #v; b.unary(::kernel_dsl::ir::UnOp::Neg, v) }),
                    UnOp::Not(_) => q!({ let v = #v; b.unary(::kernel_dsl::ir::UnOp::Not, v) }),
                    UnOp::Deref(_) => v,
                    _ => self.reject(e, Reject::Operator),
                }
            }
            Expr::Binary(x) => self.binary(x),
            Expr::Assign(a) => {
                let (place, v) = (self.place(&a.left), self.expr(&a.right));
                q!({ let v = #v; let p = #place; b.assign(&p, v) })
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
                let (v, n) = (self.expr(&r.expr), self.expr(&r.len));
                q!({ let v = #v; let n = #n; b.repeat(v, n) })
            }
            Expr::Tuple(t) => {
                let items: Vec<_> = t.elems.iter().map(|e| self.expr(e)).collect();
                if items.is_empty() { q!(::kernel_dsl::build::V::Unit) } else { q!(::kernel_dsl::build::V::Tuple(vec![#({ let v = #items; b.get(&v) }),*])) }
            }
            Expr::If(i) => self.if_else(i),
            Expr::Block(x) => self.block(&x.block),
            Expr::ForLoop(f) => self.for_loop(f),
            Expr::Cast(c) => self.cast(c),
            Expr::While(_) | Expr::Loop(_) => self.reject(e, Reject::While),
            Expr::Closure(_) => self.reject(e, Reject::Closure),
            Expr::Return(_) => self.reject(e, Reject::Return),
            Expr::Break(_) | Expr::Continue(_) => self.reject(e, Reject::Leave),
            Expr::Match(_) => self.reject(e, Reject::Match),
            Expr::Unsafe(_) => self.reject(e, Reject::Unsafe),
            Expr::Async(_) | Expr::Await(_) => self.reject(e, Reject::Async("async")),
            Expr::Macro(m) => {
                let name = m.mac.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default();
                self.reject(m, Reject::Macro(name))
            }
            _ => self.reject(e, Reject::Expression),
        }
    }

    fn literal(&mut self, l: &ExprLit) -> TokenStream {
        let v = match &l.lit {
            Lit::Int(n) => match n.base10_parse::<u64>() {
                Ok(x) => {
                    let x = x as i64;
                    (q!(::kernel_dsl::build::V::Int(#x)), n.suffix().to_string())
                }
                Err(_) => return self.reject(l, Reject::Expression),
            },
            Lit::Float(x) => match x.base10_parse::<f64>() {
                // The digits, not a number: f32 literals are parsed as f32, as rustc does.
                Ok(_) if x.suffix() == "f32" => {
                    let y: f32 = x.base10_parse().unwrap_or_default();
                    return q!(::kernel_dsl::build::Konst::konst(#y, b));
                }
                Ok(y) => {
                    let y = x.base10_digits().parse::<f32>().map(f64::from).unwrap_or(y);
                    (q!(::kernel_dsl::build::V::Float(#y)), x.suffix().to_string())
                }
                Err(_) => return self.reject(l, Reject::Expression),
            },
            Lit::Bool(x) => return q!(::kernel_dsl::build::V::Bool(#x)),
            _ => return self.reject(l, Reject::Expression),
        };
        match v {
            (v, s) if s.is_empty() || s == "usize" => v,
            (v, s) => match dtype(&s) {
                Some(d) => q!(b.typed(#v, #d)),
                None => self.reject(l, Reject::Type(s)),
            },
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

    fn place(&mut self, e: &Expr) -> TokenStream {
        match e {
            Expr::Index(i) => {
                let (base, at) = (self.place(&i.expr), self.expr(&i.index));
                q!({ let base = #base; let at = #at; b.element(&base, at) })
            }
            Expr::Paren(p) => self.place(&p.expr),
            Expr::Unary(u) if matches!(u.op, UnOp::Deref(_)) => self.place(&u.expr),
            Expr::Field(f) => self.field(f),
            e => self.expr(e),
        }
    }

    fn field(&mut self, f: &ExprField) -> TokenStream {
        if let (Expr::Path(p), Some(meta)) = (&*f.base, &self.meta) {
            if p.path.is_ident(meta) {
                return q!(::kernel_dsl::build::Konst::konst(#f, b));
            }
        }
        match &f.member {
            Member::Unnamed(i) => {
                let (base, i) = (self.place(&f.base), i.index as i64);
                q!({ let base = #base; b.element(&base, ::kernel_dsl::build::V::Int(#i)) })
            }
            _ => self.reject(f, Reject::Expression),
        }
    }

    fn binary(&mut self, x: &ExprBinary) -> TokenStream {
        let name = match x.op {
            BinOp::Add(_) | BinOp::AddAssign(_) => "Add",
            BinOp::Sub(_) | BinOp::SubAssign(_) => "Sub",
            BinOp::Mul(_) | BinOp::MulAssign(_) => "Mul",
            BinOp::Div(_) | BinOp::DivAssign(_) => "Div",
            BinOp::Rem(_) | BinOp::RemAssign(_) => "Rem",
            BinOp::BitAnd(_) | BinOp::BitAndAssign(_) | BinOp::And(_) => "And",
            BinOp::BitOr(_) | BinOp::BitOrAssign(_) | BinOp::Or(_) => "Or",
            BinOp::BitXor(_) | BinOp::BitXorAssign(_) => "Xor",
            BinOp::Shl(_) | BinOp::ShlAssign(_) => "Shl",
            BinOp::Shr(_) | BinOp::ShrAssign(_) => "Shr",
            BinOp::Eq(_) => "Eq",
            BinOp::Ne(_) => "Ne",
            BinOp::Lt(_) => "Lt",
            BinOp::Le(_) => "Le",
            BinOp::Gt(_) => "Gt",
            BinOp::Ge(_) => "Ge",
            _ => return self.reject(x, Reject::Operator),
        };
        if matches!(name, "Shl" | "Shr") && !shift_is_safe(&x.right) {
            return self.reject(&x.right, Reject::Shift);
        }
        let assigns = matches!(
            x.op,
            BinOp::AddAssign(_) | BinOp::SubAssign(_) | BinOp::MulAssign(_) | BinOp::DivAssign(_) | BinOp::RemAssign(_) | BinOp::BitAndAssign(_) | BinOp::BitOrAssign(_) | BinOp::BitXorAssign(_) | BinOp::ShlAssign(_) | BinOp::ShrAssign(_)
        );
        let op = Ident::new(name, Span::call_site());
        let line = here(x.span());
        let r = self.expr(&x.right);
        if assigns {
            let l = self.place(&x.left);
            return q!({ let p = #l; let r = #r; #line let v = b.binary(::kernel_dsl::ir::BinOp::#op, p.clone(), r); b.assign(&p, v) });
        }
        let l = self.expr(&x.left);
        q!({ let l = #l; let l = b.get(&l); let r = #r; #line b.binary(::kernel_dsl::ir::BinOp::#op, l, r) })
    }

    fn call(&mut self, c: &ExprCall) -> TokenStream {
        let Expr::Path(p) = &*c.func else { return self.reject(&c.func, Reject::Expression) };
        let args: Vec<_> = c.args.iter().map(|a| self.expr(a)).collect();
        let text = q!(#p).to_string().replace(' ', "");
        let line = here(c.span());
        match (text.as_str(), args.as_slice()) {
            ("f32::from_bits", [x]) => return q!({ let v = #x; #line b.bitcast(v, ::kernel_dsl::dtype::DType::F32) }),
            ("bf16::from_bits", [x]) => return q!({ let v = #x; #line b.bitcast(v, ::kernel_dsl::dtype::DType::Bf16) }),
            ("f16::from_bits", [x]) => return q!({ let v = #x; #line b.bitcast(v, ::kernel_dsl::dtype::DType::F16) }),
            _ => {}
        }
        if let Some((ty, "from_f32")) = text.rsplit_once("::") {
            let (ty, x): (Ident, _) = (format_ident!("{ty}"), &args[0]);
            return q!({ let v = #x; #line b.cast(v, <#ty as ::kernel_dsl::dtype::Elem>::DTYPE) });
        }
        let callee = self.builder_path(p);
        let names: Vec<_> = (0..args.len()).map(|i| Ident::new(&format!("a{i}"), Span::mixed_site())).collect();
        q!({ #(let #names = { let v = #args; b.get(&v) };)* #line #callee(b, #(#names),*) })
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

    fn method(&mut self, m: &ExprMethodCall) -> TokenStream {
        let name = m.method.to_string();
        if REJECTED.contains(&name.as_str()) {
            return self.reject(&m.method, Reject::Method(name));
        }
        let recv = self.place(&m.receiver);
        let line = here(m.span());
        if let Some((_, arity)) = TAKES_FN.iter().find(|(n, _)| *n == name) {
            let Some((Expr::Path(f), rest)) = m.args.iter().collect::<Vec<_>>().split_last().map(|(l, r)| ((*l).clone(), r.iter().map(|e| (*e).clone()).collect::<Vec<_>>())) else {
                return self.reject(m, Reject::MapTarget(name));
            };
            let f = self.builder_path(&f);
            let rest: Vec<_> = rest.iter().map(|a| self.expr(a)).collect();
            let ids: Vec<_> = (0..*arity).map(|i| q!(v[#i].clone())).collect();
            return q!({ let r = #recv; let a = vec![#({ let v = #rest; b.get(&v) }),*]; #line b.method_fn(#name, &r, a, &|b: &::kernel_dsl::build::B, v: Vec<::kernel_dsl::build::V>| #f(b, #(#ids),*)) });
        }
        let args: Vec<_> = m.args.iter().map(|a| self.expr(a)).collect();
        if let Some(t) = &m.turbofish {
            let t = &t.args;
            return q!({ let r = #recv; let a = vec![#({ let v = #args; b.get(&v) }),*]; #line b.method_typed(#name, <#t as ::kernel_dsl::dtype::Elem>::DTYPE, &r, a) });
        }
        q!({ let r = #recv; let a = vec![#({ let v = #args; b.get(&v) }),*]; #line b.method(#name, &r, a) })
    }

    fn cast(&mut self, c: &ExprCast) -> TokenStream {
        let v = self.expr(&c.expr);
        if let Type::Path(t) = &*c.ty {
            if t.path.is_ident("usize") {
                return v;
            }
        }
        match dtype_of(&c.ty) {
            Some(d) => {
                let line = here(c.span());
                q!({ let v = #v; #line b.cast(v, #d) })
            }
            None => {
                let t = &c.ty;
                self.reject(t, Reject::Type(q!(#t).to_string()))
            }
        }
    }

    fn if_else(&mut self, i: &ExprIf) -> TokenStream {
        if matches!(&*i.cond, Expr::Let(_)) {
            return self.reject(&i.cond, Reject::Match);
        }
        let (cond, then) = (self.expr(&i.cond), self.block(&i.then_branch));
        let other = match &i.else_branch {
            Some((_, e)) => self.expr(e),
            None => q!(::kernel_dsl::build::V::Unit),
        };
        let line = here(i.span());
        q!({ let c = #cond; #line b.if_else(c, || #then, || #other) })
    }

    fn for_loop(&mut self, f: &ExprForLoop) -> TokenStream {
        let var = match &*f.pat {
            Pat::Ident(p) => q!(#p),
            Pat::Wild(_) => q!(_),
            p => return self.reject(p, Reject::Pattern),
        };
        let line = here(f.span());
        let body = self.block(&f.body);
        let body = q!(|#var: ::kernel_dsl::build::V| { let _ = #body; });
        match &*f.expr {
            Expr::Range(r) => match (&r.start, &r.end, &r.limits) {
                (Some(lo), Some(hi), RangeLimits::HalfOpen(_)) => {
                    let (lo, hi) = (self.expr(lo), self.expr(hi));
                    q!({ let lo = #lo; let hi = #hi; #line b.for_range(lo, hi, #body); ::kernel_dsl::build::V::Unit })
                }
                _ => self.reject(&f.expr, Reject::Range),
            },
            Expr::Call(c) => {
                let name = match &*c.func {
                    Expr::Path(p) => p.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default(),
                    _ => String::new(),
                };
                let a: Vec<_> = c.args.iter().map(|e| self.expr(e)).collect();
                let par = |kind: &str| {
                    let (kind, n) = (format_ident!("{kind}"), &a[0]);
                    q!({ let n = #n; #line b.for_parallel(::kernel_dsl::ir::Par::#kind, n, #body); ::kernel_dsl::build::V::Unit })
                };
                match (name.as_str(), a.len()) {
                    ("strided", 3) => {
                        let (lo, hi, step) = (&a[0], &a[1], &a[2]);
                        q!({ let lo = #lo; let hi = #hi; let s = #step; #line b.for_stream(lo, hi, s, ::kernel_dsl::build::V::Int(0), #body); ::kernel_dsl::build::V::Unit })
                    }
                    ("stream", 4) => {
                        let (lo, hi, step, n) = (&a[0], &a[1], &a[2], &a[3]);
                        q!({ let lo = #lo; let hi = #hi; let s = #step; let n = #n; #line b.for_stream(lo, hi, s, n, #body); ::kernel_dsl::build::V::Unit })
                    }
                    ("warps", 1) => par("Warps"),
                    ("threads", 1) => par("Threads"),
                    ("lanes", 1) => par("Lanes"),
                    _ => self.reject(&f.expr, Reject::Range),
                }
            }
            Expr::MethodCall(m) if m.method == "step_by" => self.reject(&m.method, Reject::Method("step_by".into())),
            e => self.reject(e, Reject::Range),
        }
    }
}

/// `b.at(file, line)` for a place in the user's source.
fn here(span: Span) -> TokenStream {
    let (file, line) = (quote_spanned!(span=> ::core::file!()), quote_spanned!(span=> ::core::line!()));
    q!(b.at(#file, #line);)
}

fn untyped_literal(e: &Expr) -> bool {
    match e {
        Expr::Lit(ExprLit { lit: Lit::Int(x), .. }) => x.suffix().is_empty(),
        Expr::Lit(ExprLit { lit: Lit::Float(x), .. }) => x.suffix().is_empty(),
        Expr::Unary(u) => untyped_literal(&u.expr),
        Expr::Repeat(r) => untyped_literal(&r.expr),
        _ => false,
    }
}

/// A constant, a name that is known while building, or `n & 31`.
fn shift_is_safe(e: &Expr) -> bool {
    match e {
        Expr::Lit(_) => true,
        Expr::Paren(p) => shift_is_safe(&p.expr),
        Expr::Binary(x) => match x.op {
            BinOp::BitAnd(_) => true,
            BinOp::Rem(_) if matches!(&*x.right, Expr::Lit(_)) => true,
            BinOp::Add(_) | BinOp::Sub(_) | BinOp::Mul(_) | BinOp::Rem(_) | BinOp::Div(_) => shift_is_safe(&x.left) && shift_is_safe(&x.right),
            _ => false,
        },
        Expr::Path(p) => p.path.segments.last().is_some_and(|s| s.ident.to_string().chars().all(|c| !c.is_lowercase())) || p.path.is_ident("i") || p.path.is_ident("k"),
        Expr::Cast(c) => shift_is_safe(&c.expr),
        _ => false,
    }
}

/// The device type a Rust type names, as tokens.
pub fn dtype_of(t: &Type) -> Option<TokenStream> {
    match t {
        Type::Path(p) => p.path.get_ident().and_then(|i| dtype(&i.to_string())),
        _ => None,
    }
}

pub fn dtype(name: &str) -> Option<TokenStream> {
    let v = match name {
        "f32" => "F32",
        "f16" => "F16",
        "bf16" => "Bf16",
        "i8" => "I8",
        "u8" => "U8",
        "u16" => "U16",
        "i32" => "I32",
        "u32" => "U32",
        "i64" => "I64",
        "bool" => "Bool",
        _ => return None,
    };
    let v = format_ident!("{v}");
    Some(q!(::kernel_dsl::dtype::DType::#v))
}
