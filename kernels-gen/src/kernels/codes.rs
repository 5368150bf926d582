//! Where the store kernel puts a code word: planes, transposed bytes and tails of a packed tile (`kernel_dsl::pack`).

use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Byte of a plane's element of the keys: see `kernel_dsl::pack`.
#[device]
fn key_byte(token: u32, block: u32, w: usize, nb: usize) -> u32 {
    let own = (nb / 4) as u32;
    let chunk = (nb / 4 * w).min(128);
    let row = ((token & 3_u32) << 3) + (token >> 2);
    let bit = (block % own) * w as u32;
    (((bit / chunk as u32) * 32_u32 + row) * 4_u32 + block / own) * (chunk / 8) as u32 + (bit % chunk as u32) / 8_u32
}

/// Byte of a plane's element of the values.
#[device]
fn value_byte(token: u32, block: u32, w: usize, nb: usize) -> u32 {
    let own = (nb / 8) as u32;
    let chunk = (nb * w).min(128);
    let bit = ((token & 7_u32) * own + block % own) * w as u32;
    (((bit / chunk as u32) * 8_u32 + block / own) * 4_u32 + (token >> 3)) * (chunk / 8) as u32 + (bit % chunk as u32) / 8_u32
}

/// Byte k of a code word of transposed values.
#[device]
fn quad_byte(token: u32, block: u32, k: usize, bits: usize, nb: usize) -> u32 {
    let own = (nb / 8) as u32;
    let word = (((token & 7_u32) >> 2) * own + block % own) * (bits / 8) as u32 + k as u32;
    // A lane reads so many words in one go.
    let run = if nb / 4 * (bits / 8) % 4 == 0 { 4 } else { 2 };
    (((word / run as u32) * 8_u32 + block / own) * 4_u32 + (token >> 3)) * (4 * run) as u32 + (word % run as u32) * 4_u32 + (token & 3_u32)
}

/// Word k of four transposed codes of keys, the first of them `block` of `token`.
#[device]
pub fn key_quad_byte(token: u32, block: u32, k: usize, bits: usize, nb: usize) -> u32 {
    let own = (nb / 4) as u32;
    let (n, total) = ((token & 3_u32) * own + block % own, nb / 4 * (bits / 8));
    let word = (n >> 2) * (bits / 8) as u32 + k as u32;
    let run = if total % 4 == 0 { 4 } else { if total % 2 == 0 { 2 } else { 1 } };
    ((word / run as u32) * 32_u32 + (token >> 2) * 4_u32 + block / own) * (4 * run) as u32 + (word % run as u32) * 4_u32 + (n & 3_u32)
}

/// Words k to k + n - 1 side by side.
#[device]
fn put_run(cache: &mut Global<u8>, at: i64, words: [u32; 8], k: usize, n: usize) {
    if n == 4 {
        cache.save4::<u32>(at, [words[k], words[k + 1], words[k + 2], words[k + 3]]);
    } else {
        if n == 2 {
            cache.save::<i64>(at, words[k] as i64 | ((words[k + 1] as i64) << 32));
        } else {
            cache.save::<u32>(at, words[k]);
        }
    }
}

/// Words of four transposed codes that surely lie side by side.
#[device]
fn run_of(bits: usize) -> usize {
    if bits / 8 % 4 == 0 { 4 } else { if bits / 8 % 2 == 0 { 2 } else { 1 } }
}

/// Byte k of one more code becomes the upper byte of word k, the others move down.
#[device]
pub fn follow(words: [u32; 8], code: [u32; 4], bits: usize) -> [u32; 8] {
    let mut out = words;
    for k in 0..bits / 8 {
        out[k] = pick(words[k], code[k / 4], (0x4321 + k % 4 * 0x1000) as u32);
    }
    out
}

/// Byte k of the codes of up to four neighbouring blocks, the last one uppermost in `words[k]`, for transposed keys.
#[device]
pub fn put_quads(c: &dyn Codec, cache: &mut Global<u8>, at: i64, token: u32, block: u32, words: [u32; 8], d: usize) {
    let (bits, run) = (c.spec().bits, run_of(c.spec().bits));
    if d < 128 {
        for k in 0..bits / 8 {
            let byte = at + key_quad_byte(token, block, k, bits, d / 8) as i64;
            if d == 32 {
                cache.save::<u8>(byte, (words[k] >> 24) as u8);
            } else {
                cache.save::<u16>(byte, (words[k] >> 16) as u16);
            }
        }
    } else {
        for p in 0..bits / 8 / run {
            put_run(cache, at + key_quad_byte(token, block, p * run, bits, d / 8) as i64, words, p * run, run);
        }
    }
}

