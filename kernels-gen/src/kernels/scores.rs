//! A tile's scores: integer products of queries and keys, and what they are worth.

use super::asked::Own;
use super::decode_attention::DecodeMeta;
use super::keys::*;
use super::offset::offsets;
use super::room::Room;
use super::softmax::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Scores of the tile at byte `base` of a copy in log2 units, the scales of its values, and both sides where there are two. `of`: a query's columns,
/// which are the same in shared memory, where registers are few.
#[device]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
pub fn scores(
    m: &DecodeMeta,
    k: &[&dyn Codec],
    v: &[&dyn Codec],
    tokens: &Page,
    base: i32,
    operands: &([Tile<i8>; 4], [Tile<i8>; 4], Tile<bf16>),
    own: &Own,
    of: &(Tile<i32>, Tile<f32>, Tile<f32>),
    room: &Room,
) -> (Tile<f32>, Tile<f32>, (Tile<u32>, Tile<u32>)) {
    let pairs = side_pairs(k[0], v[0], tokens, base + m.sides_at as i32, m.parts);
    let (k_scale, v_scale) = both_scales(k[0], v[0], tokens, base + m.sides_at as i32, &pairs, m.parts);
    // Beside sums of offsets they would take too many registers.
    let (start, worth) = if k[0].spec().affine { (room.zero.cols(own.column, 1, m.cols), k_scale * &room.worths.cols(own.column, 1, m.cols)) } else { (of.0.clone(), k_scale * &of.1) };
    let steps = steps(m, k, tokens, base, &operands.0, &operands.1, &operands.2, &start);
    let x = if m.record > 0 {
        steps.map3(&worth, &of.2, fused)
    } else if k[0].spec().affine {
        steps.map3(&worth, &(offsets(k[0], tokens, base + m.sides_at as i32, 2 * (k[0].spec().sides + v[0].spec().sides), &pairs.0, m.parts) * &room.leans.cols(own.column, 1, m.cols)), fused)
    } else {
        &steps * &worth
    };
    (x, v_scale, pairs)
}
