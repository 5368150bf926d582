//! What a codec is: pure functions on blocks of eight coordinates and two stored side values.
//!
//! Everything else (layouts, rotation, sums, paging) belongs to the skeleton, so a codec fits one
//! screen and the same source runs on the CPU and, emitted as CUDA, in the fused kernels. A codec is a
//! value: its fields are known when a kernel is built, so that one file can serve a whole family.

use std::fmt::Debug;

use kernel_dsl::codec;
use kernel_dsl::pack::planes;

/// What `Codec::decode` yields for one coordinate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Eight unsigned bytes in two words: integers for exact dot products.
    U8,
    /// Eight integers below 2^16: their low bytes in words 0 and 1, their high bytes in words 2 and 3.
    U16,
    /// Eight bf16 in four words.
    Bf16,
}

/// What the skeleton must know of a codec.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spec {
    /// Code bits of one block of 8 coordinates, at most 128.
    pub bits: usize,
    /// f16 side values stored for each vector: 0, 1 or 2.
    pub sides: usize,
    pub lane: Lane,
    /// Twice the lane value that stands for zero (u8 lanes).
    pub zero2: i32,
    /// The dims of a block differ in the lane that stands for zero: for dim i `zero2` is `2^(halves[i] + 1) - 1`.
    pub mixed: bool,
    pub halves: [usize; 8],
    /// Rotate by the Hadamard matrix before coding.
    pub rotate: bool,
    /// Divide by the l2 norm before the rotation.
    pub unit: bool,
    /// Rows are coded as the butterflies leave them, what divides their coordinates apart: see [`Codec::encode_over`].
    pub apart: bool,
    /// With `unit` and `rotate`: times sqrt(d) again, so that coordinates have a variance of about 1 at every d.
    pub spread: bool,
    /// Coordinates are `scale * (lane - zero2 / 2) + offset`: [`Codec::side`] gets the row's least and its largest
    /// coordinate, and rows are coded with its values as they are, not yet rounded to f16. Needs integer lanes, zero2
    /// even and above 0.
    pub affine: bool,
    /// There is a `decode4`, which lets codes of whole bytes be stored transposed.
    pub bytewise: bool,
    /// `decode` takes so many registers that one block an SM is better than spills.
    pub heavy: bool,
    /// `encode` does, so that a thread codes one block at a time.
    pub alone: bool,
    /// Inputs are sanitised first: NaN becomes 0, the rest is clamped to `±limit`.
    pub limit: f32,
    /// Bits by which `raised4` leaves the lanes of dim i higher, the same for dims 2i and 2i + 1.
    pub raised: [usize; 8],
    /// As keys dims 0..4 are left as high as dims 4..8, two of each four by 4 bits, two by 6: see [`Codec::raised_keys4`].
    pub paired: bool,
    /// As keys there is a [`Codec::twos4`] that costs less than `decode4`.
    pub twos: bool,
    /// Side values to try a row with, at least 1: see [`Codec::trial`].
    pub tries: usize,
    /// Steps of a search for a row's scale in the place of tries, see [`Codec::search`]; 0: no search.
    pub searches: usize,
    /// The side values are corrected once the row is coded: see [`Codec::correct`].
    pub corrected: bool,
    /// Coordinates under a side value of their own, a multiple of 8; 0: there is none. Needs bf16 lanes and one band.
    pub group: usize,
    /// Bits of that value: 8, 16 or 32. `decode` finds them in the word after the code's own.
    pub shared: usize,
    /// Bits of a coordinate's number in [`Codec::levels`]; 0 for codes that are no row of numbers.
    pub level_bits: usize,
}

impl Spec {
    /// A rotated codec with one scale a vector and byte lanes around `zero2 / 2`.
    pub const fn integers(bits: usize, zero2: i32) -> Spec {
        Spec {
            bits,
            sides: 1,
            lane: Lane::U8,
            zero2,
            mixed: false,
            halves: [0; 8],
            rotate: true,
            unit: false,
            apart: false,
            spread: false,
            affine: false,
            bytewise: false,
            heavy: false,
            alone: false,
            limit: 65504.0,
            raised: [0; 8],
            paired: false,
            twos: false,
            tries: 1,
            searches: 0,
            corrected: false,
            group: 0,
            shared: 0,
            level_bits: 0,
        }
    }

