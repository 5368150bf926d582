//! Types: which Rust types a device half knows, and what a signature may say.

use crate::body::Body;
use crate::reject::Reject;
use proc_macro2::TokenStream;
use quote::format_ident;
use syn::*;

/// Views of memory and tiles: they may be passed on, `&mut` ones too.
const VIEWS: [&str; 9] = ["Tile", "Global", "Shared", "ByTurn", "ByWarp", "Page", "Ring", "PutBy", "PutByWarp"];

/// The device type a Rust type names, as tokens.
pub fn dtype_of(t: &Type) -> Option<TokenStream> {
    match t {
        Type::Path(p) => p.path.segments.last().filter(|s| s.arguments.is_none()).and_then(|s| dtype(&s.ident.to_string())),
        Type::Paren(t) => dtype_of(&t.elem),
        Type::Group(t) => dtype_of(&t.elem),
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

/// The name of a `&dyn Trait` or `&[&dyn Trait]` parameter: a value of the host that device code calls.
pub fn host_param(input: &FnArg) -> Option<&Ident> {
    let FnArg::Typed(t) = input else { return None };
    let (Pat::Ident(p), Type::Reference(r)) = (&*t.pat, &*t.ty) else { return None };
    let of_list = |t: &Type| matches!(t, Type::Reference(r) if r.mutability.is_none() && matches!(&*r.elem, Type::TraitObject(_)));
    let known = match &*r.elem {
        Type::TraitObject(_) => true,
        Type::Slice(s) => of_list(&s.elem),
        _ => false,
    };
    (known && r.mutability.is_none()).then_some(&p.ident)
}

/// The name of a `&DecodeMeta` parameter: a kernel's meta value passed on, by the name of its type.
pub fn meta_param(input: &FnArg) -> Option<&Ident> {
    let FnArg::Typed(t) = input else { return None };
    let (Pat::Ident(p), Type::Reference(r)) = (&*t.pat, &*t.ty) else { return None };
    (r.mutability.is_none() && last_name(&r.elem).ends_with("Meta")).then_some(&p.ident)
}

pub fn last_name(t: &Type) -> String {
    match t {
        Type::Path(p) => p.path.segments.last().map(|s| s.ident.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Names of structs that are no device values, whatever stands on them.
const OF_RUST: [&str; 12] = ["String", "Vec", "Option", "Result", "Box", "Rc", "Arc", "Cell", "RefCell", "HashMap", "BTreeMap", "PhantomData"];

/// Written like a struct's: whether it is a `#[device]` one, rustc checks.
fn is_struct(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && !VIEWS.contains(&name) && !OF_RUST.contains(&name)
}

/// The struct of a `&Rows<T>` or `&mut Rows<T>` parameter.
pub fn struct_param(input: &FnArg) -> Option<&Type> {
    let FnArg::Typed(t) = input else { return None };
    let Type::Reference(r) = &*t.ty else { return None };
    is_struct(&last_name(&r.elem)).then_some(&*r.elem)
}

/// `T` of `Global<T>`.
pub fn buffer_element(t: &Type) -> Option<&GenericArgument> {
    let Type::Path(p) = t else { return None };
    match &p.path.segments.last()?.arguments {
        PathArguments::AngleBracketed(a) if last_name(t) == "Global" => a.args.first(),
        _ => None,
    }
}

/// A view, or an array of them.
fn is_view(t: &Type) -> bool {
    match t {
        Type::Array(a) => last_name(&a.elem) == "PutBy",
        t => VIEWS.contains(&last_name(t).as_str()) || is_struct(&last_name(t)),
    }
}

pub fn generic_names(g: &Generics) -> Vec<String> {
    g.type_params().map(|t| t.ident.to_string()).collect()
}

impl Body {
    /// Rejects what no device value can be.
    pub fn check_type(&mut self, t: &Type) {
        match t {
            Type::Path(_) => {
                let name = last_name(t);
                let known = dtype(&name).is_some() || name == "usize" || self.generics.contains(&name) || VIEWS.contains(&name.as_str());
                if !known && is_struct(&name) {
                    self.structs.push(t.clone());
                } else if !known {
                    self.reject(t, Reject::Type(text(t)));
                }
            }
            Type::Array(a) => self.check_type(&a.elem),
            Type::Tuple(x) => x.elems.iter().for_each(|t| self.check_type(t)),
            Type::Paren(x) => self.check_type(&x.elem),
            Type::Group(x) => self.check_type(&x.elem),
            Type::Reference(r) => {
                if let Some(l) = &r.lifetime {
                    self.reject(l, Reject::Lifetime(l.to_string()));
                }
                if r.mutability.is_some() && !is_view(&r.elem) {
                    self.reject(t, Reject::MutParam);
                } else {
                    self.check_type(&r.elem);
                }
            }
            Type::ImplTrait(_) => drop(self.reject(t, Reject::Abstract("impl Trait"))),
            Type::TraitObject(_) => drop(self.reject(t, Reject::Abstract("dyn"))),
            Type::Ptr(_) => drop(self.reject(t, Reject::Pointer)),
            t => drop(self.reject(t, Reject::Type(text(t)))),
        }
    }

    /// What stands around a function's body: neither half could keep the promise of these.
    pub fn check_signature(&mut self, sig: &Signature) {
        if let Some(x) = &sig.asyncness {
            self.reject(x, Reject::Async);
        }
        if let Some(x) = &sig.unsafety {
            self.reject(x, Reject::Unsafe);
        }
        for l in sig.generics.lifetimes() {
            self.reject(&l.lifetime, Reject::Lifetime(l.lifetime.to_string()));
        }
    }
}

/// A type as one would write it.
pub fn text(t: &Type) -> String {
    let text = q!(#t).to_string();
    text.replace(" < ", "<").replace(" >", ">").replace("& ", "&").replace(" :: ", "::").replace(" ,", ",")
}
