//! Store: rows of K and V become codes in their pages. A block takes `rows` tokens of one kv head.
//!
//! First a warp a row: norm, rotation, side values. Then a thread a block of eight coordinates encodes.
//! Cost: reads d elements a row, writes its code and side bytes; bound by the search for the nearest point.

use super::query::magnitude;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Shape of a store kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoreMeta {
    pub d: usize,
    pub page_tokens: usize,
    pub tile_bytes: usize,
    pub values_at: usize,
    pub sides_at: usize,
    pub side_stride: usize,
    /// Values are stored transposed, four tokens to a word.
    pub quads: bool,
    /// Tokens of a block, and warps.
    pub rows: usize,
    pub warps: usize,
    pub inv_sqrt_d: f32,
}

impl Meta for StoreMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: 2 }
    }
}

/// Rounded to f16 as it is stored; too large ones saturate.
#[device]
fn half_of(x: f32) -> f32 {
    f16::from_f32(fmin(x, 65504.0_f32)).to_f32()
}

/// Byte of a plane's element of the keys: see `kernel_dsl::pack`.
#[device]
fn key_byte(token: i32, block: i32, w: usize, nb: usize) -> i32 {
    let own = (nb / 4) as i32;
    let chunk = (nb / 4 * w).min(128);
    let row = (token % 4_i32) * 8_i32 + token / 4_i32;
    let bit = (block % own) * w as i32;
    (((bit / chunk as i32) * 32_i32 + row) * 4_i32 + block / own) * (chunk / 8) as i32 + (bit % chunk as i32) / 8_i32
}

/// Byte of a plane's element of the values.
#[device]
fn value_byte(token: i32, block: i32, w: usize, nb: usize) -> i32 {
    let own = (nb / 8) as i32;
    let chunk = (nb * w).min(128);
    let bit = ((token % 8_i32) * own + block % own) * w as i32;
    (((bit / chunk as i32) * 8_i32 + block / own) * 4_i32 + token / 8_i32) * (chunk / 8) as i32 + (bit % chunk as i32) / 8_i32
}

/// Byte k of a code word of transposed values.
#[device]
fn quad_byte(token: i32, block: i32, k: usize, bits: usize, nb: usize) -> i32 {
    let own = (nb / 8) as i32;
    let word = (((token % 8_i32) / 4_i32) * own + block % own) * (bits / 8) as i32 + k as i32;
    // A lane reads so many words in one go.
    let run = if nb / 4 * (bits / 8) % 4 == 0 { 4_i32 } else { 2_i32 };
    (((word / run) * 8_i32 + block / own) * 4_i32 + token / 8_i32) * (4_i32 * run) + (word % run) * 4_i32 + token % 4_i32
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
    for i in 0..w / 32 {
        cache.save::<u32>(at + (4 * i) as i64, code[first / 32 + i]);
    }
}

#[kernel]
pub fn store<T: Float>(
    m: StoreMeta,
    kc: &dyn Codec,
    vc: &dyn Codec,
    k: &Global<T>,            // [tokens, kv_heads, d], strided
    v: &Global<T>,            // likewise
    slots: &Global<i64>,      // [tokens]; below 0: padding
    cache: &mut Global<u8>,   // [pages, kv_heads, block]
    status: &mut Global<i32>, // bad slot, bad page, bad length, where
    tokens: i32,
    kv_heads: i32,
    slot_count: i64,
    k_token_stride: i64,
    k_head_stride: i64,
    v_token_stride: i64,
    v_head_stride: i64,
) {
    let (first, head, kind) = (block_id(0) * m.rows as i32, block_id(1), block_id(2));
    let mut rows = shared::<f32>(m.rows * (m.d + 4));
    let mut sides = shared::<f32>(m.rows * 2);
    let mut tails = shared::<u32>(m.rows * m.d / 8);
    for w in warps(m.warps) {
        for r in strided(w, m.rows as i32, m.warps as i32) {
            let token = (first + r).min(tokens - 1_i32) as i64;
            if kind == 0_i32 {
                let x = k.row(token * k_token_stride + head as i64 * k_head_stride, m.d);
                prepare::<T>(kc, x, r, m.d, m.inv_sqrt_d, &mut rows, &mut sides);
            } else {
                let x = v.row(token * v_token_stride + head as i64 * v_head_stride, m.d);
                prepare::<T>(vc, x, r, m.d, m.inv_sqrt_d, &mut rows, &mut sides);
            }
        }
    }
    for i in threads(m.rows * m.d / 8) {
        let (r, block) = (i / (m.d / 8) as i32, i % (m.d / 8) as i32);
        let slot = if first + r < tokens { slots.at((first + r).min(tokens - 1_i32)) } else { -1_i64 };
        let at = place(slot.min(slot_count - 1_i64), kv_heads, head, m.page_tokens, m.tile_bytes);
        let token = (slot % 32_i64) as i32;
        let inside = (slot >= 0_i64) & (slot < slot_count);
        let side = [sides.at(r * 2_i32), sides.at(r * 2_i32 + 1_i32)];
        let mut y = [0.0_f32; 8];
        for e in 0..8 {
            y[e] = rows.at(r * (m.d + 4) as i32 + block * 8_i32 + e as i32);
        }
        if kind == 0_i32 {
            let code = kc.encode(y, side);
            put_tail(kc, &mut tails, i, code);
            if inside {
                put_planes(kc, cache, at, token, block, code, false, false, m.d);
                put_sides(kc, cache, at + (m.sides_at as i32 + token * m.side_stride as i32) as i64, block, side);
            }
        } else {
            let code = vc.encode(y, side);
            put_tail(vc, &mut tails, i, code);
            if inside {
                put_planes(vc, cache, at + m.values_at as i64, token, block, code, true, m.quads, m.d);
                put_sides(vc, cache, at + (m.sides_at as i32 + token * m.side_stride as i32 + (2 * kc.spec().sides) as i32) as i64, block, side);
            }
        }
        if slot >= slot_count {
            status.put(0, 1_i32);
            status.put(3, first + r);
        }
    }
    if kc.spec().tail() + vc.spec().tail() > 0 {
        for i in threads(m.rows * m.d / 64 * kc.spec().tail().max(vc.spec().tail())) {
            if kind == 0_i32 {
                gather_tail(kc, cache, &tails, slots, i, first, tokens, slot_count, kv_heads, head, m.rows, m.d, m.page_tokens, m.tile_bytes, 0);
            } else {
                gather_tail(vc, cache, &tails, slots, i, first, tokens, slot_count, kv_heads, head, m.rows, m.d, m.page_tokens, m.tile_bytes, m.values_at);
            }
        }
    }
}

