//! The arithmetic of one element, on bit patterns zero-extended to 64 bits: Rust's own.
//!
//! Integers wrap, casts from floats truncate and saturate with NaN going to 0, f32 rounds to f16 and bf16 to
//! nearest even, a shift uses its amount modulo the width. Nothing here depends on the stage.

use super::trap::Wrong;
use crate::dtype::{DType, bf16, f16};
use crate::ir::{BinOp, UnOp};

/// The lowest `d.size()` bytes; one bit of a bool.
pub fn truncated(d: DType, bits: u64) -> u64 {
    match d {
        DType::Bool => bits & 1,
        d => bits & (u64::MAX >> (64 - 8 * d.size())),
    }
}

/// The value of an integer or bool.
pub fn int(d: DType, bits: u64) -> i64 {
    match d {
        DType::I8 => i64::from(bits as u8 as i8),
        DType::I32 => i64::from(bits as u32 as i32),
        DType::I64 => bits as i64,
        d => truncated(d, bits) as i64,
    }
}

/// The value of a float.
pub fn float(d: DType, bits: u64) -> f32 {
    match d {
        DType::F16 => f16::from_bits(bits as u16).to_f32(),
        DType::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        _ => f32::from_bits(bits as u32),
    }
}

pub fn f32_bits(x: f32) -> u64 {
    u64::from(x.to_bits())
}

fn unsupported<T>(op: impl std::fmt::Debug, d: DType) -> Result<T, Wrong> {
    Err(Wrong::Unsupported { op: format!("{op:?} of {}", d.name()) })
}

pub fn unary(op: UnOp, d: DType, a: u64) -> Result<u64, Wrong> {
    let x = f32::from_bits(a as u32);
    let y = match (op, d) {
        (UnOp::Neg, DType::F32) => -x,
        (UnOp::Abs, DType::F32) => x.abs(),
        (UnOp::Sqrt, DType::F32) => x.sqrt(),
        (UnOp::Floor, DType::F32) => x.floor(),
        (UnOp::Ceil, DType::F32) => x.ceil(),
        (UnOp::Round, DType::F32) => x.round_ties_even(),
        (UnOp::Saturate, DType::F32) => crate::math::saturate(x),
        (_, DType::F16 | DType::Bf16) => return unsupported(op, d),
        (UnOp::Neg, _) => return Ok(truncated(d, int(d, a).wrapping_neg() as u64)),
        (UnOp::Abs, _) => return Ok(truncated(d, int(d, a).wrapping_abs() as u64)),
        (UnOp::Not, d) if !d.is_float() => return Ok(truncated(d, !a)),
        (UnOp::Opaque, DType::U32) => return Ok(a),
        (UnOp::Popc, DType::U32) => return Ok(u64::from((a as u32).count_ones())),
        _ => return unsupported(op, d),
    };
    Ok(f32_bits(y))
}

/// `d` is the type of `a`, `e` that of `b`: they differ for shifts only.
pub fn binary(op: BinOp, (d, a): (DType, u64), (e, b): (DType, u64)) -> Result<u64, Wrong> {
    match d {
        DType::F32 => floats(op, f32::from_bits(a as u32), f32::from_bits(b as u32)),
        DType::F16 | DType::Bf16 => unsupported(op, d),
        d => Ok(integers(op, d, int(d, a), int(e, b))?),
    }
}

fn floats(op: BinOp, x: f32, y: f32) -> Result<u64, Wrong> {
    Ok(match op {
        BinOp::Add => f32_bits(x + y),
        BinOp::Sub => f32_bits(x - y),
        BinOp::Mul => f32_bits(x * y),
        BinOp::Div => f32_bits(x / y),
        BinOp::Greater => f32_bits(crate::math::greater(x, y)),
        BinOp::Lesser => f32_bits(crate::math::lesser(x, y)),
        BinOp::Farther => f32_bits(crate::math::farther(x, y)),
        BinOp::Max => f32_bits(if x < y { y } else { x }),
        BinOp::Min => f32_bits(if y < x { y } else { x }),
        BinOp::Eq => u64::from(x == y),
        BinOp::Ne => u64::from(x != y),
        BinOp::Lt => u64::from(x < y),
        BinOp::Le => u64::from(x <= y),
        BinOp::Gt => u64::from(x > y),
        BinOp::Ge => u64::from(x >= y),
        _ => return unsupported(op, DType::F32),
    })
}

