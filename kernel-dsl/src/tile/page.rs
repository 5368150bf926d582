//! Pages of packed codes, and the ring that brings them.

use super::memory::{At, read};
use super::{Global, Shared, Tile};
use crate::dtype::{DType, Elem, bf16, f16};
use crate::ir::{Feed, Group, Layout, Packing};
use crate::pack::TOKENS;

/// A queue of asynchronous copies; on the CPU a copy is done at once.
#[derive(Clone, Debug)]
pub struct Ring {
    bytes: usize,
}

/// What one copy brought.
#[derive(Clone, Debug)]
pub struct Page {
    bytes: Vec<u8>,
}

impl Ring {
    pub fn new(_stages: usize, bytes: usize) -> Self {
        Ring { bytes }
    }
    /// An array over the slots of all warps' rings. It may be used where this warp's ring, or all of them after a barrier, holds nothing
    /// that is still wanted, and holds nothing itself once copies start again.
    pub fn between<T: Elem>(&self, len: usize) -> Shared<T> {
        Shared::poisoned(len)
    }
    /// Copies the ring's number of bytes from byte `at` on.
    pub fn copy(&self, src: &Global<u8>, at: impl At) -> Page {
        self.copy_some(src, at, self.bytes as i32)
    }
    /// The `ahead`-th copy of the next `stream` through this ring, `stages - 1` of which are started so or none: it is under way while other things
    /// are done. It must be the one that the stream makes, and be started if the stream has that turn.
    pub fn start(&self, _src: &Global<u8>, _at: impl At, _bytes: i32, _ahead: usize) {}
    /// Copies `bytes` from byte `at` on: a multiple of 16, above 0, at most the ring's. What is behind them may not be read.
    pub fn copy_some(&self, src: &Global<u8>, at: impl At, bytes: i32) -> Page {
        Page { bytes: src.bytes[at.at()..at.at() + bytes.at().min(self.bytes)].to_vec() }
    }
}

/// Codes that are unpacked where they lie.
impl Global<u8> {
    fn page(&self, at: impl At, bits: usize, d: usize) -> Page {
        Page { bytes: self.bytes[at.at()..][..TOKENS * d / 8 * bits / 8].to_vec() }
    }
    /// See [`Page::keys`], and so on.
    pub fn keys<L: LaneElem>(&self, at: impl At, bits: usize, d: usize, lane_bits: usize, decode: impl Fn([u32; 4]) -> [u32; 4]) -> Tile<L> {
        self.page(at, bits, d).keys(0, bits, d, lane_bits, decode)
    }
    pub fn values<L: LaneElem>(&self, at: impl At, bits: usize, d: usize, lane_bits: usize, decode: impl Fn([u32; 4]) -> [u32; 4]) -> Tile<L> {
        self.page(at, bits, d).values(0, bits, d, lane_bits, decode)
    }
    pub fn quads(&self, at: impl At, bits: usize, d: usize, lane_bits: usize, decode: impl Fn([u32; 8]) -> [u32; 8]) -> Tile<u8> {
        self.page(at, bits, d).quads(0, bits, d, lane_bits, decode)
    }
    pub fn key_quads(&self, at: impl At, bits: usize, d: usize, lane_bits: usize, decode: impl Fn([u32; 8]) -> [u32; 8]) -> Tile<u8> {
        self.page(at, bits, d).key_quads(0, bits, d, lane_bits, decode)
    }
}

/// Elements that a code decodes to.
pub trait LaneElem: Elem {
    fn of(words: &[u32], i: usize) -> Self;
}
impl LaneElem for u8 {
    fn of(words: &[u32], i: usize) -> u8 {
        (words[i / 4] >> (i % 4 * 8)) as u8
    }
}
impl LaneElem for bf16 {
    fn of(words: &[u32], i: usize) -> bf16 {
        bf16::from_bits((words[i / 2] >> (i % 2 * 16)) as u16)
    }
}

/// What a mark is: the highest bit of a byte, where comparisons leave it.
pub const MARK: u8 = 128;

