//! Eigenvectors of a symmetric matrix: Householder reflections to three diagonals, then implicit QL (Golub and Van Loan,
//! 8.3). In f64 and in a fixed order, so that a block has the same basis on every machine.

/// Turns of QL for one eigenvalue; two or three are usual.
const TURNS: usize = 60;

/// Eigenvalues of `a` `[n, n]`, falling, and their eigenvectors, one a row `[n, n]`.
pub fn eigen(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside, mut vectors) = tridiagonal(a.to_vec(), n);
    ql(&mut diagonal, &mut beside, &mut vectors, n);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| diagonal[*j].total_cmp(&diagonal[*i]));
    let rows = order.iter().flat_map(|i| vectors[i * n..][..n].iter().copied());
    (order.iter().map(|i| diagonal[*i]).collect(), rows.collect())
}

/// Diagonal, the elements beside it, and the rows of the reflections' product.
fn tridiagonal(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let mut q = vec![0.0; n * n];
    (0..n).for_each(|i| q[i * n + i] = 1.0);
    let mut beside = vec![0.0; n];
    for k in 0..n.saturating_sub(1) {
        let mut v: Vec<f64> = (k + 1..n).map(|i| a[i * n + k]).collect();
        let length = dot(&v, &v).sqrt();
        let top = if v[0] > 0.0 { -length } else { length };
        beside[k] = top;
        v[0] -= top;
        let length = dot(&v, &v).sqrt();
        if length == 0.0 || v.len() == 1 {
            beside[k] = a[(k + 1) * n + k];
            continue;
        }
        v.iter_mut().for_each(|x| *x /= length);
        let mut w: Vec<f64> = (k + 1..n).map(|i| dot(&a[i * n + k + 1..(i + 1) * n], &v)).collect();
        let along = dot(&w, &v);
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= along * v);
        for (i, (wi, vi)) in w.iter().zip(&v).enumerate() {
            let row = &mut a[(k + 1 + i) * n + k + 1..(k + 2 + i) * n];
            row.iter_mut().zip(v.iter().zip(&w)).for_each(|(a, (v, w))| *a -= 2.0 * (vi * w + wi * v));
        }
        let mut sums = vec![0.0; n];
        for (row, v) in q[(k + 1) * n..].chunks_exact(n).zip(&v) {
            sums.iter_mut().zip(row).for_each(|(sum, q)| *sum += v * q);
        }
        for (row, v) in q[(k + 1) * n..].chunks_exact_mut(n).zip(&v) {
            row.iter_mut().zip(&sums).for_each(|(q, sum)| *q -= 2.0 * v * sum);
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), beside, q)
}

/// Turns the three diagonals into one; `z` `[n, n]` turns with them, row by row.
fn ql(d: &mut [f64], e: &mut [f64], z: &mut [f64], n: usize) {
    for l in 0..n {
        for _ in 0..TURNS {
            let small = |m: usize| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs());
            let m = (l..n - 1).find(|m| small(*m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = (g * g + 1.0).sqrt();
            let mut g = d[m] - d[l] + e[l] / (g + if g < 0.0 { -r } else { r });
            let (mut s, mut c, mut p, mut whole) = (1.0, 1.0, 0.0, true);
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = (f * f + g * g).sqrt();
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    whole = false;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let r = (d[i] - g) * s + 2.0 * c * b;
                p = s * r;
                d[i + 1] = g + p;
                g = c * r - b;
                let (low, high) = z[i * n..(i + 2) * n].split_at_mut(n);
                low.iter_mut().zip(high).for_each(|(x, y)| (*x, *y) = (c * *x - s * *y, s * *x + c * *y));
            }
            if whole {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

/// Eight running sums, added in order: the same on every machine, and fast on all of them.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|i| sums[i] += a[i] * b[i]);
    }
    sums.iter_mut().zip(a_rest.iter().zip(b_rest)).for_each(|(sum, (a, b))| *sum += a * b);
    sums.iter().sum()
}