/// Keeps the bytes of a code word of row `r` until those of three more rows are there.
#[device]
pub fn keep(c: &dyn Codec, codes: &mut Shared<u32>, r: i32, block: i32, code: [u32; 4], nb: usize) {
    for w in 0..(c.spec().bits / 8).div_ceil(4) {
        codes.put((block + (w * nb) as i32) * 32_i32 + r, code[w]);
    }
}

/// Byte k of the codes of four rows as word k: their first words stand side by side at byte `at`, the next ones `plane` bytes on.
#[device]
fn across(codes: &Shared<u32>, at: i32, plane: usize, bits: usize) -> [u32; 8] {
    let mut words = [0_u32; 8];
    for w in 0..(bits / 8).div_ceil(4) {
        let of = codes.load4::<u32>(at + (w * plane) as i32);
        let (low, high) = ([pick(of[0], of[1], 0x5140_u32), pick(of[0], of[1], 0x7362_u32)], [pick(of[2], of[3], 0x5140_u32), pick(of[2], of[3], 0x7362_u32)]);
        for k in 0..4 {
            words[4 * w + k] = pick(low[k / 2], high[k / 2], if k % 2 == 0 { 0x5410_u32 } else { 0x7632_u32 });
        }
    }
    words
}

/// What `keep` kept of a band of `d` dims, transposed: four tokens side by side make words, others leave byte by byte.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_kept(c: &dyn Codec, cache: &mut Global<u8>, codes: &Shared<u32>, tiles: &Shared<i64>, places: &Shared<u32>, codes_at: usize, d: usize) {
    for i in threads(d) {
        let (r, block) = ((i & 7_i32) * 4_i32, i >> 3_u32);
        put_across(c, cache, codes, (block * 32_i32 + r) * 4_i32, d / 8 * 128, tiles, places, codes_at, r, block, d);
    }
}

/// One block's codes of four rows from row `r` on, transposed; `at` and `plane`: see [`across`].
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_across(c: &dyn Codec, cache: &mut Global<u8>, codes: &Shared<u32>, at: i32, plane: usize, tiles: &Shared<i64>, places: &Shared<u32>, codes_at: usize, r: i32, block: i32, d: usize) {
    let (bits, run) = (c.spec().bits, run_of(c.spec().bits));
    let (tile, place) = (tiles.at(r), places.at(r));
    let mut beside = (tile >= 0_i64) & ((place & 3_u32) == 0_u32);
    for q in 1..4 {
        beside = beside & (tiles.at(r + q as i32) == tile) & (places.at(r + q as i32) == place + q as u32);
    }
    let words = across(codes, at, plane, bits);
    if beside {
        for p in 0..bits / 8 / run {
            put_run(cache, tile + (codes_at as u32 + quad_byte(place, block as u32, p * run, bits, d / 8)) as i64, words, p * run, run);
        }
    } else {
        for q in 0..4 {
            if tiles.at(r + q as i32) >= 0_i64 {
                for k in 0..bits / 8 {
                    let byte = codes_at as u32 + quad_byte(places.at(r + q as i32), block as u32, k, bits, d / 8);
                    cache.save::<u8>(tiles.at(r + q as i32) + byte as i64, (words[k] >> (8 * q)) as u8);
                }
            }
        }
    }
}

/// One plane of a code word.
#[device]
fn put_plane(cache: &mut Global<u8>, at: i64, code: [u32; 4], w: usize, first: usize) {
    if w == 8 {
        cache.save::<u8>(at, (code[first / 32] >> (first % 32)) as u8);
    }
    if w == 16 {
        cache.save::<u16>(at, (code[first / 32] >> (first % 32)) as u16);
    }
    if w == 32 {
        cache.save::<u32>(at, code[first / 32]);
    }
    if w == 64 {
        cache.save::<i64>(at, code[first / 32] as i64 | ((code[first / 32 + 1] as i64) << 32));
    }
    if w == 128 {
        cache.save4::<u32>(at, code);
    }
}

/// The planes of 8 bits and more of one code word; `at` is the first byte of the codes of its band of `d` dims.
#[device]
pub fn put_planes(c: &dyn Codec, cache: &mut Global<u8>, at: i64, token: u32, block: u32, code: [u32; 4], values: bool, quads: bool, d: usize) {
    if quads {
        for b in 0..c.spec().bits / 8 {
            let byte = if values { quad_byte(token, block, b, c.spec().bits, d / 8) } else { key_quad_byte(token, block, b, c.spec().bits, d / 8) };
            cache.save::<u8>(at + byte as i64, (code[b / 4] >> (b % 4 * 8)) as u8);
        }
    } else {
        for p in 0..c.spec().wide() {
            let (w, first) = (c.spec().widths()[p], c.spec().firsts()[p]);
            let byte = if values { value_byte(token, block, w, d / 8) } else { key_byte(token, block, w, d / 8) };
            put_plane(cache, at + (byte + (d / 2 * first) as u32) as i64, code, w, first);
        }
    }
}

