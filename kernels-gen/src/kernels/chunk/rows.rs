//! The rows of a block: their queries as integers in shared memory, high bytes beside low ones, and what each sees.

use super::super::decode_attention::DecodeMeta;
use super::super::many::{row_of, sees};
use super::super::query::{finite, high_part, integers, low_part};
use super::ROWS;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Makes the rows of warp `w`. Columns past the block's rows have no query and see what the last row does.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn make_rows<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], zeros: &Shared<i32>, q: &Global<T>, query: &mut Shared<i8>, zero: &mut Shared<i32>, worths: &mut Shared<f32>, leans: &mut Shared<f32>, ends: &mut Shared<i32>, w: i32, seq: i32, kv_heads: i32, head: i32, tokens: i32, queries: i32, first: i32, scale: f32) {
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
    // As operands, in the order of keys that are unpacked by fours.
    sync_warp();
    for g in 0..m.wide {
        let at = (w * m.wide as i32 + g as i32) * (2 * ROWS * m.d) as i32;
        let rows = query.left(at, m.d, 2 * ROWS, m.d);
        let rows = if m.key_quads { rows.quad_order() } else { rows };
        sync_warp();
        query.save_left::<i8>(at, &rows);
    }
}
