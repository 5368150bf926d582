//! Where a page of a kv head keeps what: 16 tiles of 32 tokens, `[K codes | V codes | K pairs | V pairs | K numbers | V numbers | K outliers | V outliers]`,
//! a pair a residual's norm and the length along a centre, f16; then the keys' map and the values' map.
//!
//! A map is a frame, `[matrix | steps | mean]` of residuals' coordinates, and `[matrix | steps]` of centres. Frames that all blocks of a stream
//! share lie at the front of a page of their own. The keys' matrix is the left operand of queries, 32 coordinates by d; the values' is that of
//! sums, 32 numbers by 32 coordinates. Both lie in the order of the lanes' registers. Behind the values' steps are sums of the rows of the
//! whole matrix, which integers without a sign need.
//!
//! Keys before RoPE have a frame and centres of their own: see [`super::turned`].
//!
//! Outliers are a tile's: where each stands in a left operand of bytes, of values in those of their bands, u16, then what it adds to the lane there, a
//! signed byte, 0 for none.

use kernel_dsl::pack::left_byte;

use super::turned::{signed, turned_bytes, unsigned};
use super::{BLOCK, Columns, Folded, Frame, Outlier, PcaPages, WAYS};
use crate::codec::Codec;
use crate::layout::{Codes, Layout, Operand, TILE};

