//! The inverse of a small matrix: Gauss-Jordan with the largest pivot of each column, in f64 and in a fixed order, so
//! that a calibration gives the same maps on every machine.

/// Inverse of `a` `[n, n]`; None where it has none.
pub fn inverse(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let (mut a, mut out) = (a.to_vec(), vec![0.0; n * n]);
    (0..n).for_each(|i| out[i * n + i] = 1.0);
    for column in 0..n {
        let size = |row: &usize| a[row * n + column].abs();
        let pivot = (column..n).max_by(|i, j| size(i).total_cmp(&size(j)))?;
        let head = a[pivot * n + column];
        if !(head.abs() > 1e-300 && head.is_finite()) {
            return None;
        }
        for m in [&mut a, &mut out] {
            (0..n).for_each(|k| m.swap(pivot * n + k, column * n + k));
            m[column * n..][..n].iter_mut().for_each(|x| *x /= head);
        }
        for row in (0..n).filter(|row| *row != column) {
            let factor = a[row * n + column];
            for m in [&mut a, &mut out] {
                let pivot_row = m[column * n..][..n].to_vec();
                m[row * n..][..n].iter_mut().zip(pivot_row).for_each(|(x, p)| *x -= factor * p);
            }
        }
    }
    Some(out)
}
