//! Device types, and the Rust types that stand for them on the CPU.

pub use half::{bf16, f16};

/// A device type. Sizes are those of memory; small integers live in 32-bit registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DType {
    Bool,
    U8,
    I8,
    U16,
    I32,
    U32,
    I64,
    F16,
    Bf16,
    F32,
}

impl DType {
    /// Bytes in memory.
    pub const fn size(self) -> usize {
        match self {
            DType::Bool | DType::U8 | DType::I8 => 1,
            DType::U16 | DType::F16 | DType::Bf16 => 2,
            DType::I32 | DType::U32 | DType::F32 => 4,
            DType::I64 => 8,
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::Bf16 | DType::F32)
    }

    /// Name in Rust and in printed IR.
    pub const fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::U16 => "u16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::F32 => "f32",
        }
    }

    /// Type of a register that holds it in CUDA C++. f16 and bf16 are kept as their bits.
    pub const fn cuda(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::U8 => "u8",
            DType::I8 => "i8",
            DType::U16 | DType::F16 | DType::Bf16 => "u16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::F32 => "float",
        }
    }
}

/// A Rust type that is a device type. Values travel as their bits, zero-extended to 64.
pub trait Elem: Copy + PartialEq + PartialOrd + std::fmt::Debug + 'static {
    const DTYPE: DType;
    fn to_bits64(self) -> u64;
    fn from_bits64(bits: u64) -> Self;
}

macro_rules! elem {
    ($t:ty, $d:ident, |$x:ident| $to:expr, |$b:ident| $from:expr) => {
        impl Elem for $t {
            const DTYPE: DType = DType::$d;
            fn to_bits64(self) -> u64 {
                let $x = self;
                $to
            }
            fn from_bits64($b: u64) -> Self {
                $from
            }
        }
    };
}
elem!(bool, Bool, |x| x as u64, |b| b & 1 != 0);
elem!(u8, U8, |x| x as u64, |b| b as u8);
elem!(i8, I8, |x| x as u8 as u64, |b| b as u8 as i8);
elem!(u16, U16, |x| x as u64, |b| b as u16);
elem!(i32, I32, |x| x as u32 as u64, |b| b as u32 as i32);
elem!(u32, U32, |x| x as u64, |b| b as u32);
elem!(i64, I64, |x| x as u64, |b| b as i64);
elem!(f16, F16, |x| x.to_bits() as u64, |b| f16::from_bits(b as u16));
elem!(bf16, Bf16, |x| x.to_bits() as u64, |b| bf16::from_bits(b as u16));
elem!(f32, F32, |x| x.to_bits() as u64, |b| f32::from_bits(b as u32));

/// An element that kernels read as f32 and write rounded to nearest even.
pub trait Float: Elem {
    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
}
impl Float for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(x: f32) -> Self {
        x
    }
}
impl Float for f16 {
    fn to_f32(self) -> f32 {
        f16::to_f32(self)
    }
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }
}
impl Float for bf16 {
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }
}
