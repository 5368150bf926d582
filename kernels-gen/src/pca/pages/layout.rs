//! Where a page of a kv head keeps what: 16 tiles of 32 tokens, `[K codes | V codes | K pairs | V pairs | K numbers | V numbers]`, a pair
//! a residual's norm and the length along a centre, f16; then the keys' map and the values' map.
//!
//! The keys' matrix is the left operand of queries, 32 coordinates by d; the values' is that of sums, 32 numbers by 32 coordinates. Both lie
//! in the order of the lanes' registers. Behind the values' steps are sums of its rows, which integers without a sign need.

use kernel_dsl::pack::left_byte;

use super::{BLOCK, Folded, PcaPages, WAYS};
use crate::codec::Codec;
use crate::layout::{Codes, Layout, Operand, TILE};

/// A page of rows of `d` numbers.
#[derive(Clone, Copy, Debug)]
pub struct PcaLayout {
    pub d: usize,
    pub ranks: [usize; 2],
    codecs: [&'static dyn Codec; 2],
}

impl PcaLayout {
    pub fn of(c: &PcaPages, d: usize) -> PcaLayout {
        PcaLayout { d, ranks: c.ranks(d), codecs: [c.halves.k.bands[0], c.halves.v.bands[0]] }
    }

    fn code_bytes(&self, side: usize) -> usize {
        TILE * self.ranks[side] / 8 * self.codecs[side].spec().bits / 8
    }

    /// First byte of the codes of values.
    pub fn values_at(&self) -> usize {
        self.code_bytes(0)
    }

    /// First byte of the pairs of keys; those of values follow.
    pub fn pairs_at(&self) -> usize {
        self.code_bytes(0) + self.code_bytes(1)
    }

    /// First byte of the numbers of keys; those of values follow.
    pub fn numbers_at(&self) -> usize {
        self.pairs_at() + 2 * 4 * TILE
    }

    pub fn tile_bytes(&self) -> usize {
        self.numbers_at() + 2 * TILE
    }

    /// First byte of the keys' map, behind the tiles; matrix, steps, mean.
    pub fn keys_map_at(&self) -> usize {
        BLOCK / TILE * self.tile_bytes()
    }

    /// Of the values' map: matrix, steps, sums, mean.
    pub fn values_map_at(&self) -> usize {
        self.keys_map_at() + (self.ranks[0] + WAYS) * (self.d + 4) + 4 * self.d
    }

    pub fn page_bytes(&self) -> usize {
        self.values_map_at() + (self.ranks[1] + WAYS) * (self.d + 4) + 8 * self.d
    }

    /// The coordinate of a residual at place `at` of the values' matrix: tiles of values come in bands, of which each of eight lanes
    /// has a run (`Tile::band`).
    pub fn coordinate(&self, at: usize) -> usize {
        let (band, row) = (at / 32, at % 32);
        if at < self.ranks[1] { row / 4 * (self.ranks[1] / 8) + 4 * band + row % 4 } else { at }
    }

    /// Byte of a map's matrix that belongs to number `i` of a row and coordinate `j`, which for values is a place.
    fn matrix_byte(&self, side: usize, i: usize, j: usize) -> usize {
        if side == 0 {
            self.keys_map_at() + j / 32 * (32 * self.d) + left_byte(32, self.d, j % 32, i)
        } else {
            self.values_map_at() + (i / 32 * ((self.ranks[1] + WAYS) / 32) + j / 32) * 1024 + left_byte(32, 32, i % 32, j % 32)
        }
    }

    /// First byte of the steps of a map.
    fn steps_at(&self, side: usize) -> usize {
        [self.keys_map_at(), self.values_map_at()][side] + (self.ranks[side] + WAYS) * self.d
    }

    fn mean_at(&self, side: usize) -> usize {
        self.steps_at(side) + 4 * (self.ranks[side] + WAYS) + 4 * self.d * side
    }

