//! A closed leaf of bands of 32 channels, folded along the tree of [`super::super::leaves`].

use super::super::decode_attention::DecodeMeta;
use super::super::many::joined;
use super::super::softmax::*;
use super::super::values::total_of;
use kernel_dsl::prelude::*;

/// A band's output at a leaf's end: sums under their unit, then what the least values come to.
#[device]
pub fn closed_band(m: &DecodeMeta, sums: &Tile<i32>, high: &Tile<i32>, unit: &Tile<f32>, shift: &Tile<i64>) -> Tile<f32> {
    let low = sums.cast::<f32>();
    let o = (if m.apart { joined(&high.cast::<f32>(), &low) } else { low.fold_halves(256) }) * unit;
    o + &(total_of(shift, m.parts).cast::<f32>() * 1.4551915e-11_f32)
}

/// Places outside of shared memory for a warp's parts that wait: output of each band, maximum, sum.
#[device]
pub fn waiting_bands(m: &DecodeMeta) -> [PutBy<f32>; 6] {
    let (part, stat) = (acc(32 / m.parts, m.cols, 0.0_f32), cols(m.cols, 0.0_f32));
    [put_by(m.put_by(), &part), put_by(m.put_by(), &part), put_by(m.put_by(), &part), put_by(m.put_by(), &part), put_by(m.put_by(), &stat), put_by(m.put_by(), &stat)]
}

/// As `hold` of [`super::super::leaves`], for bands of 32 channels.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn hold_bands(m: &DecodeMeta, held: &mut Shared<f32>, by: &mut [PutBy<f32>; 6], w: i32, r: i32, last: bool, log_each: i32, o: [Tile<f32>; 4], l: Tile<f32>, top: Tile<f32>) {
    let (mut o, mut l, mut top) = (o, l, top);
    for k in strided(0_i32, log_each, 1) {
        let below = (1_i32 << (k & 31_i32)) - 1_i32;
        if (((r >> (k & 31_i32)) & 1_i32) == 1_i32) & (last | ((r & below) == below)) {
            let at = w * m.run() as i32 + k * m.part() as i32;
            let its_top = if m.away { by[4].at(k) } else { held.cols(at + m.stat() as i32, 2, m.cols) };
            let its_l = if m.away { by[5].at(k) } else { held.cols(at + (m.stat() + 1) as i32, 2, m.cols) };
            let (left, right) = (its_top.map2(&top, left_worth), its_top.map2(&top, right_worth));
            l = l.map3(&right, &(its_l * &left), fused);
            for i in 0..m.bands() {
                let at = at + (32 * i) as i32;
                let before = if m.away { by[i].at(k) } else { if m.parts == 2 { held.halves(at, m.d, m.rows(), 16) } else { held.acc(at, m.d, m.rows(), 32, m.cols) } };
                o[i] = o[i].map3(&right, &(before * &left), fused);
            }
            top = its_top.map2(&top, fmax);
        }
    }
    let place = if last { 0_i32 } else { popc(((r ^ (r + 1_i32)) >> 1) as u32) as i32 };
    sync_warp();
    if if m.away { last } else { true } {
        let at = w * m.run() as i32 + place * m.part() as i32;
        for i in 0..m.bands() {
            if m.parts == 2 {
                held.put_halves(at + (32 * i) as i32, m.d, m.rows(), &o[i]);
            } else {
                held.put_acc(at + (32 * i) as i32, 1, m.d, m.rows(), &o[i]);
            }
        }
        held.put_cols(at + m.stat() as i32, 2, m.cols, &top);
        held.put_cols(at + (m.stat() + 1) as i32, 2, m.cols, &l);
    } else {
        for i in 0..m.bands() {
            by[i].put(place, &o[i]);
        }
        by[4].put(place, &top);
        by[5].put(place, &l);
    }
    sync_warp();
}
