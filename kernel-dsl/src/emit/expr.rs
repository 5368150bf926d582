//! Right-hand sides. Signed arithmetic is done unsigned and cast back: overflow wraps, as on the CPU.

use crate::dtype::DType;
use crate::ir::*;

pub fn constant(d: DType, bits: u64) -> String {
    match d {
        DType::Bool => (bits & 1 != 0).to_string(),
        DType::F32 => format!("bits_f32(0x{:08x}u)", bits as u32),
        DType::I32 if bits as u32 as i32 >= 0 => format!("{}", bits as u32),
        DType::I32 => format!("(i32)0x{:08x}u", bits as u32),
        DType::U32 => format!("0x{:x}u", bits as u32),
        DType::I64 => format!("(i64)0x{bits:x}ull"),
        d => format!("({})0x{bits:x}", d.cuda()),
    }
}

pub fn unary(op: UnOp, d: DType, a: &str) -> String {
    match (op, d) {
        (UnOp::Neg, DType::I32) => format!("(i32)(0u - (u32){a})"),
        (UnOp::Neg, _) => format!("-{a}"),
        (UnOp::Not, DType::Bool) => format!("!{a}"),
        (UnOp::Not, _) => format!("~{a}"),
        (UnOp::Abs, DType::F32) => format!("fabsf({a})"),
        (UnOp::Abs, _) => format!("({a} < 0 ? -{a} : {a})"),
        (UnOp::Sqrt, _) => format!("__fsqrt_rn({a})"),
        (UnOp::Floor, _) => format!("floorf({a})"),
        (UnOp::Ceil, _) => format!("ceilf({a})"),
        (UnOp::Round, _) => format!("rintf({a})"),
        (UnOp::Saturate, _) => format!("__saturatef({a})"),
        (UnOp::Popc, _) => format!("(u32)__popc({a})"),
        (UnOp::Opaque, _) => format!("opaque({a})"),
    }
}

pub fn binary(op: BinOp, d: DType, a: &str, c: &str) -> String {
    use BinOp::*;
    let wrap = |o: &str| match d {
        DType::I32 => format!("(i32)((u32){a} {o} (u32){c})"),
        DType::I64 => format!("(i64)((u64){a} {o} (u64){c})"),
        DType::U8 | DType::I8 | DType::U16 => format!("({})({a} {o} {c})", d.cuda()),
        _ => format!("{a} {o} {c}"),
    };
    match op {
        Add => wrap("+"),
        Sub => wrap("-"),
        Mul => wrap("*"),
        Div if d == DType::F32 => format!("__fdiv_rn({a}, {c})"),
        Div => format!("{a} / {c}"),
        Rem => format!("{a} % {c}"),
        And if d == DType::Bool => format!("{a} && {c}"),
        Or if d == DType::Bool => format!("{a} || {c}"),
        And => format!("{a} & {c}"),
        Or => format!("{a} | {c}"),
        Xor => format!("{a} ^ {c}"),
        Shl => wrap("<<"),
        Shr => format!("{a} >> {c}"),
        MulHi => format!("__umulhi({a}, {c})"),
        Dot4 => format!("__dp4a({a}, {c}, 0u)"),
        MinU16x2 => format!("min_u16x2({a}, {c})"),
        MaxU16x2 => format!("__vmaxu2({a}, {c})"),
        MulBf16x2 => format!("mul_bf16x2({a}, {c})"),
        Farther => format!("fmaxf(fabsf({a}), fabsf({c}))"),
        Max => format!("dmax({a}, {c})"),
        Min => format!("dmin({a}, {c})"),
        Eq => format!("{a} == {c}"),
        Ne => format!("{a} != {c}"),
        Lt => format!("{a} < {c}"),
        Le => format!("{a} <= {c}"),
        Gt => format!("{a} > {c}"),
        Ge => format!("{a} >= {c}"),
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
