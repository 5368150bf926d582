//! Where a page keeps what turns keys before RoPE: in the place of their frame `[matrix | means | zeros | factors | speeds | unit]`, and a matrix of
//! centres in f16. Both matrices are right operands of 16 columns: 16 coordinates, then those that turn with them, and so on. A token's number is that of
//! its centre, its length has a sign.

use half::f16;
use kernel_dsl::pack::right_byte;

use super::{Columns, Folded, Frame, PcaLayout, Turning, WAYS};

/// Bytes behind the matrix of such a frame, and where in them things begin: of rows of `d` numbers.
pub const fn turned_bytes(d: usize) -> usize {
    units_at(d) + 128
}
/// Means come before: every two of them lie twice, side by side, as accumulators have them.
pub const fn zeros_at(d: usize) -> usize {
    8 * d
}
pub const fn factors_at(d: usize) -> usize {
    12 * d
}
/// Upper halves of all pairs, then the lower ones.
pub const fn speeds_at(d: usize) -> usize {
    14 * d
}
pub const fn units_at(d: usize) -> usize {
    18 * d
}

/// First byte of the mean of column `at`, and of it again.
fn mean_at(at: usize) -> [usize; 2] {
    [0, 8].map(|twice| at / 2 * 16 + at % 2 * 4 + twice)
}

/// The coordinate of column `at`.
pub fn coordinate_at(d: usize, at: usize) -> usize {
    at / 32 * 16 + at % 16 + at / 16 % 2 * (d / 2)
}

/// `row`: in bytes, of a matrix of so many.
fn byte(rows: usize, row: usize, column: usize) -> usize {
    column / 16 * 16 * rows + right_byte(rows, row, column % 16)
}

/// A token's number and length as its page has them, and back.
pub(super) fn signed(number: u8, length: u16) -> (u8, u16) {
    (number / 2, length | u16::from(number % 2) << 15)
}
pub(super) fn unsigned(number: u8, length: u16) -> (u8, u16) {
    (number % 16 * 2 + (length >> 15) as u8, length & 0x7fff)
}

impl PcaLayout {
    /// Puts a block's frame at `frame` and its centres at `ways`.
    pub(super) fn write_turned(&self, page: &mut [u8], frame: usize, ways: usize, block: &Folded, turning: &Turning) {
        let (d, rank) = (self.d, self.ranks[0]);
        let behind = frame + rank * d;
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        let zeros = Turning::zeros(&block.frame.matrix, d);
        for at in 0..d {
            let i = coordinate_at(d, at);
            (0..rank).for_each(|j| put(frame + byte(rank, j, at), &block.frame.matrix[j * d + i].to_le_bytes()));
            (0..WAYS / 2).for_each(|j| put(ways + byte(WAYS, 2 * j, at), &f16::from_f32(f32::from(turning.centres[j * d + i])).to_le_bytes()));
            mean_at(at).iter().for_each(|mean| put(behind + mean, &turning.means[i].to_le_bytes()));
            put(behind + zeros_at(d) + 4 * at, &zeros[i].to_le_bytes());
        }
        for (i, (factor, speed)) in turning.factors.iter().zip(&turning.speeds).enumerate() {
            put(behind + factors_at(d) + 4 * i, &factor.to_le_bytes());
            put(behind + speeds_at(d) + 4 * i, &((speed >> 32) as u32).to_le_bytes());
            put(behind + speeds_at(d) + 2 * d + 4 * i, &(*speed as u32).to_le_bytes());
        }
        put(behind + units_at(d), &turning.unit.to_le_bytes());
    }

    /// What [`Self::write_turned`] put there.
    pub(super) fn read_turned(&self, page: &[u8], frame: usize, ways: usize) -> (Frame, Columns, Turning) {
        let (d, rank) = (self.d, self.ranks[0]);
        let behind = frame + rank * d;
        let word = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
        let (mut matrix, mut centres, mut means) = (vec![0; rank * d], vec![0; WAYS / 2 * d], vec![0.0; d]);
        for at in 0..d {
            let i = coordinate_at(d, at);
            (0..rank).for_each(|j| matrix[j * d + i] = page[frame + byte(rank, j, at)] as i8);
            for j in 0..WAYS / 2 {
                let from = ways + byte(WAYS, 2 * j, at);
                centres[j * d + i] = f16::from_le_bytes([page[from], page[from + 1]]).to_f32() as i16;
            }
            means[i] = f32::from_bits(word(behind + mean_at(at)[0]));
        }
        let float = |at: usize| f32::from_bits(word(behind + at));
        let speed = |i: usize| u64::from(word(behind + speeds_at(d) + 4 * i)) << 32 | u64::from(word(behind + speeds_at(d) + 2 * d + 4 * i));
        let factors = (0..d / 2).map(|i| float(factors_at(d) + 4 * i)).collect();
        let turning = Turning { factors, means, centres, unit: float(units_at(d)), speeds: (0..d / 2).map(speed).collect() };
        (Frame { d, matrix, worth: vec![1.0; rank], mean: vec![0.0; d] }, Columns { matrix: vec![], worth: vec![] }, turning)
    }
}
