//! E8 in three bits a dimension: how the digits of a code lie in its three bytes.
//!
//! Below a digit there is a bit of room for the coset, so lanes need a mask and no shift: byte k has digits k and k + 4 in its bits 2..5
//! and 5..8, and in the two lowest ones the upper bits of digit 3 (byte 0) and 7 (byte 1). Bit 0 of the three bytes' sum is the lowest bit
//! of digit 3, bit 1 that of digit 7 plus the coset: so one sum has all that the coset is the sum of.

use kernel_dsl::device;
use kernel_dsl::math::{add_dot4, opaque, pick};

/// Bits by which [`raised4_of`] leaves lanes higher.
pub const HEIGHTS: [usize; 8] = [1, 1, 1, 1, 4, 4, 4, 4];

/// The code word of digits that are bytes: dims 0..4, dims 4..8, the last one's lowest bit plus the coset.
#[device]
pub fn packed(low: u32, high: u32) -> [u32; 4] {
    // Of a digit without a place of its own: its upper bits, and above them what the sum of lowest bits has of it.
    let three = pick(0x0105_0400_u32, 0x0b0f_0e0a_u32, add_dot4(0_u32, low, 0x0100_0000_u32));
    let seven = pick(0x0d05_0800_u32, 0x070f_020a_u32, add_dot4(0_u32, high, 0x0100_0000_u32));
    let apart = three.wrapping_mul(0x4001_u32) ^ seven.wrapping_mul(0x4100_u32);
    let own = low.wrapping_mul(4_u32).wrapping_add(high.wrapping_mul(32_u32));
    [(own & 0x00fc_fcfc_u32) | (apart & 0xff03_0303_u32), 0_u32, 0_u32, 0_u32]
}

/// The digits that were packed.
#[device]
pub fn unpack(code: u32) -> (u32, u32) {
    let sum = code ^ (code >> 8) ^ (code >> 16);
    let three = ((code << 1) & 6_u32) | (sum & 1_u32);
    let seven = ((code >> 7) & 6_u32) | ((sum >> 1) & 1_u32);
    (((code >> 2) & 0x0007_0707_u32) | (three << 24), ((code >> 5) & 0x0007_0707_u32) | (seven << 24))
}

/// Lanes of four tokens at once, byte k of their codes in word k, as high as [`HEIGHTS`] says.
#[device]
pub fn raised4_of(w: [u32; 8]) -> [u32; 8] {
    let sum = w[0] ^ w[1] ^ w[2];
    // At bit 5: the sum of the lowest bits of digits 0 to 6 is that of digit 7, and what is stored of it has the coset besides.
    let own = sum ^ (sum << 3) ^ (sum << 5);
    // It is shifted to both heights.
    let coset = opaque((own ^ (sum << 4)) & 0x2020_2020_u32);
    let (low, high) = (coset >> 4, coset >> 1);
    let mut out = [0_u32; 8];
    for k in 0..3 {
        out[k] = (w[k] & 0x1c1c_1c1c_u32) | low;
        out[4 + k] = (w[k] & 0xe0e0_e0e0_u32) | high;
    }
    out[3] = (((w[0] << 3) & 0x1818_1818_u32) | low) | ((sum << 2) & 0x0404_0404_u32);
    out[7] = (((w[1] << 6) & 0xc0c0_c0c0_u32) | high) | (own & 0x2020_2020_u32);
    out
}