/// Whether a code is one or two words, so that those of a key's neighbouring blocks lie side by side.
#[device]
pub fn in_lines(c: &dyn Codec) -> bool {
    (c.spec().wide() == 1) & (c.spec().tail() == 0) & ((c.spec().bits == 32) | (c.spec().bits == 64))
}

/// Such codes of the four blocks from `block` on, as `put_planes` would leave them.
#[device]
pub fn put_line(c: &dyn Codec, cache: &mut Global<u8>, at: i64, token: u32, block: u32, words: [u32; 8], d: usize) {
    let bits = c.spec().bits;
    for p in 0..bits / 32 {
        put_run(cache, at + key_byte(token, block + (128 / bits * p) as u32, bits, d / 8) as i64, words, 4 * p, 4);
    }
}

/// One plane of a code word, as `put_plane` left it.
#[device]
fn plane_at(cache: &Global<u8>, at: i64, code: [u32; 4], w: usize, first: usize) -> [u32; 4] {
    let mut code = code;
    if w == 8 {
        code[first / 32] = code[first / 32] | ((cache.load::<u8>(at) as u32) << (first % 32));
    }
    if w == 16 {
        code[first / 32] = code[first / 32] | ((cache.load::<u16>(at) as u32) << (first % 32));
    }
    if w == 128 {
        code = cache.load4::<u32>(at);
    } else {
        for i in 0..w / 32 {
            code[first / 32 + i] = cache.load::<u32>(at + (4 * i) as i64);
        }
    }
    code
}

/// The code word that `put_planes`, `join_tails`, `put_groups` and what writes transposed tails left; `at` is the first byte of the codes of its band of `d` dims.
#[device]
pub fn code_at(c: &dyn Codec, cache: &Global<u8>, at: i64, token: u32, block: u32, values: bool, quads: bool, d: usize) -> [u32; 4] {
    let mut code = [0_u32; 4];
    if quads {
        for b in 0..c.spec().bits / 8 {
            let byte = if values { quad_byte(token, block, b, c.spec().bits, d / 8) } else { key_quad_byte(token, block, b, c.spec().bits, d / 8) };
            code[b / 4] = code[b / 4] | ((cache.load::<u8>(at + byte as i64) as u32) << (b % 4 * 8));
        }
        for p in 0..3 {
            let (above, w) = tail_plane(c.spec().tail(), p);
            if w > 0 {
                let first = c.spec().bits - c.spec().tail() + above;
                let bit = quad_tail_bit(token, block, w, values, d);
                let byte = cache.load::<u8>(at + ((d / 2 * first) as u32 + (bit >> 3)) as i64) as u32;
                code[first / 32] = code[first / 32] | (((byte >> (bit & 7_u32)) & ((1_u32 << w) - 1_u32)) << (first % 32));
            }
        }
    } else {
        for p in 0..c.spec().wide() {
            let (w, first) = (c.spec().widths()[p], c.spec().firsts()[p]);
            let byte = if values { value_byte(token, block, w, d / 8) } else { key_byte(token, block, w, d / 8) };
            code = plane_at(cache, at + (byte + (d / 2 * first) as u32) as i64, code, w, first);
        }
        let w = c.spec().tail();
        if w > 0 {
            // Eight blocks share the bytes of their tails; one may lie in two of them.
            let (first, bit) = (c.spec().bits - w, (block & 7_u32) * w as u32);
            let from = at + ((d / 2 * first) as u32 + token * (d / 64 * w) as u32 + (block >> 3) * w as u32) as i64;
            let (low, high) = (bit >> 3, (bit + (w - 1) as u32) >> 3);
            let both = cache.load::<u8>(from + low as i64) as u32 | ((cache.load::<u8>(from + high as i64) as u32) << 8);
            code[first / 32] = code[first / 32] | (((both >> (bit & 7_u32)) & ((1_u32 << w) - 1_u32)) << (first % 32));
        }
    }
    if c.spec().group > 0 {
        let at = at + (d / 2 * c.spec().bits) as i64 + (shared_byte(c, token, block, values, d)) as i64;
        let word = c.spec().bits.div_ceil(32);
        if c.spec().shared == 8 {
            code[word] = cache.load::<u8>(at) as u32;
        } else {
            if c.spec().shared == 16 {
                code[word] = cache.load::<u16>(at) as u32;
            } else {
                code[word] = cache.load::<u32>(at);
            }
        }
    }
    code
}

/// Byte of what the group of a block shares, behind the codes: see `put_groups`.
#[device]
fn shared_byte(c: &dyn Codec, token: u32, block: u32, values: bool, d: usize) -> u32 {
    let (groups, g) = ((d / c.spec().group) as u32, block / (c.spec().group / 8) as u32);
    let element = if values { g * 32_u32 + token } else { ((token >> 2) * groups + g) * 4_u32 + (token & 3_u32) };
    element * (c.spec().shared / 8) as u32
}