/// A page of rows of `d` numbers.
#[derive(Clone, Copy, Debug)]
pub struct PcaLayout {
    pub d: usize,
    pub ranks: [usize; 2],
    /// Outliers of a tile's keys and of its values at most.
    pub outliers: [usize; 2],
    shared: [bool; 2],
    /// Keys lie before RoPE.
    pub before: bool,
    codecs: [&'static dyn Codec; 2],
}

impl PcaLayout {
    pub fn of(c: &PcaPages, d: usize) -> PcaLayout {
        PcaLayout { d, ranks: c.ranks(d), outliers: c.outliers(d), shared: c.shared(), before: c.k.before_rope, codecs: [c.halves.k.bands[0], c.halves.v.bands[0]] }
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

    /// First byte of the outliers of keys or of values.
    pub fn outliers_at(&self, side: usize) -> usize {
        self.numbers_at() + 2 * TILE + side * 3 * self.outliers[0]
    }

    pub fn tile_bytes(&self) -> usize {
        self.outliers_at(1) + 3 * self.outliers[1]
    }

    /// Bytes of a frame.
    pub fn frame_bytes(&self, side: usize) -> usize {
        match self.before && side == 0 {
            true => self.ranks[0] * self.d + turned_bytes(self.d),
            false => self.ranks[side] * (self.d + 4) + 4 * self.d,
        }
    }

    /// First byte of a frame in a page: behind the tiles, or in the page of those that are shared.
    pub fn frame_at(&self, side: usize) -> usize {
        match (self.shared[side], side) {
            (true, 0) => 0,
            (true, _) => {
                if self.shared[0] {
                    self.frame_bytes(0)
                } else {
                    0
                }
            }
            (false, 0) => self.behind_at(),
            (false, _) => self.values_behind_at(),
        }
    }

    /// First byte behind the tiles.
    pub fn behind_at(&self) -> usize {
        BLOCK / TILE * self.tile_bytes()
    }

    fn own_frame(&self, side: usize) -> usize {
        if self.shared[side] { 0 } else { self.frame_bytes(side) }
    }

    /// First byte of the map of keys' centres.
    pub fn key_ways_at(&self) -> usize {
        self.behind_at() + self.own_frame(0)
    }

    /// First byte of what a block of values has of its own.
    pub fn values_behind_at(&self) -> usize {
        self.key_ways_at() + WAYS * (self.d + 4)
    }

    /// First byte of the map of values' centres: matrix, steps, sums.
    pub fn value_ways_at(&self) -> usize {
        self.values_behind_at() + self.own_frame(1)
    }

    pub fn page_bytes(&self) -> usize {
        self.value_ways_at() + WAYS * (self.d + 4) + 4 * self.d
    }

    fn ways_at(&self, side: usize) -> usize {
        [self.key_ways_at(), self.value_ways_at()][side]
    }

    /// The coordinate of a residual at place `at` of the values' matrix: tiles of values come in bands, of which each of eight lanes
    /// has a run (`Tile::band`).
    pub fn coordinate(&self, at: usize) -> usize {
        let (band, row) = (at / 32, at % 32);
        row / 4 * (self.ranks[1] / 8) + 4 * band + row % 4
    }

    /// The coordinate at place `j` of a frame.
    fn at_place(&self, side: usize, j: usize) -> usize {
        if side == 0 { j } else { self.coordinate(j) }
    }

    /// Byte of a matrix of `places` places that belongs to number `i` of a row and place `j`.
    fn matrix_byte(&self, side: usize, places: usize, i: usize, j: usize) -> usize {
        match side {
            0 => j / 32 * (32 * self.d) + left_byte(32, self.d, j % 32, i),
            _ => (i / 32 * (places / 32) + j / 32) * 1024 + left_byte(32, 32, i % 32, j % 32),
        }
    }

    /// Puts a frame where it begins.
    pub fn write_frame(&self, bytes: &mut [u8], side: usize, frame: &Frame) {
        let (d, rank) = (self.d, self.ranks[side]);
        let mut put = |at: usize, x: &[u8]| bytes[at..at + x.len()].copy_from_slice(x);
        for j in 0..rank {
            let from = self.at_place(side, j);
            put(rank * d + 4 * j, &frame.worth[from].to_le_bytes());
            (0..d).for_each(|i| put(self.matrix_byte(side, rank, i, j), &frame.matrix[from * d + i].to_le_bytes()));
        }
        frame.mean.iter().enumerate().for_each(|(i, mean)| put(rank * (d + 4) + 4 * i, &mean.to_le_bytes()));
    }

    /// What [`Self::write_frame`] put there.
    pub fn read_frame(&self, bytes: &[u8], side: usize) -> Frame {
        let (d, rank) = (self.d, self.ranks[side]);
        let (mut matrix, mut worth) = (vec![0; rank * d], vec![0.0; rank]);
        for j in 0..rank {
            let to = self.at_place(side, j);
            worth[to] = f32::from_bits(word(bytes, rank * d + 4 * j));
            (0..d).for_each(|i| matrix[to * d + i] = bytes[self.matrix_byte(side, rank, i, j)] as i8);
        }
        let mean = (0..d).map(|i| f32::from_bits(word(bytes, rank * (d + 4) + 4 * i))).collect();
        Frame { d, matrix, worth, mean }
    }

    fn codes(&self, side: usize) -> Layout {
        let (none, own) = (Codes::of(0, 0, false), Codes::of(self.codecs[side].spec().bits, 0, false));
        Layout { k: if side == 0 { own } else { none }, v: if side == 0 { none } else { own }, d: self.ranks[side] }
    }

    /// Puts the keys (side 0) or the values (1) of a block into a page.
    pub fn write(&self, page: &mut [u8], side: usize, block: &Folded) {
        let turning = block.turning.as_ref();
        if let Some(turning) = turning {
            self.write_turned(page, self.frame_at(side), self.ways_at(side), block, turning);
        } else if !self.shared[side] {
            self.write_frame(&mut page[self.frame_at(side)..], side, &block.frame);
        }
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        let (d, ways) = (self.d, self.ways_at(side));
        for j in 0..if turning.is_some() { 0 } else { WAYS } {
            put(ways + WAYS * d + 4 * j, &block.ways.worth[j].to_le_bytes());
            (0..d).for_each(|i| put(ways + self.matrix_byte(side, WAYS, i, j), &block.ways.matrix[j * d + i].to_le_bytes()));
        }
        for i in 0..if side == 1 { d } else { 0 } {
            let sum = |matrix: &[i8]| matrix.chunks_exact(d).map(|column| i32::from(column[i])).sum::<i32>();
            put(ways + WAYS * (d + 4) + 4 * i, &(sum(&block.frame.matrix) + sum(&block.ways.matrix)).to_le_bytes());
        }
        for token in 0..BLOCK {
            let (tile, t) = (token / TILE * self.tile_bytes(), token % TILE);
            let (number, length) = (block.numbers[token], block.lengths[token]);
            let (number, length) = if turning.is_some() { signed(number, length) } else { (number, length) };
            put(tile + self.pairs_at() + (side * TILE + t) * 4, &[block.norms[token].to_le_bytes(), length.to_le_bytes()].concat());
            put(tile + self.numbers_at() + side * TILE + t, &[number]);
        }
        let most = self.outliers[side];
        for (i, tile) in block.outliers.chunks(most.max(1)).enumerate() {
            let (at, places) = (i * self.tile_bytes() + self.outliers_at(side), self.places(side));
            for (e, outlier) in tile.iter().enumerate() {
                put(at + 2 * e, &places[outlier.token * self.ranks[side] + outlier.coordinate].to_le_bytes());
                put(at + 2 * most + e, &outlier.more.to_le_bytes());
            }
        }
        let (codes, blocks) = (self.codes(side), self.ranks[side] / 8);
        let operand = [Operand::K, Operand::V][side];
        for (i, levels) in block.levels.as_chunks::<8>().0.iter().enumerate() {
            let (token, at) = (i / blocks, i % blocks);
            let tile = &mut page[token / TILE * self.tile_bytes() + [0, self.values_at()][side]..];
            codes.write_code(tile, operand, token % TILE, at, self.codecs[side].of_levels(levels.map(u32::from)));
        }
    }

    /// What [`Self::write`] put there; `bases`: the page of shared frames.
    pub fn read(&self, page: &[u8], bases: &[u8], side: usize) -> Folded {
        let (d, rank, ways) = (self.d, self.ranks[side], self.ways_at(side));
        let (frame, ways, turning) = if self.before && side == 0 {
            let (frame, ways, turning) = self.read_turned(page, self.frame_at(0), ways);
            (frame, ways, Some(turning))
        } else {
            let frame = self.read_frame(&(if self.shared[side] { bases } else { page })[self.frame_at(side)..], side);
            let matrix = (0..WAYS * d).map(|at| page[ways + self.matrix_byte(side, WAYS, at % d, at / d)] as i8).collect();
            let worth = (0..WAYS).map(|j| f32::from_bits(word(page, ways + WAYS * d + 4 * j))).collect();
            (frame, Columns { matrix, worth }, None)
        };
        let mut block = Folded { frame, ways, turning, numbers: vec![], lengths: vec![], norms: vec![], levels: vec![], outliers: vec![] };
        let half = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let (codes, operand) = (self.codes(side), [Operand::K, Operand::V][side]);
        for token in 0..BLOCK {
            let (tile, t) = (token / TILE * self.tile_bytes(), token % TILE);
            let pair = tile + self.pairs_at() + (side * TILE + t) * 4;
            block.norms.push(half(pair));
            let (number, length) = (page[tile + self.numbers_at() + side * TILE + t], half(pair + 2));
            let (number, length) = if block.turning.is_some() { unsigned(number, length) } else { (number & (WAYS as u8 - 1), length) };
            block.lengths.push(length);
            block.numbers.push(number);
            for at in 0..rank / 8 {
                let code = codes.read_code(&page[tile + [0, self.values_at()][side]..], operand, t, at);
                block.levels.extend(self.codecs[side].levels(code).map(|n| n as u8));
            }
        }
        if self.outliers[side] > 0 {
            block.outliers = (0..BLOCK / TILE).flat_map(|tile| self.read_outliers(&page[tile * self.tile_bytes()..], side)).collect();
        }
        block
    }

    /// Where the lanes of a tile stand in left operands of bytes. `[token, coordinate]`
    fn places(&self, side: usize) -> Vec<u16> {
        let rank = self.ranks[side];
        let mut places = vec![0; TILE * rank];
        for (token, j) in (0..TILE).flat_map(|t| (0..rank).map(move |j| (t, j))) {
            let (coordinate, place) = if side == 0 { (j, left_byte(TILE, rank, token, j)) } else { (self.coordinate(j), j / 32 * 1024 + left_byte(32, TILE, j % 32, token)) };
            places[token * rank + coordinate] = place as u16;
        }
        places
    }

    /// A tile's, those that add nothing included.
    fn read_outliers(&self, tile: &[u8], side: usize) -> Vec<Outlier> {
        let (rank, most, at) = (self.ranks[side], self.outliers[side], self.outliers_at(side));
        let mut lanes = vec![(0, 0); TILE * rank];
        self.places(side).into_iter().enumerate().for_each(|(i, place)| lanes[usize::from(place)] = (i / rank, i % rank));
        let of = |e: usize| {
            let place = usize::from(u16::from_le_bytes([tile[at + 2 * e], tile[at + 2 * e + 1]]));
            let (token, coordinate) = lanes[place % lanes.len()];
            Outlier { token, coordinate, more: tile[at + 2 * most + e] as i8 }
        };
        (0..most).map(of).collect()
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