    /// Integer lanes: attention is then exact, the same bits on every side.
    pub fn exact(&self) -> bool {
        self.lane != Lane::Bf16
    }

    /// Lanes take two bytes.
    pub fn wide_lanes(&self) -> bool {
        self.lane == Lane::U16
    }

    /// The integer that the largest coordinate of a query becomes, at most 127 * 128, so that it splits into two
    /// signed bytes; sums with wide lanes stay below 2^31.
    pub fn query_max(&self) -> f32 {
        if self.wide_lanes() { 2032.0 } else { 16256.0 }
    }

    /// What a key's offset is multiplied by besides what a query's sums start from, which is -zero2 / 2 times its integers' sum.
    pub fn lean(&self) -> f32 {
        -2.0 / self.zero2 as f32
    }

    /// Bits by which `raised_keys4` leaves the lanes of dim i higher.
    pub fn raised_keys(&self) -> [usize; 8] {
        if self.paired { std::array::from_fn(|i| 4 + i % 4 / 2 * 2) } else { self.raised }
    }

    /// Most of them.
    pub fn most_raised(&self) -> usize {
        self.raised_keys().into_iter().fold(0, usize::max)
    }

    /// Twice the lane value that stands for zero, by the dim of a block.
    pub fn zeros2(&self) -> [i32; 8] {
        if self.mixed { self.halves.map(|half| (2 << half) - 1) } else { [self.zero2; 8] }
    }

    /// Zero is a lane value.
    pub fn even(&self) -> bool {
        self.zero2 % 2 == 0
    }

    /// Zero lies half way between two lane values: sums are kept doubled.
    pub fn odd(&self) -> bool {
        self.exact() && !self.even()
    }

    /// Widths of the planes of a code: powers of two from 8 bits up, largest first, then the tail.
    pub fn widths(&self) -> [usize; 8] {
        std::array::from_fn(|i| planes(self.bits).get(i).map_or(0, |p| p.0))
    }

    /// First code bits of the planes.
    pub fn firsts(&self) -> [usize; 8] {
        std::array::from_fn(|i| planes(self.bits).get(i).map_or(0, |p| p.1))
    }

    /// Planes of 8 bits or more.
    pub fn wide(&self) -> usize {
        planes(self.bits).iter().filter(|p| p.0 >= 8).count()
    }

    /// Bits of the last plane, below 8.
    pub fn tail(&self) -> usize {
        self.bits % 8
    }
}

#[codec]
pub trait Codec: Debug + Send + Sync {
    /// The name that hosts ask for.
    fn name(&self) -> String;

    fn spec(&self) -> Spec;

    /// Side values from the row's l2 norm (0 unless `unit`) and its largest magnitude after the
    /// rotation (`affine`: from its least and its largest coordinate); the skeleton rounds them to f16 (ties to
    /// even, saturating at 65504).
    fn side(&self, norm: f32, top: f32) -> [f32; 2];

    /// Side values of try `t`. The row is stored as the try codes it whose sum of `(y - scale * (lane - zero2 / 2))^2`
    /// is least, a fused chain in the order of the coordinates; the first of equals.
    fn trial(&self, norm: f32, top: f32, _t: usize) -> [f32; 2] {
        self.side(norm, top)
    }

    /// What a block has to say to a row's scale of `scale`: above 0 if it would lose less under a larger one, below 0 under a
    /// smaller one. Four sums a row: of every fourth block of each band, band after band; then (0 + 1) + (2 + 3).
    fn pull(&self, _y: [f32; 8], _scale: f32) -> f32 {
        0.0_f32
    }