fn integers(op: BinOp, d: DType, x: i64, y: i64) -> Result<u64, Wrong> {
    let by = y as u32 & (8 * d.size() as u32 - 1);
    let z = match op {
        BinOp::Eq => return Ok(u64::from(x == y)),
        BinOp::Ne => return Ok(u64::from(x != y)),
        BinOp::Lt => return Ok(u64::from(x < y)),
        BinOp::Le => return Ok(u64::from(x <= y)),
        BinOp::Gt => return Ok(u64::from(x > y)),
        BinOp::Ge => return Ok(u64::from(x >= y)),
        BinOp::And => x & y,
        BinOp::Or => x | y,
        BinOp::Xor => x ^ y,
        _ if d == DType::Bool => return unsupported(op, d),
        BinOp::Add => x.wrapping_add(y),
        BinOp::Sub => x.wrapping_sub(y),
        BinOp::Mul => x.wrapping_mul(y),
        BinOp::Div | BinOp::Rem if y == 0 => return Err(Wrong::DivideByZero),
        BinOp::Div => x.wrapping_div(y),
        BinOp::Rem => x.wrapping_rem(y),
        BinOp::Shl => x << by,
        BinOp::Shr => x >> by,
        BinOp::MulHi if d == DType::U32 => ((x as u64).wrapping_mul(y as u64) >> 32) as i64,
        BinOp::Dot4 if d == DType::U32 => (0..4).fold(0, |sum, i| sum + (x >> (8 * i) & 0xff) * (y >> (8 * i) & 0xff)),
        BinOp::ShlOut if d == DType::U32 => i64::from(crate::math::shifted_out(x as u32, y as u32)),
        BinOp::MulBf16x2 if d == DType::U32 => i64::from(crate::math::mul_bf16x2(x as u32, y as u32)),
        BinOp::GreaterBf16x2 if d == DType::U32 => i64::from(crate::math::greater_bf16x2(x as u32, y as u32)),
        BinOp::LesserBf16x2 if d == DType::U32 => i64::from(crate::math::lesser_bf16x2(x as u32, y as u32)),
        BinOp::AddSquaresBf16x2 if d == DType::U32 => i64::from(crate::math::add_squares_bf16x2(x as u32, y as u32)),
        BinOp::MinU16x2 if d == DType::U32 => i64::from(crate::math::min_u16x2(x as u32, y as u32)),
        BinOp::MaxU16x2 if d == DType::U32 => i64::from(crate::math::max_u16x2(x as u32, y as u32)),
        BinOp::MulHi | BinOp::Dot4 | BinOp::ShlOut | BinOp::MulBf16x2 | BinOp::AddSquaresBf16x2 | BinOp::GreaterBf16x2 | BinOp::LesserBf16x2 | BinOp::MinU16x2 | BinOp::MaxU16x2 | BinOp::Farther | BinOp::Greater | BinOp::Lesser => {
            return unsupported(op, d);
        }
        BinOp::Max => x.max(y),
        BinOp::Min => x.min(y),
    };
    Ok(truncated(d, z as u64))
}

/// a * b + c, rounded once.
pub fn fma(d: DType, a: u64, b: u64, c: u64) -> Result<u64, Wrong> {
    if d != DType::F32 {
        return unsupported("Fma", d);
    }
    Ok(f32_bits(float(d, a).mul_add(float(d, b), float(d, c))))
}

/// Rust's `as`.
pub fn cast(from: DType, to: DType, bits: u64) -> Result<u64, Wrong> {
    if from == to {
        return Ok(bits);
    }
    let (x, n) = if from.is_float() { (float(from, bits), 0) } else { (int(from, bits) as f32, int(from, bits)) };
    Ok(match to {
        DType::F32 => f32_bits(x),
        DType::F16 => u64::from(f16::from_f32(x).to_bits()),
        DType::Bf16 => u64::from(bf16::from_f32(x).to_bits()),
        DType::Bool => return unsupported("Cast to bool", from),
        to if !from.is_float() => truncated(to, n as u64),
        DType::U8 => u64::from(x as u8),
        DType::I8 => u64::from(x as i8 as u8),
        DType::U16 => u64::from(x as u16),
        DType::I32 => u64::from(x as i32 as u32),
        DType::U32 => u64::from(x as u32),
        DType::I64 => x as i64 as u64,
    })
}

/// The same bits as another type of that size.
pub fn bitcast(from: DType, to: DType, bits: u64) -> Result<u64, Wrong> {
    if from.size() != to.size() { unsupported("Bitcast", from) } else { Ok(bits) }
}

/// Bits n.. of the 64 bits (hi, lo).
pub fn funnel(lo: u64, hi: u64, n: usize) -> u64 {
    truncated(DType::U32, ((hi & 0xffff_ffff) << 32 | lo & 0xffff_ffff) >> (n & 31))
}

/// Four bytes of (a, b), picked by the selector's nibbles.
pub fn prmt(a: u64, b: u64, selector: u32) -> u64 {
    u64::from(crate::math::pick(a as u32, b as u32, selector))
}
