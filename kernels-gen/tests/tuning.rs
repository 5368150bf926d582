//! Numbers that decided something: how much of a Gaussian row each step keeps, the source of the clip factors in
//! `codecs/e8w.rs` and `codecs/int.rs`; what bits of its own for each head would be worth to a calibrated codec.
//!
//!     cargo test --release -p kernels-gen --test tuning -- --ignored --nocapture

mod support;

use kernels_gen::codec::Codec;
use kernels_gen::codecs::{E8W, Int};
use kernels_gen::layout::Operand;
use kernels_gen::preset::{Calibration, ERRORS};
use kernels_gen::registry::Half;
use support::{Random, relative_error2};

const ROWS: usize = 2000;

fn error(codec: impl Codec + 'static, d: usize) -> f64 {
    let c = Half::of(Box::leak(Box::new(codec)));
    let x = Random(11).gaussians(ROWS * d);
    let y: Vec<f32> = x.chunks(d).flat_map(|row| c.decode_row(&c.encode_row(row), d)).collect();
    relative_error2(&y, &x)
}

/// The best single factor, and the best three a constant ratio apart around a middle.
fn best(name: &str, width: usize, of: impl Fn(usize, [f32; 3]) -> f64) {
    let grid: Vec<f32> = (0..26).map(|i| 0.5 + 0.02 * i as f32).collect();
    let least = |all: Vec<(f64, [f32; 3])>| all.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let one = least(grid.iter().map(|&f| (of(1, [f; 3]), [f; 3])).collect());
    let ratios = [1.06_f32, 1.1, 1.14, 1.2];
    let three = least(grid.iter().filter(|f| (**f - one.1[0]).abs() < 0.07).flat_map(|&f| ratios.map(|r| [f, f / r, f * r])).map(|c| (of(3, c), c)).collect());
    println!("{name}{width}: one {:.3} {:.4e}, three {:.3?} {:.4e} ({:+.1} %)", one.1[0], one.0, three.1, three.0, 100.0 * (three.0 / one.0 - 1.0));
}

#[test]
#[ignore = "prints a table"]
fn clip_factors() {
    for width in 2..=7 {
        best("e8w", width, |tries, clips| error(E8W::with(width, tries, clips), 128));
    }
    for width in 2..=4 {
        best("int", width, |tries, clips| error(Int::with(width, true, tries, clips), 128));
    }
}

/// The least error of bands with these energies, 1 to 7 bits each and `budget` together.
fn least(energies: &[f64], budget: usize) -> f64 {
    let mut best = vec![f64::INFINITY; budget + 1];
    best[0] = 0.0;
    for energy in energies {
        let before = best;
        let cost = |spent: usize| (1..=7).filter(|w| *w <= spent).map(|w| before[spent - w] + energy * ERRORS[w]).fold(f64::INFINITY, f64::min);
        best = (0..=budget).map(cost).collect();
    }
    best.into_iter().fold(f64::INFINITY, f64::min)
}

/// Error by the bundled calibration's own measure when every kv head has widths of its own, over that of widths shared by
/// the heads of a layer, at as many bits: all bits of the layer's to share out, or each head's as many as another's.
#[test]
#[ignore = "prints a table"]
fn bits_of_heads() {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/qwen3-tiny/kvfuse.calibration")).unwrap();
    let found = Calibration::from_bytes(&file).unwrap();
    for (operand, bands) in [(Operand::K, 4), (Operand::V, 2)] {
        for bits in [2, 3, 4, 6] {
            let (d, heads, fit) = (found.shape.d, found.shape.kv_heads, found.fit(operand));
            let layer = |energy: &[f32]| -> [f64; 2] {
                let of = |band: &[f32]| band.iter().map(|e| f64::from(*e)).sum::<f64>();
                let own: Vec<Vec<f64>> = energy.chunks(d).map(|head| head.chunks(d / bands).map(of).collect()).collect();
                let shared: Vec<f64> = (0..bands).map(|b| own.iter().map(|head| head[b]).sum()).collect();
                let common = least(&shared, bits * bands);
                [least(&own.concat(), bits * bands * heads) / common, own.iter().map(|head| least(head, bits * bands)).sum::<f64>() / common]
            };
            let all: Vec<[f64; 2]> = fit.energy.chunks(d * heads).map(layer).collect();
            let mean = |i: usize| all.iter().map(|x| x[i]).sum::<f64>() / all.len() as f64;
            println!("{operand:?} {bits} bits: shared out {:.3}, equal heads {:.3}; layers {:.3?}", mean(0), mean(1), all);
        }
    }
}