/// Keeps the bits of a code word of row `r` that fill no byte: several blocks share the bytes of theirs.
#[device]
pub fn put_tail(c: &dyn Codec, tails: &mut Shared<u32>, r: i32, block: i32, code: [u32; 4]) {
    if c.spec().tail() > 0 {
        let first = c.spec().bits - c.spec().tail();
        tails.put(block * 32_i32 + r, code[first / 32] >> (first % 32));
    }
}

/// First code bit and width of the planes of a transposed code's tail: see `kernel_dsl::pack`.
#[device]
fn tail_plane(bits: usize, p: usize) -> (usize, usize) {
    let (four, two) = (bits & 4, bits & 2);
    if p == 0 { (0, four) } else { if p == 1 { (four, two) } else { (four + two, bits & 1) } }
}

/// Bit of a block in a transposed plane of tails of `w` bits.
#[device]
fn quad_tail_bit(token: u32, block: u32, w: usize, values: bool, d: usize) -> u32 {
    let (nb, own) = ((d / 8) as u32, (d / 32) as u32);
    let (t, n, bits) = (block / own, (token & 3_u32) * own + block % own, block * w as u32);
    if values {
        (((token >> 2) * (nb * w as u32 / 8_u32) + (bits >> 3)) * 4_u32 + (token & 3_u32)) * 8_u32 + (bits & 7_u32)
    } else {
        if w == 1 { ((token >> 2) * (nb / 2_u32) + (n >> 1)) * 8_u32 + (n & 1_u32) * 4_u32 + t } else { (((token >> 2) * (w / 2) as u32 + ((t * w as u32) >> 3)) * nb + n) * 8_u32 + ((t * w as u32) & 7_u32) }
    }
}

/// A byte of a transposed plane of tails: `w` bits from bit `at` on of the tails of 8 / w blocks of row `r`.
#[device]
fn tail_byte(tails: &Shared<u32>, r: i32, i: i32, at: usize, w: usize, values: bool, d: usize) -> u32 {
    let own = (d / 32) as i32;
    let mut byte = 0_u32;
    for f in 0..8 / w {
        let block = if values { i * (8 / w) as i32 + f as i32 } else { if w == 1 { (f % 4) as i32 * own + i * 2_i32 + (f / 4) as i32 } else { (i / own * (8 / w) as i32 + f as i32) * own + i % own } };
        byte = byte | (((tails.at(block * 32_i32 + r) >> at) & ((1_u32 << w) - 1_u32)) << (w * f));
    }
    byte
}

/// The tails of one row in a transposed tile whose codes stand at `at`: bytes `part`, `part + 4`, ..
#[device]
pub fn join_quad_tails(c: &dyn Codec, cache: &mut Global<u8>, at: i64, tails: &Shared<u32>, r: i32, place: u32, part: i32, values: bool, d: usize) {
    let (nb, own) = (d / 8, (d / 32) as u32);
    for p in 0..3 {
        let (above, w) = tail_plane(c.spec().tail(), p);
        if w > 0 {
            let base = d / 2 * (c.spec().bits - c.spec().tail() + above);
            for i in strided(part, (nb * w / 8) as i32, 4) {
                let n = (place & 3_u32) * own;
                let byte = if values {
                    ((place >> 2) * (nb * w / 8) as u32 + i as u32) * 4_u32 + (place & 3_u32)
                } else {
                    if w == 1 { (place >> 2) * (nb / 2) as u32 + n / 2_u32 + i as u32 } else { ((place >> 2) * (w / 2) as u32 + i as u32 / own) * nb as u32 + n + i as u32 % own }
                };
                cache.save::<u8>(at + (base as u32 + byte) as i64, tail_byte(tails, r, i, above, w, values, d) as u8);
            }
        }
    }
}

/// The tails of eight blocks of row `r`, from `block` on, become as many bytes as a tail has bits.
#[device]
pub fn join_tails(c: &dyn Codec, cache: &mut Global<u8>, at: i64, tails: &Shared<u32>, r: i32, block: i32) {
    let w = c.spec().tail();
    let mut bytes = [0_u32; 8];
    for b in 0..8 {
        let tail = tails.at((block + b as i32) * 32_i32 + r);
        let (byte, bit) = (b * w / 8, b * w % 8);
        bytes[byte] = bytes[byte] | (tail << bit);
        if bit + w > 8 {
            bytes[byte + 1] = bytes[byte + 1] | (tail >> (8 - bit));
        }
    }
    for k in 0..w {
        cache.save::<u8>(at + k as i64, bytes[k] as u8);
    }
}
