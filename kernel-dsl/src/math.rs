//! Scalar functions whose bits are the same on every side.
//!
//! libm and the GPU's approximate units differ by ulps, so the language has its own polynomials:
//! one source, explicit fused multiply-adds, no library call.

use crate::build::{B, V};
use crate::ir::{BinOp, UnOp};
use kernel_dsl_macros::device;

pub use crate::pairs::*;

/// A function of two numbers that is one operation when a kernel is built.
macro_rules! recorded {
    ($name:ident, $op:ident) => {
        #[allow(non_camel_case_types)]
        #[doc(hidden)]
        pub struct $name {}
        impl $name {
            pub fn ir(b: &B, x: V, y: V) -> V {
                b.binary(BinOp::$op, x, y)
            }
        }
    };
}
pub(crate) use recorded;

/// `if a < b { b } else { a }`: fixes the sign of zero, drops a NaN in `a`'s place.
#[device]
#[inline]
pub fn fmax(a: f32, b: f32) -> f32 {
    if a < b { b } else { a }
}

/// `if b < a { b } else { a }`.
#[device]
#[inline]
pub fn fmin(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

/// The larger of two magnitudes, in one instruction on a GPU where `fmax` takes two; of a NaN and a number the number's.
#[inline]
pub fn farther(a: f32, b: f32) -> f32 {
    a.abs().max(b.abs())
}

recorded!(farther, Farther);

/// The larger of two numbers, in one instruction on a GPU where `fmax` takes two; of a NaN and a number the number, of two zeros the
/// positive one.
#[inline]
pub fn greater(a: f32, b: f32) -> f32 {
    if b.is_nan() | (a.total_cmp(&b).is_gt() & !a.is_nan()) { a } else { b }
}

recorded!(greater, Greater);

/// The smaller likewise; of two zeros the negative one.
#[inline]
pub fn lesser(a: f32, b: f32) -> f32 {
    if b.is_nan() | (a.total_cmp(&b).is_lt() & !a.is_nan()) { a } else { b }
}

recorded!(lesser, Lesser);

/// High 32 bits of the 64-bit product.
#[inline]
pub fn mul_hi(a: u32, b: u32) -> u32 {
    ((a as u64 * b as u64) >> 32) as u32
}

recorded!(mul_hi, MulHi);

/// `x` forced into [0, 1], free on a GPU after a sum or product; NaN and -0 become 0.
#[inline]
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

#[allow(non_camel_case_types)]
#[doc(hidden)]
pub struct saturate {}
impl saturate {
    pub fn ir(b: &B, x: V) -> V {
        b.unary(UnOp::Saturate, x)
    }
}

/// `x`, of which the compiler knows nothing: it would take a mask before several shifts for as many masks after them.
#[inline]
pub fn opaque(x: u32) -> u32 {
    x
}

#[allow(non_camel_case_types)]
#[doc(hidden)]
pub struct opaque {}
impl opaque {
    pub fn ir(b: &B, x: V) -> V {
        b.unary(UnOp::Opaque, x)
    }
}

/// Sum of the four products of the bytes of two words.
#[inline]
pub fn dot4(a: u32, b: u32) -> u32 {
    (0..4).fold(0, |sum, i| sum + (a >> (8 * i) & 0xff) * (b >> (8 * i) & 0xff))
}

recorded!(dot4, Dot4);

/// `sum` plus the four products of the bytes of two words, those of `a` unsigned, of `b` signed: one instruction, and none of the pipe that adds
/// integers on a GPU.
#[inline]
pub fn add_dot4(sum: u32, a: u32, b: u32) -> u32 {
    (0..4).fold(sum, |sum, i| sum.wrapping_add((a >> (8 * i) & 0xff).wrapping_mul((b >> (8 * i)) as i8 as u32)))
}

#[allow(non_camel_case_types)]
#[doc(hidden)]
pub struct add_dot4 {}
impl add_dot4 {
    pub fn ir(b: &B, sum: V, x: V, y: V) -> V {
        b.add_dot4(sum, x, y)
    }
}

/// `x` shifted left by any number of bits: from 32 on nothing is left of it.
#[inline]
pub fn shifted_out(x: u32, n: u32) -> u32 {
    x.checked_shl(n).unwrap_or(0)
}

recorded!(shifted_out, ShlOut);

/// Bits n.. of the 64 bits (hi, lo), for n below 32 known when the kernel is built.
#[inline]
pub fn funnel(lo: u32, hi: u32, n: usize) -> u32 {
    (((hi as u64) << 32 | lo as u64) >> (n & 31)) as u32
}

#[allow(non_camel_case_types)]
#[doc(hidden)]
pub struct funnel {}
impl funnel {
    pub fn ir(b: &B, lo: V, hi: V, n: V) -> V {
        b.funnel(lo, hi, n)
    }
}

/// Four bytes of the eight in (lo, hi): nibble i of `at` says which one becomes byte i; 8 and above ask for the sign
/// bit of byte `nibble - 8`, repeated.
#[inline]
pub fn pick(lo: u32, hi: u32, at: u32) -> u32 {
    let both = u64::from(hi) << 32 | u64::from(lo);
    (0..4).fold(0, |word, i| {
        let nibble = at >> (4 * i) & 15;
        let byte = (both >> (8 * (nibble & 7))) as u32 & 0xff;
        word | (if nibble < 8 { byte } else { (byte >> 7) * 0xff }) << (8 * i)
    })
}

#[allow(non_camel_case_types)]
#[doc(hidden)]
pub struct pick {}
impl pick {
    pub fn ir(b: &B, lo: V, hi: V, at: V) -> V {
        b.pick(lo, hi, at)
    }
}

/// 2^x for |x| <= 126: degree-5 polynomial on [-1/2, 1/2], relative error below 2.5e-7, exact at integers.
#[device]
pub fn exp2(x: f32) -> f32 {
    let z = x + 12582912.0_f32;
    let n = z - 12582912.0_f32;
    let r = x - n;
    let a = 1.326_472_7e-3_f32.mul_add(r, 9.671_513e-3_f32);
    let b = a.mul_add(r, 5.550_733_6e-2_f32);
    let c = b.mul_add(r, 2.402_224_2e-1_f32);
    let d = c.mul_add(r, 6.931_47e-1_f32);
    let p = d.mul_add(r, 1.0_f32);
    f32::from_bits(p.to_bits().wrapping_add(z.to_bits() << 23))
}

/// 2^x, or 0 below 2^-126 and for NaN: the guard that lets an empty maximum of -inf merge exactly.
#[device]
pub fn exp2_or_zero(x: f32) -> f32 {
    if x >= -126.0_f32 { exp2(x) } else { 0.0_f32 }
}

/// 2^x; below 2^-126 something smaller, from 2^-127 down and for NaN 0. Cheaper than `exp2_or_zero` by a comparison.
#[device]
pub fn exp2_or_little(x: f32) -> f32 {
    exp2(fmax(-127.0_f32, x))
}

/// 2^(x + 26), exact at integers, relative error below 3e-6; from x = -153 down and for NaN 0, in between less than 2^-126.
#[device]
pub fn exp2_raised(x: f32) -> f32 {
    let y = fmax(-153.0_f32, x);
    // The lowest bits of the sum are the exponent.
    let z = y + 12582938.0_f32;
    let r = y - (z - 12582938.0_f32);
    let a = 9.582_852e-3_f32.mul_add(r, 5.590_642_6e-2_f32);
    let b = a.mul_add(r, 2.402_409_9e-1_f32);
    let c = b.mul_add(r, 6.931_242e-1_f32);
    let p = c.mul_add(r, 1.0_f32);
    f32::from_bits(p.to_bits().wrapping_add(z.to_bits() << 23))
}

/// log2 of a positive normal number: exponent plus an atanh series on [sqrt(1/2), sqrt(2)), error below 3e-7.
#[device]
pub fn log2(x: f32) -> f32 {
    let i = x.to_bits().wrapping_sub(0x3f35_04f3_u32) as i32;
    let e = i >> 23_u32;
    let f = f32::from_bits(x.to_bits().wrapping_sub((e << 23_u32) as u32));
    let s = (f - 1.0_f32) / (f + 1.0_f32);
    let s2 = s * s;
    let a = 0.411_98_f32.mul_add(s2, 0.577_078_f32);
    let b = a.mul_add(s2, 0.961_796_7_f32);
    let c = b.mul_add(s2, 2.885_390_f32);
    c.mul_add(s, e as f32)
}

/// Cosine and sine of an angle in 2^-32 of a turn, errors below 2e-7: a quarter turn, then polynomials up to an eighth either way.
#[device]
pub fn turned(angle: u32) -> (f32, f32) {
    let quarter = angle.wrapping_add(0x2000_0000_u32) >> 30;
    let x = (angle.wrapping_sub(quarter << 30) as i32) as f32 * 1.462_918_1e-9_f32;
    let z = x * x;
    let s = 2.755_731_9e-6_f32.mul_add(z, -1.984_127e-4_f32).mul_add(z, 8.333_333e-3_f32).mul_add(z, -0.166_666_67_f32);
    let sin = (s * z).mul_add(x, x);
    let c = 2.480_158_7e-5_f32.mul_add(z, -1.388_888_9e-3_f32).mul_add(z, 4.166_666_8e-2_f32).mul_add(z, -0.5_f32);
    let cos = c.mul_add(z, 1.0_f32);
    let (a, b) = (if quarter & 1_u32 == 0_u32 { cos } else { sin }, if quarter & 1_u32 == 0_u32 { sin } else { cos });
    (if (quarter + 1_u32) & 2_u32 == 0_u32 { a } else { -a }, if quarter & 2_u32 == 0_u32 { b } else { -b })
}

/// Where `position` turns of `speed` come to, both words of it 2^-64 of a turn, in 2^-32 of one.
#[device]
pub fn angle_of(position: i32, speed: u32, finer: u32) -> u32 {
    (position as u32).wrapping_mul(speed).wrapping_add(mul_hi(position as u32, finer))
}

/// NaN becomes 0, everything else is clamped to `±limit`.
#[device]
pub fn sanitise(x: f32, limit: f32) -> f32 {
    let y = if x < limit { x } else { limit };
    let z = if -limit < y { y } else { -limit };
    if x == x { z } else { 0.0_f32 }
}

/// The E4M3 code (OCP FP8: bias 7, no infinities, largest 448) nearest to `x`, ties to even; larger magnitudes
/// saturate and NaN becomes 0x7f.
#[device]
pub fn e4m3_of(x: f32) -> u32 {
    let sign = (x.to_bits() >> 24) & 0x80_u32;
    let m = fmin(x.abs(), 448.0_f32);
    // Below 2^-6 the steps are 2^-9.
    let small = (m * 512.0_f32).round_ties_even() as u32;
    let bits = m.to_bits();
    let large = ((bits.wrapping_add(0x7_ffff_u32).wrapping_add((bits >> 20) & 1_u32)) >> 20).wrapping_sub(960_u32);
    let code = if m < 0.015625_f32 { small } else { large };
    if x == x { sign | code } else { 0x7f_u32 }
}

/// The E2M1 code (OCP FP4: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and a sign) nearest to `x`, ties to even; larger magnitudes
/// saturate and NaN becomes 0.
#[device]
pub fn e2m1_of(x: f32) -> u32 {
    // At 2^-126 of its size an f32 has E2M1's subnormal range: one rounding of its bits serves all codes.
    let m = fmin(fmax(0.0_f32, x.abs()), 6.0_f32) * 1.1754944e-38_f32;
    let bits = m.to_bits();
    let code = bits.wrapping_add(0x1f_ffff_u32).wrapping_add((bits >> 22) & 1_u32) >> 22;
    code | ((x.to_bits() >> 28) & 8_u32)
}

/// The value of an E4M3 code; 0x7f and 0xff are NaN and read as 480.
#[device]
pub fn e4m3_value(code: u32) -> f32 {
    // Exponent and mantissa in an f32's place, then 2^(127 - 7): exact for subnormal codes too.
    let magnitude = f32::from_bits((code & 0x7f_u32) << 20) * 1.329228e36_f32;
    f32::from_bits(magnitude.to_bits() | ((code & 0x80_u32) << 24))
}
