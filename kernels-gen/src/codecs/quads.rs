//! Four codes side by side, a byte of each in a word: what codecs that decode them so have in common.

use kernel_dsl::device;

/// Byte k of a code as word k.
#[device]
pub fn bytes_of(code: [u32; 4]) -> [u32; 8] {
    let mut w = [0_u32; 8];
    for k in 0..8 {
        w[k] = (code[k / 4] >> (8 * (k % 4))) & 255_u32;
    }
    w
}

/// The lowest bytes of eight words, side by side.
#[device]
pub fn words_of(lanes: [u32; 8]) -> [u32; 4] {
    let mut w = [0_u32; 4];
    for i in 0..8 {
        w[i / 4] = w[i / 4] | ((lanes[i] & 255_u32) << (8 * (i % 4)));
    }
    w
}

/// Four words from word `at` on.
#[device]
pub fn rest_of(w: [u32; 8], at: usize) -> [u32; 4] {
    [w[at], w[at + 1], w[at + 2], w[at + 3]]
}

/// Bytes at the height of lanes.
#[device]
pub fn lowered4(w: [u32; 8], by: [usize; 8]) -> [u32; 8] {
    let mut out = w;
    for i in 0..8 {
        if by[i] > 0 {
            out[i] = (w[i] >> by[i]) & ((255_u32 >> by[i]) * 0x0101_0101_u32);
        }
    }
    out
}