/// A row, normalised and rotated, and its side values go to shared memory.
#[device]
fn prepare<T: Float>(c: &dyn Codec, x: Tile<T>, r: i32, d: usize, inv_sqrt_d: f32, rows: &mut Shared<f32>, sides: &mut Shared<f32>) {
    let x = x.to_f32().map(|x| sanitise(x, c.spec().limit));
    let norm = if c.spec().unit { (&x * &x).sum().sqrt() } else { 0.0_f32 };
    let x = if c.spec().unit { x / fmax(norm, 1.1920929e-7_f32) } else { x };
    let y = if c.spec().rotate { x.hadamard() * inv_sqrt_d } else { x };
    let side = c.side(norm, y.map(magnitude).max());
    rows.put_row(r * (d + 4) as i32, &y);
    sides.put(r * 2_i32, half_of(side[0]));
    sides.put(r * 2_i32 + 1_i32, half_of(side[1]));
}

/// The planes of 8 bits and more of one code word.
#[device]
fn put_planes(c: &dyn Codec, cache: &mut Global<u8>, at: i64, token: i32, block: i32, code: [u32; 4], values: bool, quads: bool, d: usize) {
    if quads {
        for b in 0..c.spec().bits / 8 {
            cache.save::<u8>(at + quad_byte(token, block, b, c.spec().bits, d / 8) as i64, (code[b / 4] >> (b % 4 * 8)) as u8);
        }
    } else {
        for p in 0..c.spec().wide() {
            let (w, first) = (c.spec().widths()[p], c.spec().firsts()[p]);
            let byte = if values { value_byte(token, block, w, d / 8) } else { key_byte(token, block, w, d / 8) };
            put_plane(cache, at + (byte + (d / 2 * first) as i32) as i64, code, w, first);
        }
    }
}

#[device]
fn put_sides(c: &dyn Codec, cache: &mut Global<u8>, at: i64, block: i32, side: [f32; 2]) {
    for e in 0..c.spec().sides {
        if block == e as i32 {
            cache.save::<f16>(at + (2 * e) as i64, f16::from_f32(side[e]));
        }
    }
}

#[device]
fn put_tail(c: &dyn Codec, tails: &mut Shared<u32>, i: i32, code: [u32; 4]) {
    if c.spec().tail() > 0 {
        let first = c.spec().bits - c.spec().tail();
        tails.put(i, code[first / 32] >> (first % 32));
    }
}

/// The tail plane: a thread gathers a whole byte of a token's bits.
#[device]
fn gather_tail(c: &dyn Codec, cache: &mut Global<u8>, tails: &Shared<u32>, slots: &Global<i64>, i: i32, first: i32, tokens: i32, slot_count: i64, kv_heads: i32, head: i32, rows: usize, d: usize, page_tokens: usize, tile_bytes: usize, codes_at: usize) {
    let w = c.spec().tail();
    if w > 0 {
        let (r, byte) = (i / (d / 64 * w) as i32, i % (d / 64 * w) as i32);
        let slot = if (first + r < tokens) & (r < rows as i32) { slots.at((first + r).min(tokens - 1_i32)) } else { -1_i64 };
        if (slot >= 0_i64) & (slot < slot_count) {
            let mut x = 0_u32;
            for b in 0..8 {
                let bit = byte * 8_i32 + b as i32;
                let tail = tails.at(r * (d / 8) as i32 + bit / w as i32);
                x = x | (((tail >> ((bit % w as i32) as u32 & 31_u32)) & 1_u32) << (b % 8));
            }
            let at = place(slot, kv_heads, head, page_tokens, tile_bytes) + (codes_at + d / 2 * (c.spec().bits - w)) as i64;
            cache.save::<u8>(at + ((slot % 32_i64) as i32 * (d / 64 * w) as i32 + byte) as i64, x as u8);
        }
    }
}

/// Byte offset of the tile that holds a slot.
#[device]
fn place(slot: i64, kv_heads: i32, head: i32, page_tokens: usize, tile_bytes: usize) -> i64 {
    let tiles = (page_tokens / 32) as i64;
    let page = (slot / page_tokens as i64) * kv_heads as i64 + head as i64;
    (page * tiles + (slot / 32_i64) % tiles) * tile_bytes as i64
}
