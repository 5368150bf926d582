//! How much of a Gaussian row each step keeps: the source of the clip factors in `codecs/e8w.rs` and `codecs/int.rs`.
//!
//!     cargo test --release -p kernels-gen --test tuning -- --ignored --nocapture

mod support;

use kernels_gen::codec::Codec;
use kernels_gen::codecs::{E8W, Int};
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
