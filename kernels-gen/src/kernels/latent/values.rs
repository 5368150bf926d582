//! Values of a leaf: what weights make of its columns, on top of what came before.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use crate::kernels::softmax::fused;
use crate::latent::LEAF;

/// Whether a head's outputs fade: mostly those of none do.
#[device]
pub fn moves(fade: f32) -> bool {
    fade != 1.0_f32
}

/// A warp's `span`-th part of 16 dims under all heads; `moved`: some head's outputs fade.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn add_values(m: &DecodeMeta, room: &Shared<i8>, at: i32, weights: &Shared<u8>, fades: &Shared<f32>, units: &Shared<f32>, held: &mut ByWarp<f32>, moved: bool, w: i32, span: usize) {
    let part = w * m.spans() as i32 + span as i32;
    let values = room.line_columns::<i8>(at + (part >> 3_u32) * (128 * LEAF) as i32 + (part & 7_i32) * 16_i32);
    for j in 0..m.columns() {
        let own = span * m.columns() + j;
        let sums = mma_shared(&values, weights, 4096 * j, 1024, 32, 0).fold_cols(256);
        if moved {
            held.put(w, own, &(held.at(w, own) * &fades.cols(16 * j, 1, 16)));
        }
        held.put(w, own, &sums.cast::<f32>().map3(&units.cols(16 * j, 1, 16), &held.at(w, own), fused));
    }
}
