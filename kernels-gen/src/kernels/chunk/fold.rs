//! Leaves of a warp's rows folded along their tree as they come: finished left parts wait in memory of the threads' own, see
//! [`super::super::leaves`].

use super::super::decode_attention::DecodeMeta;
use super::super::softmax::*;
use super::ROWS;
use kernel_dsl::prelude::*;

/// Numbers of a part's maxima and sums.
pub const STAT: usize = 2 * ROWS;

/// Where the maxima and sums of a part of eight rows stand, in turn.
#[device]
pub fn stat_at(m: &DecodeMeta, rows: i32, place: i32) -> i32 {
    (rows * m.waits() as i32 + place) * STAT as i32
}

/// A closed leaf of a warp's `g`-th eight rows, the `r`-th of a share of 2^log_share: folded with the left parts that wait for it, then put by itself. `last`: nothing more
/// comes; all ends up in place 0.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn put_leaf(m: &DecodeMeta, by: &mut PutByWarp<f32>, stats: &mut Shared<f32>, w: i32, g: usize, r: i32, last: bool, log_share: i32, leaf: [Tile<f32>; 3]) {
    let (mut o, mut l, mut top) = (leaf[0].clone(), leaf[1].clone(), leaf[2].clone());
    let rows = w * m.wide as i32 + g as i32;
    for k in strided(0_i32, log_share, 1) {
        let below = (1_i32 << (k & 31_i32)) - 1_i32;
        if (((r >> (k & 31_i32)) & 1_i32) == 1_i32) & (last | ((r & below) == below)) {
            let at = stat_at(m, rows, k);
            let (its_top, its_l) = (stats.rows(at, 2, ROWS), stats.rows(at + 1_i32, 2, ROWS));
            let (left, right) = (its_top.map2(&top, left_worth), its_top.map2(&top, right_worth));
            l = l.map3(&right, &(its_l * &left), fused);
            o = o.map3(&right, &(by.at(w, k) * &left), fused);
            top = its_top.map2(&top, fmax);
        }
    }
    let place = if last { 0_i32 } else { popc(((r ^ (r + 1_i32)) >> 1) as u32) as i32 };
    let at = stat_at(m, rows, place);
    sync_warp();
    by.put(w, place, &o);
    stats.put_rows(at, 2, &top);
    stats.put_rows(at + 1_i32, 2, &l);
    sync_warp();
}
