//! The rows of a block: their queries as integers in shared memory, high bytes beside low ones, and what each sees. Queries of a calibrated codec
//! come mapped, a record a segment of the sequence, see [`super::super::maps::queries`].

use super::super::decode_attention::DecodeMeta;
use super::super::many::{row_of, sees};
use super::super::query::{finite, high_part, integers, low_part};
use super::ROWS;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Makes the rows of warp `w`. Columns past the block's rows have no query and see what the last row does.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn make_rows<T: Float>(
    m: &DecodeMeta,
    k: &[&dyn Codec],
    zeros: &Shared<i32>,
    q: &Global<T>,
    query: &mut Shared<i8>,
    zero: &mut Shared<i32>,
    worths: &mut Shared<f32>,
    leans: &mut Shared<f32>,
    ends: &mut Shared<i32>,
    w: i32,
    seq: i32,
    kv_heads: i32,
    head: i32,
    tokens: i32,
    queries: i32,
    first: i32,
    scale: f32,
) {
    for c in strided(w * (ROWS * m.wide) as i32, (w + 1_i32) * (ROWS * m.wide) as i32, 1) {
        let own = c.min(m.rows() as i32 - 1_i32);
        let x = q.row(row_of(m, seq, kv_heads, head, queries, first, own) as i64 * m.d as i64, m.d).to_f32().map(finite);
        let y = if k[0].spec().rotate { x.hadamard() * m.inv_sqrt_d } else { x };
        let (z, start, worth) = integers(k, zeros, y, if own == c { 1_i32 } else { 0_i32 }, m.d, scale);
        query.put_row(c * (2 * m.d) as i32, &z.map(high_part).cast::<i8>());
        query.put_row(c * (2 * m.d) as i32 + m.d as i32, &z.map(low_part).cast::<i8>());
        zero.put(c, start);
        worths.put(c, worth);
        ends.put(c, sees(tokens, queries, first + own / m.group as i32));
        if k[0].spec().affine {
            leans.put(c, start as f32 * k[0].spec().lean() * worth);
        }
    }
    as_operands(m, query, w);
}

/// What the rows of warp `w` see.
#[device]
pub fn see_rows(m: &DecodeMeta, ends: &mut Shared<i32>, w: i32, tokens: i32, queries: i32, first: i32) {
    for i in lanes((ROWS * m.wide) as i32) {
        let c = w * (ROWS * m.wide) as i32 + i;
        ends.put(c, sees(tokens, queries, first + c.min(m.rows() as i32 - 1_i32) / m.group as i32));
    }
}

/// The rows of warp `w` from the record at byte `at`, all of it on its way at once; the one at byte `next` will be near by then. `biases`: what is
/// added to scores.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn take_rows<T: Float>(m: &DecodeMeta, records: &Global<T>, at: i64, next: i64, query: &mut Shared<i8>, zero: &mut Shared<i32>, worths: &mut Shared<f32>, biases: &mut Shared<f32>, w: i32) {
    let (own, each) = (w * (ROWS * m.wide) as i32, (m.d / 16) as i32);
    // Nobody is at the segment before any more.
    sync_warp();
    for i in lanes(32) {
        let mut words = [0_u32; 64];
        for step in 0..m.wide * m.d / 32 {
            let line = (i + (32 * step) as i32) / each;
            let of = records.load4::<u32>(at + (line_at(m, own, line) + (i + (32 * step) as i32) % each * 16_i32) as i64);
            for e in 0..4 {
                words[4 * step + e] = of[e];
            }
        }
        let row = i & (ROWS * m.wide - 1) as i32;
        let from = at + ((2 * m.lines() * m.d) as i32 + 4_i32 * (own + row)) as i64;
        let (start, worth, bias) = (records.load::<i32>(from), records.load::<f32>(from + (4 * m.lines()) as i64), records.load::<f32>(from + (8 * m.lines()) as i64));
        for step in 0..m.wide * m.d / 32 {
            query.save4::<u32>(2_i32 * own * m.d as i32 + (i + (32 * step) as i32) * 16_i32, [words[4 * step], words[4 * step + 1], words[4 * step + 2], words[4 * step + 3]]);
        }
        if i < (ROWS * m.wide) as i32 {
            zero.put(own + i, start);
            worths.put(own + i, worth);
            biases.put(own + i, bias);
        }
        records.prefetch(next + line_at(m, own, i & (2 * ROWS * m.wide - 1) as i32) as i64);
    }
    as_operands(m, query, w);
}

/// Where in a record a line of a warp's lies: high and low bytes of each row in turn.
#[device]
fn line_at(m: &DecodeMeta, own: i32, line: i32) -> i32 {
    ((line & 1_i32) * m.lines() as i32 + own + (line >> 1_u32)) * m.d as i32
}

/// Lines of bytes become operands, in the order of keys that are unpacked by fours.
#[device]
fn as_operands(m: &DecodeMeta, query: &mut Shared<i8>, w: i32) {
    sync_warp();
    for g in 0..m.wide {
        let at = (w * m.wide as i32 + g as i32) * (2 * ROWS * m.d) as i32;
        let rows = query.left(at, m.d, 2 * ROWS, m.d);
        let rows = if m.key_quads { rows.quad_order() } else { rows };
        sync_warp();
        query.save_left::<i8>(at, &rows);
    }
}
