//! Where the bits of a packed tile lie: 32 tokens of one kv head, `[K codes | V codes | sides]`.
//!
//! A code of `bits` bits is cut into power-of-two planes, largest first, and a tail of fewer than 8 bits. Inside a plane the blocks
//! stand in the order in which the lanes of a warp want them for their tensor-core fragments, so
//! that decoding needs 16-byte loads and no shuffle. Every token owns whole bytes: storing a token
//! writes nothing that belongs to its neighbours.

use kernel_dsl::dtype::DType;
use kernel_dsl::ir::{Feed, Group, Packing};
use kernel_dsl::pack::tail_planes;

/// Tokens in a tile.
pub const TILE: usize = kernel_dsl::pack::TOKENS;

/// The two halves of a tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    K,
    V,
}

/// The tile layout of a codec at one head dim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub k: Codes,
    pub v: Codes,
    pub d: usize,
}

/// What one operand stores of a vector: its bands of equally many dims one after the other, each with its own
/// bits a block of 8 coordinates, and `sides` f16 values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Codes {
    /// Bits a block in each of the `bands` bands; the rest is 0.
    pub bits: [usize; 4],
    pub bands: usize,
    pub sides: usize,
    pub bytewise: bool,
    /// What groups of blocks share; it follows the codes of a band.
    pub group: Group,
}

impl Codes {
    /// One band.
    pub fn of(bits: usize, sides: usize, bytewise: bool) -> Codes {
        Codes { bits: [bits, 0, 0, 0], bands: 1, sides, bytewise, group: Group::default() }
    }

    /// Whether codes are stored transposed: `decode4` takes eight words, the last one for the bits that fill no byte.
    fn transposable(&self) -> bool {
        self.bytewise && self.bits.iter().all(|b| b % 8 == 0 || *b < 64 && self.bands == 1)
    }

    /// Bits of all codes of a vector of `d` coordinates, and of what its groups share.
    pub fn vector_bits(&self, d: usize) -> usize {
        let shared = if self.group.dims > 0 { d / self.group.dims * self.group.bits } else { 0 };
        self.bits.iter().sum::<usize>() * (d / 8 / self.bands) + shared
    }
}

/// Up to 8 bits that are contiguous in the code and lie in one byte of the tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    pub code_bit: usize,
    pub tile_bit: usize,
    pub width: usize,
}

/// `(first code bit, width)` of each plane, largest first, the tail last: 51 gives 32, 16, 3.
pub fn planes(bits: usize) -> impl Iterator<Item = (usize, usize)> {
    kernel_dsl::pack::planes(bits).into_iter().map(|(w, first)| (first, w))
}

impl Layout {
    /// Blocks of 8 coordinates in a vector.
    pub fn blocks(&self) -> usize {
        self.d / 8
    }

    pub fn codes(&self, operand: Operand) -> Codes {
        match operand {
            Operand::K => self.k,
            Operand::V => self.v,
        }
    }

    pub fn tile_bytes(&self) -> usize {
        self.sides_at() + TILE * self.side_stride()
    }

    /// Whether values are stored transposed: their codecs allow it.
    pub fn quads(&self) -> bool {
        self.v.transposable()
    }

    /// Whether keys are.
    pub fn key_quads(&self) -> bool {
        self.k.transposable()
    }

    /// First byte of the codes of a band.
    pub fn band_at(&self, operand: Operand, band: usize) -> usize {
        let codes = self.codes(operand);
        let before: usize = codes.bits[..band].iter().sum();
        let own = TILE * self.blocks() / codes.bands * before / 8;
        own + if operand == Operand::V { TILE * self.k.vector_bits(self.d) / 8 } else { 0 }
    }

    /// First byte of the side values: `[token, (k, v), side]` in f16.
    pub fn sides_at(&self) -> usize {
        TILE * (self.k.vector_bits(self.d) + self.v.vector_bits(self.d)) / 8
    }

    /// Bytes of the sides of one token.
    pub fn side_stride(&self) -> usize {
        2 * (self.k.sides + self.v.sides)
    }

