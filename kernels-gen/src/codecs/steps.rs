//! Digits of 1 to 8 bits as they are: half of a cache whose steps and least values belong to groups of tokens or of channels, and
//! not to rows (`kivi`). No row can be coded with it alone, so no name opens it.

use kernel_dsl::codec;

use super::digits::{heights, pack, raised4_of, unpack, unpack4};
use crate::codec::{Codec, Spec};

#[derive(Debug)]
pub struct Steps {
    width: usize,
}

impl Steps {
    /// `width`: 1 to 8 bits.
    pub const fn new(width: usize) -> Steps {
        Steps { width }
    }
}

#[codec]
impl Codec for Steps {
    fn name(&self) -> String {
        format!("steps{}", self.width)
    }

    fn spec(&self) -> Spec {
        Spec { sides: 0, rotate: false, bytewise: true, raised: heights(self.width, 0), level_bits: self.width, ..Spec::integers(8 * self.width, 0) }
    }

    fn side(&self, _norm: f32, _top: f32) -> [f32; 2] {
        [0.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], _side: [f32; 2]) -> [u32; 4] {
        let mut c = [0_u32; 8];
        for i in 0..8 {
            c[i] = y[i] as u32;
        }
        pack(c, self.width)
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        let (low, high) = unpack(code, self.width);
        [low, high, 0_u32, 0_u32]
    }

    fn decode4(&self, w: [u32; 8]) -> [u32; 8] {
        unpack4(w, self.width, 0)
    }

    fn raised4(&self, w: [u32; 8]) -> [u32; 8] {
        raised4_of(w, self.width, 0)
    }

    fn of_levels(&self, levels: [u32; 8]) -> [u32; 4] {
        pack(levels, self.width)
    }

    fn scale(&self, _side: [f32; 2]) -> f32 {
        1.0_f32
    }
}
