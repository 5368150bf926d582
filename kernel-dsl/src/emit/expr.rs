//! Right-hand sides. Signed arithmetic is done unsigned and cast back: overflow wraps, as on the CPU.

use crate::dtype::DType;
use crate::ir::*;
use std::fmt::{self, Write};

pub fn constant(o: &mut String, d: DType, bits: u64) -> fmt::Result {
    match d {
        DType::Bool => write!(o, "{}", bits & 1 != 0),
        DType::F32 => write!(o, "bits_f32(0x{:08x}u)", bits as u32),
        DType::I32 if bits as u32 as i32 >= 0 => write!(o, "{}", bits as u32),
        DType::I32 => write!(o, "(i32)0x{:08x}u", bits as u32),
        DType::U32 => write!(o, "0x{:x}u", bits as u32),
        DType::I64 => write!(o, "(i64)0x{bits:x}ull"),
        d => write!(o, "({})0x{bits:x}", d.cuda()),
    }
}

pub fn unary(o: &mut String, op: UnOp, d: DType, a: Id) -> fmt::Result {
    match (op, d) {
        (UnOp::Neg, DType::I32) => write!(o, "(i32)(0u - (u32)v{a})"),
        (UnOp::Neg, _) => write!(o, "-v{a}"),
        (UnOp::Not, DType::Bool) => write!(o, "!v{a}"),
        (UnOp::Not, _) => write!(o, "~v{a}"),
        (UnOp::Abs, DType::F32) => write!(o, "fabsf(v{a})"),
        (UnOp::Abs, _) => write!(o, "(v{a} < 0 ? -v{a} : v{a})"),
        (UnOp::Sqrt, _) => write!(o, "__fsqrt_rn(v{a})"),
        (UnOp::Floor, _) => write!(o, "floorf(v{a})"),
        (UnOp::Ceil, _) => write!(o, "ceilf(v{a})"),
        (UnOp::Round, _) => write!(o, "rintf(v{a})"),
        (UnOp::Saturate, _) => write!(o, "__saturatef(v{a})"),
        (UnOp::Popc, _) => write!(o, "(u32)__popc(v{a})"),
        (UnOp::Opaque, _) => write!(o, "opaque(v{a})"),
    }
}

pub fn binary(o: &mut String, op: BinOp, d: DType, a: Id, c: Id) -> fmt::Result {
    use BinOp::*;
    let wrap = |o: &mut String, sign: &str| match d {
        DType::I32 => write!(o, "(i32)((u32)v{a} {sign} (u32)v{c})"),
        DType::I64 => write!(o, "(i64)((u64)v{a} {sign} (u64)v{c})"),
        DType::U8 | DType::I8 | DType::U16 => write!(o, "({})(v{a} {sign} v{c})", d.cuda()),
        _ => write!(o, "v{a} {sign} v{c}"),
    };
    match op {
        Add => wrap(o, "+"),
        Sub => wrap(o, "-"),
        Mul => wrap(o, "*"),
        Div if d == DType::F32 => write!(o, "__fdiv_rn(v{a}, v{c})"),
        Div => write!(o, "v{a} / v{c}"),
        Rem => write!(o, "v{a} % v{c}"),
        And if d == DType::Bool => write!(o, "v{a} && v{c}"),
        Or if d == DType::Bool => write!(o, "v{a} || v{c}"),
        And => write!(o, "v{a} & v{c}"),
        Or => write!(o, "v{a} | v{c}"),
        Xor => write!(o, "v{a} ^ v{c}"),
        Shl => wrap(o, "<<"),
        Shr => write!(o, "v{a} >> v{c}"),
        MulHi => write!(o, "__umulhi(v{a}, v{c})"),
        Dot4 => write!(o, "__dp4a(v{a}, v{c}, 0u)"),
        ShlOut => write!(o, "shifted_out(v{a}, v{c})"),
        MinU16x2 => write!(o, "min_u16x2(v{a}, v{c})"),
        MaxU16x2 => write!(o, "__vmaxu2(v{a}, v{c})"),
        MulBf16x2 => write!(o, "mul_bf16x2(v{a}, v{c})"),
        Greater => write!(o, "fmaxf(v{a}, v{c})"),
        Lesser => write!(o, "fminf(v{a}, v{c})"),
        GreaterBf16x2 => write!(o, "greater_bf16x2(v{a}, v{c})"),
        LesserBf16x2 => write!(o, "lesser_bf16x2(v{a}, v{c})"),
        AddSquaresBf16x2 => write!(o, "add_squares_bf16x2(v{a}, v{c})"),
        Farther => write!(o, "fmaxf(fabsf(v{a}), fabsf(v{c}))"),
        Max => write!(o, "dmax(v{a}, v{c})"),
        Min => write!(o, "dmin(v{a}, v{c})"),
        Eq => write!(o, "v{a} == v{c}"),
        Ne => write!(o, "v{a} != v{c}"),
        Lt => write!(o, "v{a} < v{c}"),
        Le => write!(o, "v{a} <= v{c}"),
        Gt => write!(o, "v{a} > v{c}"),
        Ge => write!(o, "v{a} >= v{c}"),
    }
}

/// Rust's `as` between device types.
pub fn cast(from: DType, to: DType, a: &str) -> String {
    use DType::*;
    let wide = match from {
        F16 => format!("f16_to_f32({a})"),
        Bf16 => format!("bf16_to_f32({a})"),
        _ => a.to_string(),
    };
    if from == to {
        return a.to_string();
    }
    match (from.is_float(), to) {
        (true, F32) => wide,
        (true, F16) => format!("f32_to_f16({wide})"),
        (true, Bf16) => format!("f32_to_bf16({wide})"),
        (true, I32) => format!("f32_to_i32({wide})"),
        (true, U32) => format!("f32_to_u32({wide})"),
        (true, I64) => format!("f32_to_i64({wide})"),
        (true, U8) => format!("(u8)dmin(f32_to_u32({wide}), 255u)"),
        (true, U16) => format!("(u16)dmin(f32_to_u32({wide}), 65535u)"),
        (true, I8) => format!("(i8)dmax(dmin(f32_to_i32({wide}), 127), -128)"),
        (true, _) => format!("({})f32_to_i32({wide})", to.cuda()),
        (false, F32) => match from {
            I64 => format!("__ll2float_rn({a})"),
            U32 => format!("__uint2float_rn({a})"),
            _ => format!("__int2float_rn((i32){a})"),
        },
        (false, F16) => format!("f32_to_f16({})", cast(from, F32, a)),
        (false, Bf16) => format!("f32_to_bf16({})", cast(from, F32, a)),
        (false, _) => format!("({}){a}", to.cuda()),
    }
}

pub fn bitcast(from: DType, to: DType, a: &str) -> String {
    match (from, to) {
        (DType::F32, DType::I32) => format!("__float_as_int({a})"),
        (DType::F32, _) => format!("__float_as_uint({a})"),
        (_, DType::F32) => format!("__uint_as_float((u32){a})"),
        (_, t) => format!("({}){a}", t.cuda()),
    }
}