    fn codes(&self, side: usize) -> Layout {
        let (none, own) = (Codes::of(0, 0, false), Codes::of(self.codecs[side].spec().bits, 0, false));
        Layout { k: if side == 0 { own } else { none }, v: if side == 0 { none } else { own }, d: self.ranks[side] }
    }

    /// The coordinate at place `j` of a map.
    fn at_place(&self, side: usize, j: usize) -> usize {
        if side == 0 { j } else { self.coordinate(j) }
    }

    /// Puts the keys (side 0) or the values (1) of a block into a page.
    pub fn write(&self, page: &mut [u8], side: usize, block: &Folded) {
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        let places = self.ranks[side] + WAYS;
        for j in 0..places {
            let from = self.at_place(side, j);
            put(self.steps_at(side) + 4 * j, &block.worth[from].to_le_bytes());
            (0..self.d).for_each(|i| put(self.matrix_byte(side, i, j), &block.matrix[from * self.d + i].to_le_bytes()));
        }
        for i in 0..self.d {
            let sum: i32 = (0..places).map(|j| i32::from(block.matrix[j * self.d + i])).sum();
            put(self.mean_at(side) + 4 * i, &block.mean[i].to_le_bytes());
            if side == 1 {
                put(self.mean_at(1) - 4 * self.d + 4 * i, &sum.to_le_bytes());
            }
        }
        for token in 0..BLOCK {
            let (tile, t) = (token / TILE * self.tile_bytes(), token % TILE);
            put(tile + self.pairs_at() + (side * TILE + t) * 4, &[block.norms[token].to_le_bytes(), block.lengths[token].to_le_bytes()].concat());
            put(tile + self.numbers_at() + side * TILE + t, &[block.numbers[token]]);
        }
        let (codes, blocks) = (self.codes(side), self.ranks[side] / 8);
        let operand = [Operand::K, Operand::V][side];
        for (i, levels) in block.levels.as_chunks::<8>().0.iter().enumerate() {
            let (token, at) = (i / blocks, i % blocks);
            let tile = &mut page[token / TILE * self.tile_bytes() + [0, self.values_at()][side]..];
            codes.write_code(tile, operand, token % TILE, at, self.codecs[side].of_levels(levels.map(u32::from)));
        }
    }

    /// What [`Self::write`] put there.
    pub fn read(&self, page: &[u8], side: usize) -> Folded {
        let (places, d, rank) = (self.ranks[side] + WAYS, self.d, self.ranks[side]);
        let four = |at: usize| [page[at], page[at + 1], page[at + 2], page[at + 3]];
        let half = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let (mut matrix, mut worth) = (vec![0; places * d], vec![0.0; places]);
        for j in 0..places {
            let to = self.at_place(side, j);
            worth[to] = f32::from_le_bytes(four(self.steps_at(side) + 4 * j));
            (0..d).for_each(|i| matrix[to * d + i] = page[self.matrix_byte(side, i, j)] as i8);
        }
        let mean = (0..d).map(|i| f32::from_le_bytes(four(self.mean_at(side) + 4 * i))).collect();
        let mut block = Folded { d, rank, matrix, worth, mean, numbers: vec![], lengths: vec![], norms: vec![], levels: vec![] };
        let (codes, operand) = (self.codes(side), [Operand::K, Operand::V][side]);
        for token in 0..BLOCK {
            let (tile, t) = (token / TILE * self.tile_bytes(), token % TILE);
            let pair = tile + self.pairs_at() + (side * TILE + t) * 4;
            block.norms.push(half(pair));
            block.lengths.push(half(pair + 2));
            block.numbers.push(page[tile + self.numbers_at() + side * TILE + t] & (WAYS as u8 - 1));
            for at in 0..rank / 8 {
                let code = codes.read_code(&page[tile + [0, self.values_at()][side]..], operand, t, at);
                block.levels.extend(self.codecs[side].levels(code).map(|n| n as u8));
            }
        }
        block
    }
}
