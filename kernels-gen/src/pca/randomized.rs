//! Principal components from a random sketch (Halko, Martinsson, Tropp 2011, algorithm 4.4): a few products with a seeded
//! Gaussian matrix and two power iterations find the span, a small exact problem the components in it.

use super::eigen::{dot, eigen};
use super::error::PcaError;
use super::random::Small;
use super::settings::{OVERSAMPLE, POWER, Settings};

/// The sketch has a seed of its own: that of the signs under these bits.
pub const APART: u64 = 0x9E37_79B9_7F4A_7C15;

/// Variances, falling, and their directions, one a row `[r, d]`, of centred rows.
pub fn sketch(settings: &Settings, centred: &[f64], d: usize) -> Result<(Vec<f64>, Vec<f64>), PcaError> {
    let n = centred.len() / d;
    let wanted = (settings.most(d) + OVERSAMPLE).min(d);
    if settings.compat && n < wanted {
        return Err(PcaError::Original { does: "panics", on: "a block of fewer rows than rank + 8" });
    }
    let r = wanted.min(n);
    let mut random = Small::new(settings.seed ^ APART);
    let mut omega = vec![0.0; n * r];
    for column in 0..r {
        (0..n).for_each(|row| omega[row * r + column] = f64::from(random.gaussian()));
    }
    let columns = turned(centred, d);
    let mut z = product(&columns, &omega, n, r);
    for _ in 0..POWER {
        let y = orthogonal(&product(centred, &z, d, r), r);
        z = orthogonal(&product(&columns, &y, n, r), r);
    }
    let q = orthogonal(&z, r);
    let inside = product(centred, &q, d, r);
    let mut gram = vec![0.0; r * r];
    for row in inside.chunks_exact(r) {
        for (x, sums) in row.iter().zip(gram.chunks_exact_mut(r)) {
            sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
        }
    }
    let (values, vectors) = eigen(&gram, r);
    let component = |v: &[f64]| q.chunks_exact(r).map(|q| dot(q, v)).collect::<Vec<f64>>();
    let directions = vectors.chunks_exact(r).flat_map(component).collect();
    Ok((values.into_iter().map(|v| v / n as f64).collect(), directions))
}

/// `A^T`, of `A` `[n, d]`.
fn turned(a: &[f64], d: usize) -> Vec<f64> {
    let n = a.len() / d;
    (0..n * d).map(|at| a[at % n * d + at / n]).collect()
}

/// `[n, inner]` by `[inner, r]`, every sum in order; eight columns at a time, whose sums stay in registers.
fn product(left: &[f64], right: &[f64], inner: usize, r: usize) -> Vec<f64> {
    let mut out = vec![0.0; left.len() / inner * r];
    for first in (0..r).step_by(8) {
        let width = 8.min(r - first);
        let mut columns = vec![[0.0; 8]; inner];
        for (column, row) in columns.iter_mut().zip(right.chunks_exact(r)) {
            column[..width].copy_from_slice(&row[first..first + width]);
        }
        for (row, out) in left.chunks_exact(inner).zip(out.chunks_exact_mut(r)) {
            let mut sums = [0.0; 8];
            for (x, column) in row.iter().zip(&columns) {
                (0..8).for_each(|c| sums[c] += x * column[c]);
            }
            out[first..first + width].copy_from_slice(&sums[..width]);
        }
    }
    out
}

/// Orthonormal columns of the same span: Gram and Schmidt, twice, which is enough. A column inside the span of those
/// before it becomes zero.
fn orthogonal(m: &[f64], r: usize) -> Vec<f64> {
    let rows = m.len() / r;
    let mut columns: Vec<Vec<f64>> = (0..r).map(|c| (0..rows).map(|row| m[row * r + c]).collect()).collect();
    for at in 0..r {
        let (done, rest) = columns.split_at_mut(at);
        let column = &mut rest[0];
        let before = dot(column, column).sqrt();
        for _ in 0..2 {
            for other in done.iter() {
                let along = dot(other, column);
                column.iter_mut().zip(other).for_each(|(x, o)| *x -= along * o);
            }
        }
        let length = dot(column, column).sqrt();
        let inverse = if length > 1e-12 * before { 1.0 / length } else { 0.0 };
        column.iter_mut().for_each(|x| *x *= inverse);
    }
    (0..rows * r).map(|at| columns[at % r][at / r]).collect()
}
