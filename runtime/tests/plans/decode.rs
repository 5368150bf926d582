//! What is stored and attended to is the reference's, whatever the codec, the shape, the splits and the neighbours.

use crate::buffers::*;
use crate::device;
use crate::problem::Problem;
use runtime::*;

const LENS: [i32; 7] = [0, 1, 31, 33, 97, 1025, 2500];

#[test]
fn every_codec_equals_the_reference() {
    let Some(device) = device() else { return };
    for codec in kernels_gen::registry::codecs() {
        for (d, group, page, elem) in [(128, 4, 64, Elem::Bf16), (64, 1, 32, Elem::F32), (256, 8, 128, Elem::Bf16), (128, 7, 32, Elem::F32)] {
            let p = Problem::new(codec.name, d, group, page, elem, &LENS, 7);
            run(&device, &p, 0, &format!("{} d {d} group {group} page {page} {elem:?}", codec.name));
        }
    }
}

#[test]
fn the_number_of_splits_changes_no_bit() {
    let Some(device) = device() else { return };
    let p = Problem::new("int4", 128, 4, 64, Elem::Bf16, &[5000, 1, 3000], 8);
    for splits in [1, 2, 3, 5, 64] {
        run(&device, &p, splits, &format!("{splits} splits"));
    }
}

/// More sequences than run at once, short ones among long ones, of lengths around every edge: blocks take them by size.
#[test]
fn short_sequences_among_long_ones() {
    let Some(device) = device() else { return };
    let lens: Vec<i32> = (0..300).map(|i| if i % 100 == 7 { 2300 + i } else { i * 37 % 70 }).collect();
    for (name, elem, splits) in [("int4", Elem::Bf16, 0), ("e8w4", Elem::F32, 3)] {
        let p = Problem::new(name, 64, 1, 64, elem, &lens, 15);
        run(&device, &p, splits, &format!("{name}, 300 sequences, {splits} splits"));
    }
}

#[test]
fn transposed_views_and_no_lse_are_served() {
    let Some(device) = device() else { return };
    let p = Problem::new("e8w4", 128, 4, 64, Elem::Bf16, &[130], 11);
    let stream = device.stream().unwrap();
    let (store, decode, buffers) = prepare(&device, &stream, &p, 0);
    let (tokens, heads, d) = (p.slots.len(), p.shape.kv_heads, p.shape.d);
    let transposed = |x: &[f32]| -> Vec<f32> {
        let row = |head: usize, token: usize| x[(token * heads + head) * d..][..d].to_vec();
        (0..heads).flat_map(|h| (0..tokens).flat_map(move |t| row(h, t))).collect()
    };
    let (k, v) = (in_elem(&device, &stream, &transposed(&p.k), p.elem), in_elem(&device, &stream, &transposed(&p.v), p.elem));
    let rows = |base| Rows { base, token_stride: d as i64, head_stride: (tokens * d) as i64 };
    store.launch(&stream, &Store { k: rows(k.span()), v: rows(v.span()), ..buffers.store(&p) }).unwrap();
    decode.launch(&stream, &Decode { lse: None, ..buffers.decode(&p) }).unwrap();
    assert!(buffers.lse.read::<f32>(&stream).iter().all(|x| x.is_nan()), "lse was not asked for");
    decode.launch(&stream, &buffers.decode(&p)).unwrap();
    buffers.check(&stream, &p, "transposed");
}
