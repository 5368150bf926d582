//! Values while building: what is known now (sizes, flags), and what only the device will know.

use super::B;
use crate::dtype::{DType, Elem, bf16, f16};
use crate::ir::{Buf, Id};
use crate::report::Fault;

/// A value in the device half of a function.
#[derive(Clone, Debug)]
pub enum V {
    Unit,
    /// A fault was recorded where this came from.
    Poison,
    /// Known while building: a size, or a literal that takes its neighbour's type.
    Int(i64),
    /// A float literal without a type.
    Float(f64),
    /// Known while building.
    Bool(bool),
    /// A scalar or tile of the IR.
    S(Id),
    /// A variable: reading gives its present value.
    Var(Id),
    Array(Vec<V>),
    Tuple(Vec<V>),
    Buf(Buf, DType),
    Ring(usize),
    /// What turns keep.
    Kept(usize),
    /// Values that travel together, by the names of their fields.
    Struct(Vec<(&'static str, V)>),
}

impl V {
    /// The size known while building, or a fault.
    pub(crate) fn size(&self, b: &B, what: &'static str) -> usize {
        match self {
            V::Int(n) if *n >= 0 => *n as usize,
            V::Poison => 0,
            _ => {
                b.fail(crate::report::Fault::NotBuilderTime { what });
                0
            }
        }
    }
}

/// A struct with `#[device]` on it.
#[diagnostic::on_unimplemented(message = "`{Self}` is no device type", label = "not a device type", note = "put `#[device]` on the struct; its fields are device types: scalars, views such as `Global<T>`, arrays, other such structs")]
pub trait DeviceStruct {}

/// That a type in a signature is one, for rustc to check.
pub fn device_struct<T: DeviceStruct>() {}

/// A device struct that a kernel takes: each field is an argument.
#[diagnostic::on_unimplemented(message = "a kernel cannot take `{Self}`", label = "not a struct of arguments", note = "put `#[device]` on a struct whose fields are all `Global<T>` or scalars")]
pub trait Arguments: DeviceStruct {
    /// Declares each field as an argument of the kernel, `name_field`.
    fn declare(b: &B, name: &str) -> V;
}

impl B {
    /// A field of a struct.
    pub fn field(&self, v: &V, name: &'static str) -> V {
        match v {
            V::Struct(fields) => match fields.iter().find(|(n, _)| *n == name) {
                Some((_, v)) => v.clone(),
                None => self.fail(Fault::NoField { name }),
            },
            V::Poison => V::Poison,
            _ => self.fail(Fault::NoField { name }),
        }
    }

    /// The same struct with each field passed through `f`.
    pub(super) fn each_field(&self, fields: &[(&'static str, V)], f: impl Fn(&V) -> V) -> V {
        V::Struct(fields.iter().map(|(name, v)| (*name, f(v))).collect())
    }

    /// Two structs of one kind as one, field by field: literals may list fields in any order.
    pub(super) fn joined_fields(&self, a: &[(&'static str, V)], c: &V, f: impl Fn(&V, &V) -> V) -> V {
        V::Struct(a.iter().map(|(name, x)| (*name, f(x, &self.field(c, name)))).collect())
    }

    /// An index into a list of the host, which must be known while building.
    pub fn known(&self, v: &V) -> usize {
        self.get(v).size(self, "the index of a list of codecs")
    }
}

/// Something a kernel's source names that is no device value: meta fields, associated constants.
pub trait Konst {
    fn konst(self, b: &B) -> V;
}
impl Konst for usize {
    fn konst(self, _: &B) -> V {
        V::Int(self as i64)
    }
}
impl Konst for bool {
    fn konst(self, _: &B) -> V {
        V::Bool(self)
    }
}
macro_rules! typed {
    ($($t:ty),*) => { $(impl Konst for $t {
        fn konst(self, b: &B) -> V { b.constant(<$t as Elem>::DTYPE, self.to_bits64()) }
    })* };
}
typed!(u8, i8, u16, i32, u32, i64, f32, f16, bf16);

impl<T: Konst, const N: usize> Konst for [T; N] {
    fn konst(self, b: &B) -> V {
        V::Array(self.into_iter().map(|x| x.konst(b)).collect())
    }
}
