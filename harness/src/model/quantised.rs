//! Matrices that a checkpoint keeps in few bits: E4M3 under an E8M0 scale for a tile of 128 x 128, or two E2M1 numbers a
//! byte under one for 32 of a row. A scale is a power of two, so every product is exact in f32.

use safetensors::Dtype;

use super::Weights;
use crate::error::{Error, Result};

/// Rows and columns that share a scale of an E4M3 matrix.
const TILE: usize = 128;
/// Numbers of a row that share a scale of an E2M1 matrix.
const BLOCK: usize = 32;
/// Magnitudes of the E2M1 codes 0..8; bit 3 is the sign.
const E2M1: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

impl Weights {
    /// A matrix [out, in] as f32, whatever it is kept in. Its scales are looked up under `scale`; a matrix in bf16, f16
    /// or f32 has none.
    pub fn matrix(&self, name: &str, scale: &str, [out, input]: [usize; 2]) -> Result<Vec<f32>> {
        match self.found(name) {
            Some((_, Dtype::F8_E4M3)) => {
                let tiles = [out.div_ceil(TILE), input.div_ceil(TILE)];
                let scales = self.powers(scale, &tiles)?;
                let at = |i: usize| scales[i / input / TILE * tiles[1] + i % input / TILE];
                let codes = self.bytes(name, &[out, input])?;
                Ok(codes.iter().enumerate().map(|(i, code)| e4m3(*code) * at(i)).collect())
            }
            // how two codes share a byte is a matter of convention: the first has the low bits
            Some((_, Dtype::I8 | Dtype::U8)) => {
                let scales = self.powers(scale, &[out, input.div_ceil(BLOCK)])?;
                let at = |i: usize| scales[i / input * input.div_ceil(BLOCK) + i % input / BLOCK];
                let codes = self.bytes(name, &[out, input.div_ceil(2)])?;
                let pairs = codes.iter().flat_map(|pair| [pair & 15, pair >> 4]);
                Ok(pairs.enumerate().map(|(i, code)| e2m1(code) * at(i)).collect())
            }
            _ => self.tensor(name, &[out, input]),
        }
    }

    /// Powers of two as E8M0 has them.
    fn powers(&self, name: &str, wanted: &[usize]) -> Result<Vec<f32>> {
        let is = |dtype| matches!(dtype, Dtype::F8_E8M0 | Dtype::U8);
        if let Some((_, dtype)) = self.found(name).filter(|(_, dtype)| !is(*dtype)) {
            return Err(Error::Dtype { name: name.into(), found: format!("{dtype:?}"), wanted: "scales in E8M0" });
        }
        Ok(self.bytes(name, wanted)?.into_iter().map(e8m0).collect())
    }
}

fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7) / 8.0);
    let size = match exponent {
        0 => mantissa * 2_f32.powi(-6),
        15 if code & 7 == 7 => f32::NAN,
        _ => (1.0 + mantissa) * 2_f32.powi(exponent - 7),
    };
    if code & 128 == 0 { size } else { -size }
}

fn e2m1(code: u8) -> f32 {
    let size = E2M1[usize::from(code & 7)];
    if code & 8 == 0 { size } else { -size }
}

/// 2^(code - 127); the largest code is no number.
fn e8m0(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(1 << 22),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_values() {
        assert_eq!([0x00, 0x01, 0x08, 0x38, 0x7e, 0xb8].map(e4m3), [0.0, 2_f32.powi(-9), 2_f32.powi(-6), 1.0, 448.0, -1.0]);
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert_eq!([0, 1, 7, 9, 15].map(e2m1), [0.0, 0.5, 6.0, -0.5, -6.0]);
        assert_eq!([0, 1, 127, 254].map(e8m0), [2_f32.powi(-127), 2_f32.powi(-126), 1.0, 2_f32.powi(127)]);
        assert!(e8m0(255).is_nan());
    }
}