impl Page {
    pub fn load<U: Elem>(&self, byte: impl At) -> U {
        read(&self.bytes, byte.at())
    }

    /// Four 32-bit values from a byte offset, a multiple of 16, on.
    pub fn load4<U: Elem>(&self, byte: impl At) -> [U; 4] {
        std::array::from_fn(|i| self.load(byte.at() + 4 * i))
    }

    /// `n` values of type `U`, `stride` bytes apart, one a row of an accumulator.
    pub fn rows<U: Elem>(&self, byte: impl At, stride: usize, n: usize) -> Tile<U> {
        let data = (0..n).map(|i| read(&self.bytes, byte.at() + i * stride)).collect();
        Tile { rows: n, cols: 1, layout: Layout::Rows, data }
    }

    /// One value of type `U` a token, `stride` bytes apart, as a tile of pairs.
    pub fn pairs<U: Elem>(&self, byte: impl At, stride: usize) -> Tile<U> {
        let data = super::pair::tile(|t, _| read(&self.bytes, byte.at() + t * stride));
        Tile { rows: 16, cols: 8, layout: Layout::MmaC, data }
    }

    fn codes(&self, at: usize, packing: Packing) -> impl Fn(usize, usize) -> [u32; 4] {
        move |token, block| packing.code(&self.bytes[at..], token, block)
    }

    /// Left operand [tokens, d] of the packed codes at byte `at`, each code word through `decode`.
    pub fn keys<L: LaneElem>(&self, at: impl At, bits: usize, d: usize, lane_bits: usize, decode: impl Fn([u32; 4]) -> [u32; 4]) -> Tile<L> {
        self.grouped_keys(at, bits, d, lane_bits, 0, 0, decode)
    }

    /// As `keys`, where every `dims` coordinates share `shared` bits: `decode` finds them in the word after the code's own.
    #[allow(clippy::too_many_arguments)]
    pub fn grouped_keys<L: LaneElem>(&self, at: impl At, bits: usize, d: usize, _lane_bits: usize, dims: usize, shared: usize, decode: impl Fn([u32; 4]) -> [u32; 4]) -> Tile<L> {
        let code = self.codes(at.at(), Packing { bits, d, feed: Feed::Keys, lane: L::DTYPE, group: Group { dims, bits: shared } });
        let mut data = vec![];
        for token in 0..TOKENS {
            for block in 0..d / 8 {
                let words = decode(code(token, block));
                data.extend((0..8).map(|i| L::of(&words, i)));
            }
        }
        Tile { rows: TOKENS, cols: d, layout: Layout::MmaA, data }
    }

    /// Left operand [d, tokens].
    pub fn values<L: LaneElem>(&self, at: impl At, bits: usize, d: usize, lane_bits: usize, decode: impl Fn([u32; 4]) -> [u32; 4]) -> Tile<L> {
        self.grouped_values(at, bits, d, lane_bits, 0, 0, decode)
    }

    /// As `values`, where every `dims` coordinates share `shared` bits.
    #[allow(clippy::too_many_arguments)]
    pub fn grouped_values<L: LaneElem>(&self, at: impl At, bits: usize, d: usize, _lane_bits: usize, dims: usize, shared: usize, decode: impl Fn([u32; 4]) -> [u32; 4]) -> Tile<L> {
        let code = self.codes(at.at(), Packing { bits, d, feed: Feed::Values, lane: L::DTYPE, group: Group { dims, bits: shared } });
        let decoded: Vec<[u32; 4]> = (0..TOKENS * d / 8).map(|i| decode(code(i / (d / 8), i % (d / 8)))).collect();
        let data = (0..d * TOKENS).map(|i| L::of(&decoded[i % TOKENS * (d / 8) + i / TOKENS / 8], i / TOKENS % 8)).collect();
        Tile { rows: d, cols: TOKENS, layout: Layout::MmaA, data }
    }

