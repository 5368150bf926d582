//! Two attention states joined: every stage has the reference's bits, and the result is attention over both.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels::{Elem as Memory, merge};
use kernels_gen::reference;
use run::{assert_bytes, buffer, global, interpreted, scalar, stages};
use support::Random;

/// Rows whose states are near, far apart, and empty on either side and on both; what is empty holds NaN.
fn states(random: &mut Random, rows: usize, d: usize) -> [(Vec<f32>, Vec<f32>); 2] {
    let mut state = |empty: [usize; 2], loud: f32| {
        let (mut out, mut lse) = (random.gaussians(rows * d), random.gaussians(rows).iter().map(|x| x * loud).collect::<Vec<f32>>());
        for row in empty {
            lse[row] = f32::NEG_INFINITY;
            out[row * d..][..d].fill(f32::NAN);
        }
        (out, lse)
    };
    let (a, mut b) = (state([1, 3], 1.0), state([2, 3], 40.0));
    b.1[4] = a.1[4];
    [a, b]
}

fn every_stage<T: Float>(d: usize, memory: Memory) {
    let (rows, mut random) = (13, Random(d as u64));
    let [a, b] = states(&mut random, rows, d);
    let [x, y]: [Global<T>; 2] = [global(&a.0), global(&b.0)];
    let floats = |x: &Global<T>| x.to_vec().into_iter().map(T::to_f32).collect::<Vec<f32>>();
    let (out, lse) = reference::merge((&floats(&x), &a.1), (&floats(&y), &b.1), d);
    let (wanted, total): (Global<T>, Global<f32>) = (global(&out), Global::new(&lse));
    let (xl, yl) = (Global::new(&a.1), Global::new(&b.1));
    let m = merge::merge_meta(d);
    let grid = merge::merge_grid(&m, rows);
    let (mut o, mut l) = (global::<T>(&vec![f32::NAN; rows * d]), global::<f32>(&vec![f32::NAN; rows]));
    let args = vec![buffer(&x), buffer(&xl), buffer(&y), buffer(&yl), buffer(&o), buffer(&l), scalar(rows as i32)];
    launch(grid, || merge::merge_states::<T>(m, &x, &xl, &y, &yl, &mut o, &mut l, rows as i32));
    assert_bytes(&format!("merge d {d}, Rust"), &o.bytes, &wanted.bytes);
    assert_bytes(&format!("merge d {d}, Rust: lse"), &l.bytes, &total.bytes);
    for stage in stages(merge::merge_ir(&m, memory).unwrap()) {
        let got = interpreted("merge", &stage, grid, args.clone());
        assert_bytes(&format!("merge d {d}, {} IR", stage.0), &got[4], &wanted.bytes);
        assert_bytes(&format!("merge d {d}, {} IR: lse", stage.0), &got[5], &total.bytes);
    }
}

#[test]
fn stages_have_the_references_bits() {
    every_stage::<f32>(64, Memory::F32);
    every_stage::<bf16>(128, Memory::Bf16);
    every_stage::<f32>(256, Memory::F32);
}

#[test]
fn joined_states_are_attention_over_both() {
    let (d, rows, mut random) = (64, 13, Random(9));
    let [a, b] = states(&mut random, rows, d);
    let (out, lse) = reference::merge((&a.0, &a.1), (&b.0, &b.1), d);
    for row in 0..rows {
        let [x, y] = [&a, &b].map(|s| f64::from(s.1[row]).exp());
        let total = x + y;
        let near = |a: f64, b: f64| (a - b).abs() <= 2e-6 * b.abs().max(1.0);
        assert!(near(f64::from(lse[row]), total.ln()) || lse[row] == f32::NEG_INFINITY && total == 0.0, "row {row}: {} for {}", lse[row], total.ln());
        for i in 0..d {
            let of = |s: &(Vec<f32>, Vec<f32>), w: f64| if w > 0.0 { f64::from(s.0[row * d + i]) * w / total } else { 0.0 };
            assert!(near(f64::from(out[row * d + i]), of(&a, x) + of(&b, y)), "row {row} dim {i}");
        }
    }
    // What has no tokens changes no bit of the other.
    assert_eq!((&out[d..2 * d], lse[1]), (&b.0[d..2 * d], b.1[1]));
    assert_eq!((&out[2 * d..3 * d], lse[2]), (&a.0[2 * d..3 * d], a.1[2]));
    assert!(out[3 * d..4 * d].iter().all(|x| x.to_bits() == 0));
}
