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
    /// Tokens of a block, and warps.
    pub rows: usize,
    pub warps: usize,
    /// Widths and first bits of the planes of a code word: `planes` of them, the first `wide` of 8 bits or more.
    pub widths: [usize; 8],
    pub firsts: [usize; 8],
    pub planes: usize,
    pub wide: usize,
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
    (((word / 4_i32) * 8_i32 + block / own) * 4_i32 + token / 8_i32) * 16_i32 + (word % 4_i32) * 4_i32 + token % 4_i32
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
pub fn store<C: Codec, T: Float>(
    m: StoreMeta,
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
            let x = if kind == 0_i32 { k.row(token * k_token_stride + head as i64 * k_head_stride, m.d) } else { v.row(token * v_token_stride + head as i64 * v_head_stride, m.d) };
            let x = x.to_f32().map(limited::<C>);
            let norm = if C::UNIT { (&x * &x).sum().sqrt() } else { 0.0_f32 };
            let x = if C::UNIT { x / fmax(norm, 1.1920929e-7_f32) } else { x };
            let y = if C::ROTATE { x.hadamard() * m.inv_sqrt_d } else { x };
            let side = C::side(norm, y.map(magnitude).max());
            rows.put_row(r * (m.d + 4) as i32, &y);
            sides.put(r * 2_i32, half_of(side[0]));
            sides.put(r * 2_i32 + 1_i32, half_of(side[1]));
        }
    }
    for i in threads(m.rows * m.d / 8) {
        let (r, block) = (i / (m.d / 8) as i32, i % (m.d / 8) as i32);
        let slot = if first + r < tokens { slots.at((first + r).min(tokens - 1_i32)) } else { -1_i64 };
        let at = place(slot.min(slot_count - 1_i64), kv_heads, head, m.page_tokens, m.tile_bytes);
        let token = (slot % 32_i64) as i32;
        let side = [sides.at(r * 2_i32), sides.at(r * 2_i32 + 1_i32)];
        let mut y = [0.0_f32; 8];
        for e in 0..8 {
            y[e] = rows.at(r * (m.d + 4) as i32 + block * 8_i32 + e as i32);
        }
        let code = C::encode(y, side);
        if m.planes > m.wide {
            tails.put(i, code[m.firsts[m.wide] / 32] >> (m.firsts[m.wide] % 32));
        }
        if (slot >= 0_i64) & (slot < slot_count) {
            if C::BYTEWISE {
                if kind == 1_i32 {
                    for b in 0..C::BITS / 8 {
                        cache.save::<u8>(at + (m.values_at as i32 + quad_byte(token, block, b, C::BITS, m.d / 8)) as i64, (code[b / 4] >> (b % 4 * 8)) as u8);
                    }
                } else {
                    put_plane(cache, at + key_byte(token, block, m.widths[0], m.d / 8) as i64, code, m.widths[0], 0);
                }
            } else {
                for p in 0..m.wide {
                    let byte = if kind == 0_i32 { key_byte(token, block, m.widths[p], m.d / 8) } else { value_byte(token, block, m.widths[p], m.d / 8) + m.values_at as i32 };
                    put_plane(cache, at + (byte + (m.d / 2 * m.firsts[p]) as i32) as i64, code, m.widths[p], m.firsts[p]);
                }
            }
            for e in 0..C::SIDES {
                if block == e as i32 {
                    cache.save::<f16>(at + (m.sides_at as i32 + ((token * 2_i32 + kind) * C::SIDES as i32 + e as i32) * 2_i32) as i64, f16::from_f32(side[e]));
                }
            }
        }
        if slot >= slot_count {
            status.put(0, 1_i32);
            status.put(3, first + r);
        }
    }
    // The tail plane: a thread gathers a whole byte of a token's bits.
    if m.planes > m.wide {
        for i in threads(m.rows * m.d / 64 * m.widths[m.wide]) {
            let (r, byte) = (i / (m.d / 64 * m.widths[m.wide]) as i32, i % (m.d / 64 * m.widths[m.wide]) as i32);
            let slot = if first + r < tokens { slots.at((first + r).min(tokens - 1_i32)) } else { -1_i64 };
            let mut x = 0_u32;
            for b in 0..8 {
                let bit = byte * 8_i32 + b as i32;
                let tail = tails.at(r * (m.d / 8) as i32 + bit / m.widths[m.wide] as i32);
                x = x | (((tail >> ((bit % m.widths[m.wide] as i32) as u32 & 31_u32)) & 1_u32) << (b % 8));
            }
            if (slot >= 0_i64) & (slot < slot_count) {
                let at = place(slot, kv_heads, head, m.page_tokens, m.tile_bytes) + (kind * m.values_at as i32 + (m.d / 2 * m.firsts[m.wide]) as i32) as i64;
                cache.save::<u8>(at + ((slot % 32_i64) as i32 * (m.d / 64 * m.widths[m.wide]) as i32 + byte) as i64, x as u8);
            }
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

#[device]
fn limited<C: Codec>(x: f32) -> f32 {
    sanitise(x, C::LIMIT)
}