    /// As `values`, four tokens at a time: word k holds code byte k of each, the result word i dimension i of each.
    pub fn quads(&self, at: impl At, bits: usize, d: usize, _lane_bits: usize, decode: impl Fn([u32; 8]) -> [u32; 8]) -> Tile<u8> {
        let mut out = Tile::full(d, TOKENS, Layout::MmaA, 0_u8);
        self.by_fours(at.at(), Packing { bits, d, feed: Feed::Quads, lane: DType::U8, group: Group::default() }, decode, |token, dim, x| out.data[dim * TOKENS + token] = x);
        out
    }

    /// As `keys`, four blocks at a time, likewise; meets right operands in [`Tile::quad_order`].
    pub fn key_quads(&self, at: impl At, bits: usize, d: usize, _lane_bits: usize, decode: impl Fn([u32; 8]) -> [u32; 8]) -> Tile<u8> {
        let mut out = Tile::full(TOKENS, d, Layout::MmaA, 0_u8);
        self.by_fours(at.at(), Packing { bits, d, feed: Feed::KeyQuads, lane: DType::U8, group: Group::default() }, decode, |token, dim, x| out.data[token * d + dim] = x);
        out
    }

    /// One byte a token, a number below 32 in its lower five bits: left operand [32, tokens] that is [`MARK`] where the row is the token's number.
    /// From a byte at a multiple of 8 on.
    pub fn marks(&self, at: impl At) -> Tile<u8> {
        let data = (0..32 * TOKENS).map(|i| MARK * u8::from(self.number(at, i % TOKENS) == i / TOKENS)).collect();
        Tile { rows: 32, cols: TOKENS, layout: Layout::MmaA, data }
    }

    /// The same as left operand [tokens, 32].
    pub fn key_marks(&self, at: impl At) -> Tile<u8> {
        let data = (0..TOKENS * 32).map(|i| MARK * u8::from(self.number(at, i / 32) == i % 32)).collect();
        Tile { rows: TOKENS, cols: 32, layout: Layout::MmaA, data }
    }

    /// A byte a token, its number in the lower four bits, and a word a token from byte `pairs` on: left operand [tokens, 16] that is the upper half of
    /// the word where the column is the token's number, and else 0. Numbers begin at a multiple of 4, words at one of 16.
    pub fn key_lengths(&self, at: impl At, pairs: impl At) -> Tile<f16> {
        let half = |t: usize| f16::from_bits(u16::from_le_bytes([self.bytes[pairs.at() + 4 * t + 2], self.bytes[pairs.at() + 4 * t + 3]]));
        let of = |t: usize, column: usize| if self.number(at, t) % 16 == column { half(t) } else { f16::ZERO };
        Tile { rows: TOKENS, cols: 16, layout: Layout::MmaA, data: (0..TOKENS * 16).map(|i| of(i / 16, i % 16)).collect() }
    }

    fn number(&self, at: impl At, token: usize) -> usize {
        usize::from(self.bytes[at.at() + token] & 31)
    }

    /// As `key_quads`, where result word 2k + h has dims 2k and 2k + 1 of blocks 2h and 2h + 1; meets right operands in [`Tile::twos_order`].
    pub fn key_twos(&self, at: impl At, bits: usize, d: usize, _lane_bits: usize, decode: impl Fn([u32; 8]) -> [u32; 8]) -> Tile<u8> {
        let mut out = Tile::full(TOKENS, d, Layout::MmaA, 0_u8);
        self.by_fours(at.at(), Packing { bits, d, feed: Feed::KeyTwos, lane: DType::U8, group: Group::default() }, decode, |token, dim, x| out.data[token * d + dim] = x);
        out
    }

    /// Calls `put` with token, dimension and byte of each element of a transposed tile.
    fn by_fours(&self, at: usize, packing: Packing, decode: impl Fn([u32; 8]) -> [u32; 8], mut put: impl FnMut(usize, usize, u8)) {
        for quad in packing.quads() {
            for (i, w) in decode(packing.quad_code(&self.bytes[at..], &quad)).into_iter().enumerate() {
                for j in 0..4 {
                    let (dim, code) = packing.feed.place(i, j);
                    let (token, block) = quad[code];
                    put(token, 8 * block + dim, (w >> (8 * j)) as u8);
                }
            }
        }
    }
}
