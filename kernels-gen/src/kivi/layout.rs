//! Where a KIVI tile keeps what: 32 tokens of one kv head, `[K codes | V codes | K pairs | V pairs]`, a pair an f16 step and an f16
//! least value. Codes lie as in every tile whose codes are transposed.

use crate::layout::{Layout, Operand, TILE};
use crate::registry::CodecInfo;

use super::{GROUP, Group, Kivi};

/// A tile of rows of `d` coordinates, a multiple of 64.
#[derive(Clone, Copy, Debug)]
pub struct KiviLayout {
    codes: Layout,
    halves: &'static CodecInfo,
}

impl KiviLayout {
    pub fn of(kivi: &Kivi, d: usize) -> KiviLayout {
        let halves = kivi.halves();
        KiviLayout { codes: halves.layout(d), halves }
    }

    pub fn tile_bytes(&self) -> usize {
        self.pairs_at() + 8 * self.codes.d
    }

    /// First byte of the pairs: those of keys, then as many bytes of values.
    pub fn pairs_at(&self) -> usize {
        self.codes.sides_at()
    }

    /// First byte of the codes of values.
    pub fn values_at(&self) -> usize {
        self.codes.band_at(Operand::V, 0)
    }

    /// Byte of the pair of channel `dim` of the keys. Eight lanes share a query row, an eighth of its dims each: four dims of each
    /// of the eight lie side by side.
    pub fn key_pair(&self, dim: usize) -> usize {
        let own = self.codes.d / 8;
        self.pairs_at() + (dim % own / 4 * 8 + dim / own) * 16 + dim % 4 * 4
    }

    /// Byte of the pair of a token's values of channel group `group`.
    pub fn value_pair(&self, token: usize, group: usize) -> usize {
        self.pairs_at() + 4 * self.codes.d + (group * TILE + token) * 4
    }

    /// Coordinate of the coded values that holds channel `dim`: each of eight lanes has four dims of every group side by side, so
    /// that a group's values are whole registers.
    pub fn coordinate(&self, dim: usize) -> usize {
        let (group, lane) = (dim / GROUP, dim % GROUP / 4);
        self.codes.d / 8 * lane + 4 * group + dim % 4
    }

    fn put_pair(&self, tile: &mut [u8], at: usize, group: &Group) {
        tile[at..at + 2].copy_from_slice(&group.step.to_le_bytes());
        tile[at + 2..at + 4].copy_from_slice(&group.least.to_le_bytes());
    }

    /// Puts 32 tokens' keys and values, a group at a time, into a tile.
    pub fn write(&self, tile: &mut [u8], keys: &[Group], values: &[Group]) {
        let (d, groups) = (self.codes.d, self.codes.d / GROUP);
        let mut digits = [vec![0_u8; TILE * d], vec![0_u8; TILE * d]];
        for (dim, group) in keys.iter().enumerate() {
            self.put_pair(tile, self.key_pair(dim), group);
            (0..TILE).for_each(|t| digits[0][t * d + dim] = group.digits[t]);
        }
        for (i, group) in values.iter().enumerate() {
            self.put_pair(tile, self.value_pair(i / groups, i % groups), group);
            (0..GROUP).for_each(|c| digits[1][i / groups * d + self.coordinate(i % groups * GROUP + c)] = group.digits[c]);
        }
        for (operand, digits) in [Operand::K, Operand::V].into_iter().zip(&digits) {
            let codec = self.halves.half(operand).bands[0];
            for (i, block) in digits.as_chunks::<8>().0.iter().enumerate() {
                self.codes.write_code(tile, operand, i / (d / 8), i % (d / 8), codec.of_levels(block.map(u32::from)));
            }
        }
    }

    /// Digits `[token, coordinate]` of keys or values.
    pub fn digits(&self, tile: &[u8], operand: Operand) -> Vec<u8> {
        let (codec, blocks) = (self.halves.half(operand).bands[0], self.codes.blocks());
        let block = |i: usize| codec.decode(self.codes.read_code(tile, operand, i / blocks, i % blocks));
        (0..TILE * blocks).flat_map(|i| [0, 1].map(|w| block(i)[w].to_le_bytes()).concat()).collect()
    }
}
