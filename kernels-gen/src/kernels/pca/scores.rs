//! Scores of a tile's keys: levels meet a query in their block's coordinates, numbers of centres one along these; outliers are added to the
//! levels. With up to four heads a column is a byte of a query, and scores are pairs ([`kernel_dsl::tile::pair`]).

use super::super::decode_attention::DecodeMeta;
use super::super::keys::{high_half, low_half};
use super::super::softmax::{fused, sound};
use crate::codec::Codec;
use crate::pca::pages::WAYS;
use kernel_dsl::prelude::*;

/// A block's queries: high and low bytes in its residuals' coordinates, and along its centres; both bytes in each with two parts.
#[device]
pub fn query_of<T: Float>(m: &DecodeMeta, records: &Global<T>, at: i64) -> (Tile<i8>, Tile<i8>, Tile<i8>, Tile<i8>) {
    if m.behind.before {
        // A tile's own are read with it.
        (right(32, 8, 0_i8), right(32, 8, 0_i8), right(32, 8, 0_i8), right(32, 8, 0_i8))
    } else {
        folded_query::<T>(m, records, at)
    }
}

#[device]
fn folded_query<T: Float>(m: &DecodeMeta, records: &Global<T>, at: i64) -> (Tile<i8>, Tile<i8>, Tile<i8>, Tile<i8>) {
    let (places, rank) = (m.ranks[0] + WAYS, m.ranks[0]);
    let low = at + if m.parts == 2 { 0_i64 } else { (8 * places) as i64 };
    (records.operand::<i8>(at, places, 8, rank), records.operand::<i8>(low, places, 8, rank), records.operand::<i8>(at + rank as i64, places, 8, WAYS), records.operand::<i8>(low + rank as i64, places, 8, WAYS))
}

/// What its sums start from, the worth of a step with residuals and with centres, the bias.
#[device]
pub fn columns_of<T: Float>(m: &DecodeMeta, records: &Global<T>, at: i64) -> (Tile<i32>, Tile<f32>, Tile<f32>, Tile<f32>) {
    if m.behind.before { (cols(8, 0_i32), cols(8, 0.0_f32), cols(8, 0.0_f32), cols(8, 0.0_f32)) } else { folded_columns::<T>(m, records, at) }
}

#[device]
fn folded_columns<T: Float>(m: &DecodeMeta, records: &Global<T>, at: i64) -> (Tile<i32>, Tile<f32>, Tile<f32>, Tile<f32>) {
    let from = at + (16 / m.parts * (m.ranks[0] + WAYS)) as i64;
    (records.columns::<i32>(from, 4, 8), records.columns::<f32>(from + 32_i64, 4, 8), records.columns::<f32>(from + 64_i64, 4, 8), records.columns::<f32>(from + 96_i64, 4, 8))
}

/// Norms and lengths of a tile's tokens, f16, from byte `at` on.
#[device]
pub fn sides_of(m: &DecodeMeta, tokens: &Page, at: usize) -> Tile<u32> {
    (if m.parts == 2 { tokens.pairs::<u32>(at, 4) } else { tokens.rows::<u32>(at, 4, 32) }).map(sound)
}

/// Scores in log2 units, without those past the end.
#[device]
pub fn scores(m: &DecodeMeta, k: &dyn Codec, tokens: &Page, more: &mut Shared<u8>, q: &(Tile<i8>, Tile<i8>, Tile<i8>, Tile<i8>), columns: &(Tile<i32>, Tile<f32>, Tile<f32>, Tile<f32>), w: i32) -> Tile<f32> {
    let sides = sides_of(m, tokens, m.sides_at);
    let key: Tile<u8> = tokens.keys(m.keys_at[0], k.spec().bits, m.ranks[0], 8, |x| k.decode(x));
    let (mut high, mut low) = (mma(&key, &q.0, 0_i32), acc(32, m.cols, 0_i32) + &columns.0);
    if m.parts == 1 {
        low = mma(&key, &q.1, &low);
    }
    if m.behind.outliers[0] > 0 {
        let beyond = outliers_of(m, tokens, more, w);
        high = mma(&beyond, &q.0, &high);
        if m.parts == 1 {
            low = mma(&beyond, &q.1, &low);
        }
    }
    let steps = if m.parts == 2 { high.fold_onto(128, 1, &columns.0) } else { high * 128_i32 + &low };
    let marks = tokens.key_marks(m.sides_at + 256);
    let along = mma(&marks, &q.2, 0_i32);
    let along = if m.parts == 2 { along.fold_halves(128) } else { along * 128_i32 + &mma(&marks, &q.3, 0_i32) };
    let start = along.cast::<f32>().map3(&(sides.map(high_half) * &columns.2), &columns.3, fused);
    steps.cast::<f32>().map3(&(sides.map(low_half) * &columns.1), &start, fused)
}

/// Lanes that a tile's outliers of keys add, as left operand.
#[device]
pub fn outliers_of(m: &DecodeMeta, tokens: &Page, more: &mut Shared<u8>, w: i32) -> Tile<i8> {
    put_outliers(m, tokens, more, w, 0);
    more.packed_left::<i8>(w * m.more() as i32, 32, m.ranks[0])
}

/// Those of keys (0) or of values (1) are put together in the warp's `more`.
#[device]
pub fn put_outliers(m: &DecodeMeta, tokens: &Page, more: &mut Shared<u8>, w: i32, side: usize) {
    let (own, bytes, count, at) = (w * m.more() as i32, 32 * m.ranks[side], m.behind.outliers[side], m.behind.outliers_at[side]);
    sync_warp();
    for i in lanes(32) {
        for u in 0..bytes / 512 {
            more.save4::<u32>(own + (512 * u) as i32 + i * 16_i32, [0_u32; 4]);
        }
    }
    sync_warp();
    // Two at a time.
    for i in lanes(count / 2) {
        let places = tokens.load::<u32>(at as i32 + i * 4_i32);
        let pair = tokens.load::<u32>((at + 2 * count) as i32 + (i >> 1_u32) * 4_i32) >> (((i & 1_i32) * 16_i32) as u32 & 31_u32);
        for e in 0..2 {
            let (place, lanes) = ((places >> (16 * e) as u32) & (bytes as u32 - 1_u32), (pair >> (8 * e) as u32) & 255_u32);
            if lanes > 0_u32 {
                more.put(own + place as i32, lanes as u8);
            }
        }
    }
    sync_warp();
}
