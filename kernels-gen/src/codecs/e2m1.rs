//! Eight E2M1 numbers in a word, as `nvfp4` and `mxfp4` keep them.
//!
//! An E2M1 number in the place of a bf16's lowest exponent bits and highest mantissa bit is 2^-126 of its value,
//! subnormal ones too. Bits lie so that few steps bring two neighbours there, one in each half of a word.

use kernel_dsl::device;

/// Sign and number of a bf16.
const PLACES: u32 = 0x81c0_81c0;

/// Dims 2i and 2i + 1 are the i-th numbers of the low and of the high half. The first three lie 0, 3 and 6 bits below
/// their places, the last takes the four bits left: 14, 13, 11 and 10.
#[device]
pub fn pack_e2m1(c: [u32; 8]) -> u32 {
    let mut w = 0_u32;
    for i in 0..3 {
        let near = ((c[2 * i] & 7_u32) << (6 - 3 * i)) | ((c[2 * i] & 8_u32) << (12 - 3 * i));
        let far = ((c[2 * i + 1] & 7_u32) << (6 - 3 * i)) | ((c[2 * i + 1] & 8_u32) << (12 - 3 * i));
        w = w | near | (far << 16);
    }
    let near = ((c[6] & 3_u32) << 10) | ((c[6] & 12_u32) << 11);
    let far = ((c[7] & 3_u32) << 10) | ((c[7] & 12_u32) << 11);
    w | near | (far << 16)
}

/// Eight bf16, each 2^-126 of its number.
#[device]
pub fn spread_e2m1(w: u32) -> [u32; 4] {
    let last = ((w << 1) & 0x8000_8000_u32) | ((w >> 5) & 0x0100_0100_u32) | ((w >> 4) & 0x00c0_00c0_u32);
    [w & PLACES, (w << 3) & PLACES, (w << 6) & PLACES, last]
}
