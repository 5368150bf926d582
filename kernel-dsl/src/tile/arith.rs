//! Operators on tiles: element by element, with a scalar, or with a row or column vector.

use super::Tile;
use crate::dtype::{Elem, bf16, f16};
use std::ops::{Add, Div, Mul, Sub};

/// Wrapping for integers, IEEE for floats: what the device does.
trait Arith: Elem {
    fn add(self, o: Self) -> Self;
    fn sub(self, o: Self) -> Self;
    fn mul(self, o: Self) -> Self;
}
impl Arith for f32 {
    fn add(self, o: f32) -> f32 {
        self + o
    }
    fn sub(self, o: f32) -> f32 {
        self - o
    }
    fn mul(self, o: f32) -> f32 {
        self * o
    }
}
macro_rules! wrapping {
    ($($t:ty),*) => { $(impl Arith for $t {
        fn add(self, o: $t) -> $t { self.wrapping_add(o) }
        fn sub(self, o: $t) -> $t { self.wrapping_sub(o) }
        fn mul(self, o: $t) -> $t { self.wrapping_mul(o) }
    })* };
}
wrapping!(i32, u32, i64);

macro_rules! operator {
    ($trait:ident, $f:ident) => {
        #[allow(private_bounds)]
        impl<T: Arith> $trait<&Tile<T>> for &Tile<T> {
            type Output = Tile<T>;
            fn $f(self, o: &Tile<T>) -> Tile<T> {
                self.map2(o, <T as Arith>::$f)
            }
        }
        #[allow(private_bounds)]
        impl<T: Arith> $trait<Tile<T>> for Tile<T> {
            type Output = Tile<T>;
            fn $f(self, o: Tile<T>) -> Tile<T> {
                self.map2(&o, <T as Arith>::$f)
            }
        }
        #[allow(private_bounds)]
        impl<T: Arith> $trait<&Tile<T>> for Tile<T> {
            type Output = Tile<T>;
            fn $f(self, o: &Tile<T>) -> Tile<T> {
                self.map2(o, <T as Arith>::$f)
            }
        }
        #[allow(private_bounds)]
        impl<T: Arith> $trait<T> for Tile<T> {
            type Output = Tile<T>;
            fn $f(self, o: T) -> Tile<T> {
                self.map(|x| <T as Arith>::$f(x, o))
            }
        }
        #[allow(private_bounds)]
        impl<T: Arith> $trait<T> for &Tile<T> {
            type Output = Tile<T>;
            fn $f(self, o: T) -> Tile<T> {
                self.map(|x| <T as Arith>::$f(x, o))
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);

impl Div<f32> for Tile<f32> {
    type Output = Tile<f32>;
    fn div(self, o: f32) -> Tile<f32> {
        self.map(|x| x / o)
    }
}

/// Rust's `as` between elements.
pub trait CastTo<U> {
    fn cast_to(self) -> U;
}
macro_rules! casts {
    ($($a:ty => $($b:ty),*;)*) => { $($(impl CastTo<$b> for $a { fn cast_to(self) -> $b { self as $b } })*)* };
}
casts! {
    f32 => i32, u32, i64, f32;
    i32 => f32, i64, u32, i32, i8, u8;
    u32 => f32, i64, i32, u32;
    i64 => f32, i32, u32, i64;
    u8 => i32, f32;
    i8 => i32, f32;
}
impl CastTo<f32> for f16 {
    fn cast_to(self) -> f32 {
        self.to_f32()
    }
}
impl CastTo<f32> for bf16 {
    fn cast_to(self) -> f32 {
        self.to_f32()
    }
}
impl CastTo<bf16> for f32 {
    fn cast_to(self) -> bf16 {
        bf16::from_f32(self)
    }
}
impl CastTo<f16> for f32 {
    fn cast_to(self) -> f16 {
        f16::from_f32(self)
    }
}

impl<T: Elem> Tile<T> {
    /// Element by element, as Rust's `as`; to f16 and bf16 rounded to nearest even.
    pub fn cast<U: Elem>(&self) -> Tile<U>
    where
        T: CastTo<U>,
    {
        self.map(CastTo::cast_to)
    }
}