    /// The scale after step `step` of a search, which starts at 1: the row's blocks together have said `pull`. Three steps
    /// lead to one of eight scales `2^(0.6 (2t/7 - 1))`, by halves. The last one, rounded to f16, is the row's first side
    /// value; the other is 0.
    fn search(&self, scale: f32, pull: f32, step: usize) -> f32 {
        let up = [1.2682658_f32, 1.1261731_f32, 1.061213_f32];
        let down = [0.7884783_f32, 0.887963_f32, 0.942318_f32];
        scale * (if pull > 0.0_f32 { up[step] } else { down[step] })
    }

    /// What is stored in the place of the side values that the row was coded with; `energy` is the row's sum of
    /// `(2 * lane - zero2)^2`, exact below 2^24.
    fn correct(&self, side: [f32; 2], _energy: f32) -> [f32; 2] {
        side
    }

    /// The sum of `(2 * lane - zero2)^2` of a code, for `correct`. A codec that has it cheaper says so.
    fn energy(&self, code: [u32; 4]) -> i32 {
        let w = self.decode(code);
        let mut sum = 0_i32;
        for i in 0..8 {
            let low = (w[i / 4] >> (8 * (i % 4))) & 255_u32;
            let high = if self.spec().wide_lanes() { (w[2 + i / 4] >> (8 * (i % 4))) & 255_u32 } else { 0_u32 };
            let step = ((low + high * 256_u32) * 2_u32) as i32 - self.spec().zeros2()[i];
            sum = sum + step * step;
        }
        sum
    }

    /// The side values before `correct`, as well as they can be told.
    fn plain(&self, side: [f32; 2], _energy: f32) -> [f32; 2] {
        side
    }

    /// The value that a group of coordinates is coded with, from its largest magnitude.
    fn group(&self, top: f32) -> f32 {
        top
    }

    /// The `shared` bits that are stored for it.
    fn shared(&self, group: f32) -> u32 {
        group.to_bits()
    }

    /// Code of one block, if `corrected` and not `apart` of no zero with a sign; `side` holds the rounded f16 values, with groups first the value of the block's own.
    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4];

    /// Code of one block whose coordinates are `y / over`. Only called if `apart`, which saves a product a coordinate.
    fn encode_over(&self, y: [f32; 8], side: [f32; 2], _over: f32) -> [u32; 4] {
        self.encode(y, side)
    }

    /// Lane words in the order of the dims: byte i of word 0 is dim i (bf16: two dims a word).
    fn decode(&self, code: [u32; 4]) -> [u32; 4];

    /// As `decode` for four tokens at once: word k holds code byte k of each token, result word i
    /// dimension i of each; or for four blocks. Only called if `bytewise`, where codes of whole bytes are stored transposed.
    fn decode4(&self, code: [u32; 8]) -> [u32; 8] {
        code
    }

    /// As `decode4` with the lanes of dim i `raised[i]` bits higher, which saves shifts: products undo it.
    fn raised4(&self, code: [u32; 8]) -> [u32; 8] {
        self.decode4(code)
    }

    /// As `raised4` for keys, whose heights cost a shift of the sums each: by [`Spec::raised_keys`].
    fn raised_keys4(&self, code: [u32; 8]) -> [u32; 8] {
        self.raised4(code)
    }

    /// As `decode4` for keys, in another order: word 2k + h has dims 2k and 2k + 1 of the first of blocks 2h and 2h + 1, then of the other. Word 7 is 0
    /// where codes have no more than seven bytes.
    fn twos4(&self, code: [u32; 8]) -> [u32; 8] {
        code
    }

    /// A coordinate is `scale * (lane - zero2 / 2)`.
    fn scale(&self, side: [f32; 2]) -> f32;

    /// The numbers of a code's eight levels, as other layouts store them: below 2^`level_bits`.
    fn levels(&self, _code: [u32; 4]) -> [u32; 8] {
        [0_u32; 8]
    }

    /// The code of eight levels.
    fn of_levels(&self, _levels: [u32; 8]) -> [u32; 4] {
        [0_u32; 4]
    }

    /// What is added to every coordinate of an `affine` codec.
    fn offset(&self, _side: [f32; 2]) -> f32 {
        0.0_f32
    }
}
