//! What a codec is: pure functions on blocks of eight coordinates and two stored side values.
//!
//! Everything else (layouts, rotation, sums, paging) belongs to the skeleton, so a codec fits one
//! screen and the same source runs on the CPU and, emitted as CUDA, in the fused kernels.

use kernel_dsl::codec;

/// What `Codec::decode` yields for one coordinate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Eight unsigned bytes in two words: integers for exact dot products.
    U8,
    /// Eight bf16 in four words.
    Bf16,
}

#[codec]
pub trait Codec: 'static {
    const NAME: &'static str;
    /// Code bits of one block of 8 coordinates, at most 128.
    const BITS: usize;
    /// f16 side values stored for each vector: 0, 1 or 2.
    const SIDES: usize;
    const LANE: Lane;
    /// Integer lanes: attention is then exact, the same bits on every side.
    const EXACT: bool = matches!(Self::LANE, Lane::U8);
    /// Zero is a lane value; otherwise it lies half way between two and sums are kept doubled.
    const EVEN: bool = Self::ZERO2 % 2 == 0;
    const LANE_BITS: usize = if Self::EXACT { 8 } else { 16 };
    /// Twice the lane value that stands for zero (u8 lanes).
    const ZERO2: i32;
    /// Rotate by the Hadamard matrix before coding.
    const ROTATE: bool;
    /// Divide by the l2 norm before the rotation.
    const UNIT: bool;
    /// `decode` acts on every byte by itself, which lets values be stored transposed.
    const BYTEWISE: bool;
    /// Inputs are sanitised first: NaN becomes 0, the rest is clamped to `±LIMIT`.
    const LIMIT: f32;

    /// Side values from the row's l2 norm (0 unless `UNIT`) and its largest magnitude after the
    /// rotation; the skeleton rounds them to f16 (ties to even, saturating at 65504).
    fn side(norm: f32, top: f32) -> [f32; 2];
    /// Code of one block; `side` holds the rounded f16 values.
    fn encode(y: [f32; 8], side: [f32; 2]) -> [u32; 4];
    /// Lane words in the order of the dims: byte i of word 0 is dim i (bf16: two dims a word).
    fn decode(code: [u32; 4]) -> [u32; 4];
    /// As `decode` for four tokens at once: word k holds code byte k of each token, result word i
    /// dimension i of each. Only called if `BYTEWISE`, where values are stored transposed.
    fn decode4(code: [u32; 4]) -> [u32; 8] {
        [code[0], code[1], code[2], code[3], 0_u32, 0_u32, 0_u32, 0_u32]
    }
    /// A coordinate is `scale * (lane - ZERO2 / 2)`.
    fn scale(side: [f32; 2]) -> f32;
}
