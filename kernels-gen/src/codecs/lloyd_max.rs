//! The Lloyd-Max quantiser of a standard Gaussian, as the `turboquant` presets compute it.
//!
//! Levels are the means of their cells and cells end half way between levels; the two conditions are applied in turn.
//! The sums are those of the original (trapezoids, 200 a cell, cells cut at 10.5, at most 200 rounds), which stops a
//! little short of the fixed point: codes are interchangeable with it only if the cells are the same.
//! Source: S. P. Lloyd, Least squares quantization in PCM, 1982; vLLM's TurboQuant cache.

use std::f64::consts::TAU;

/// Trapezoids of a cell, rounds at most, and the change that ends them.
const PANELS: usize = 200;
const ROUNDS: usize = 200;
const SETTLED: f64 = 1e-10;

/// Levels start evenly over +-3.5 and are summed up to +-10.5.
const START: f64 = 3.5;
const END: f64 = 3.0 * START;

/// The `2^width` levels of a quantiser, rising.
pub fn levels(width: usize) -> Vec<f64> {
    let n = 1 << width;
    let mut levels: Vec<f64> = (0..n).map(|i| (2.0 * (i as f64 + 0.5) / n as f64 - 1.0) * START).collect();
    for _ in 0..ROUNDS {
        let mut edges = vec![-END];
        edges.extend(midpoints(&levels));
        edges.push(END);
        let means: Vec<f64> = edges.windows(2).map(|cell| mean(cell[0], cell[1])).collect();
        let change = means.iter().zip(&levels).fold(0.0, |top, (new, old)| f64::max(top, (new - old).abs()));
        if change < SETTLED {
            break;
        }
        levels = means;
    }
    levels
}

/// Where cells end: half way between neighbouring levels.
pub fn midpoints(levels: &[f64]) -> Vec<f64> {
    levels.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect()
}

/// The mean of a standard Gaussian between `a` and `b`.
fn mean(a: f64, b: f64) -> f64 {
    let mass = trapezoids(density, a, b);
    trapezoids(|x| x * density(x), a, b) / mass
}

/// The probability of a cell.
pub fn mass(a: f64, b: f64) -> f64 {
    trapezoids(density, a, b)
}

fn density(x: f64) -> f64 {
    (-x * x / 2.0).exp() / TAU.sqrt()
}

fn trapezoids(f: impl Fn(f64) -> f64, a: f64, b: f64) -> f64 {
    let h = (b - a) / PANELS as f64;
    let inner: f64 = (1..PANELS).map(|i| f(a + i as f64 * h)).sum();
    (0.5 * (f(a) + f(b)) + inner) * h
}

/// Squared error of a Gaussian source quantised to `levels`, its cells ending half way between them.
pub fn distortion(levels: &[f64]) -> f64 {
    let mut edges = vec![-END];
    edges.extend(midpoints(levels));
    edges.push(END);
    edges.windows(2).zip(levels).map(|(cell, level)| trapezoids(|x| (x - level).powi(2) * density(x), cell[0], cell[1])).sum()
}

/// Bytes of the levels above zero at so many lanes a standard deviation.
pub fn bytes(above: &[f64], step: f64) -> Vec<u8> {
    above.iter().map(|l| (128.0 + (l * step - 0.5).round()) as u8).collect()
}

/// The factor with the least rounding error that leaves the largest level a byte.
pub fn step(levels: &[f64]) -> f64 {
    let above = &levels[levels.len() / 2..];
    let mut edges = vec![0.0];
    edges.extend(midpoints(above));
    edges.push(10.0);
    let error = |step: f64| -> f64 {
        let off = |(b, l): (u8, &f64)| ((f64::from(b) - 127.5) / step - l).powi(2);
        bytes(above, step).into_iter().zip(above).zip(edges.windows(2)).map(|(level, cell)| off(level) * mass(cell[0], cell[1])).sum()
    };
    let most = 127.5 / above[above.len() - 1];
    (0..1000).map(|i| most * (1.0 - f64::from(i) * 5e-4)).min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap_or(most)
}