    /// Calls `visit` with the pieces of the code of `block` of `token`, in ascending code bits, and of what its group shares.
    pub fn each_piece(&self, operand: Operand, token: usize, block: usize, mut visit: impl FnMut(Piece)) {
        let of_band = self.blocks() / self.codes(operand).bands;
        let (band, block) = (block / of_band, block % of_band);
        let (first_bit, packing) = (8 * self.band_at(operand, band), self.packing(operand, band));
        if packing.feed.transposed() {
            for k in 0..packing.bits / 8 {
                let tile_bit = first_bit + 8 * packing.quad_byte(token, block, k);
                visit(Piece { code_bit: 8 * k, tile_bit, width: 8 });
            }
            for plane in tail_planes(packing.bits) {
                visit(Piece { code_bit: plane.1, tile_bit: first_bit + packing.tail_bit(plane, token, block), width: plane.0 });
            }
            return;
        }
        for (off, w) in planes(packing.bits) {
            let at = first_bit + packing.bit((w, off), token, block);
            // A tail straddles bytes: bit by bit.
            let width = if w < 8 { 1 } else { 8 };
            for k in (0..w).step_by(width) {
                visit(Piece { code_bit: off + k, tile_bit: at + k, width });
            }
        }
        if packing.group.dims > 0 {
            let at = first_bit + 8 * packing.shared_byte(token, 8 * block / packing.group.dims);
            for k in (0..packing.group.bits).step_by(8) {
                visit(Piece { code_bit: packing.shared_bit() + k, tile_bit: at + k, width: 8 });
            }
        }
    }

    /// The order of a band's bits, as the kernels' operands want it.
    fn packing(&self, operand: Operand, band: usize) -> Packing {
        let feed = match operand {
            Operand::K if self.key_quads() => Feed::KeyQuads,
            Operand::K => Feed::Keys,
            Operand::V if self.quads() => Feed::Quads,
            Operand::V => Feed::Values,
        };
        let codes = self.codes(operand);
        Packing { bits: codes.bits[band], d: self.d / codes.bands, feed, lane: DType::U8, group: codes.group }
    }

    /// First byte of the `index`-th f16 side of `token`.
    pub fn side_byte(&self, operand: Operand, token: usize, index: usize) -> usize {
        let own = if operand == Operand::V { 2 * self.k.sides } else { 0 };
        self.sides_at() + token * self.side_stride() + own + 2 * index
    }

    pub fn write_code(&self, tile: &mut [u8], operand: Operand, token: usize, block: usize, code: [u32; 4]) {
        self.each_piece(operand, token, block, |p| {
            let mask = (((1_u32 << p.width) - 1) << (p.tile_bit % 8)) as u8;
            let bits = (code[p.code_bit / 32] >> (p.code_bit % 32) << (p.tile_bit % 8)) as u8;
            let byte = &mut tile[p.tile_bit / 8];
            *byte = *byte & !mask | bits & mask;
        });
    }

    pub fn read_code(&self, tile: &[u8], operand: Operand, token: usize, block: usize) -> [u32; 4] {
        let mut code = [0_u32; 4];
        self.each_piece(operand, token, block, |p| {
            let bits = tile[p.tile_bit / 8] as u32 >> (p.tile_bit % 8) & ((1 << p.width) - 1);
            code[p.code_bit / 32] |= bits << (p.code_bit % 32);
        });
        code
    }

    /// f16 bits of the sides; those that are not stored read as 0.
    pub fn read_sides(&self, tile: &[u8], operand: Operand, token: usize) -> [u16; 2] {
        let mut sides = [0_u16; 2];
        for (index, side) in sides.iter_mut().enumerate().take(self.codes(operand).sides) {
            let at = self.side_byte(operand, token, index);
            *side = u16::from_le_bytes([tile[at], tile[at + 1]]);
        }
        sides
    }

    pub fn write_sides(&self, tile: &mut [u8], operand: Operand, token: usize, sides: [u16; 2]) {
        for (index, side) in sides.iter().enumerate().take(self.codes(operand).sides) {
            let at = self.side_byte(operand, token, index);
            tile[at..at + 2].copy_from_slice(&side.to_le_bytes());
        }
    }
}
