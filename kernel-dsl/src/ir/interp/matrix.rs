//! Whole tiles as dense row-major matrices of bit patterns: the same meaning as [`crate::tile`], op by op.

use super::scalar;
use super::trap::Wrong;
use crate::dtype::DType;
use crate::ir::{Axis, Packing, ReduceOp};
use crate::pack::TOKENS;

/// A tile's element type, rows and columns.
#[derive(Clone, Copy)]
pub struct Shape {
    pub dtype: DType,
    pub rows: usize,
    pub cols: usize,
}

/// Folds rows, columns, the rows of a quad row of lanes, or a whole vector.
pub fn reduce(op: ReduceOp, axis: Axis, s: Shape, x: &[u64]) -> Result<Vec<u64>, Wrong> {
    let op = op.joined_by();
    let join = |a: u64, b: u64| scalar::binary(op, (s.dtype, a), (s.dtype, b));
    let fold = |mut items: Vec<u64>| {
        let first = items.remove(0);
        items.into_iter().try_fold(first, join)
    };
    let column = |c: usize, from: usize, n: usize| fold((from..from + n).map(|r| x[r * s.cols + c]).collect());
    match axis {
        Axis::Rows => (0..s.cols).map(|c| column(c, 0, s.rows)).collect(),
        Axis::Cols => x.chunks(s.cols).map(|row| fold(row.to_vec())).collect(),
        Axis::Lane | Axis::Half => {
            let runs = if axis == Axis::Lane { 8 } else { 16 };
            let own = s.rows / runs;
            (0..runs * s.cols).map(|i| column(i % s.cols, i / s.cols * own, own)).collect()
        }
        Axis::All => {
            let mut lanes = x.chunks((s.cols / 32).max(1)).map(|own| fold(own.to_vec())).collect::<Result<Vec<u64>, Wrong>>()?;
            for by in [16, 8, 4, 2, 1] {
                lanes = (0..lanes.len()).map(|l| join(lanes[l], lanes[l ^ by])).collect::<Result<_, _>>()?;
            }
            Ok(vec![lanes[0]])
        }
    }
}

/// c + a b, k ascending: wrapping integers, or f32 fused multiply-adds.
pub fn mma(sa: Shape, a: &[u64], sb: Shape, b: &[u64], c: &[u64]) -> Vec<u64> {
    let step = |sum: u64, x: u64, y: u64| match sa.dtype {
        d @ (DType::U8 | DType::I8) => scalar::truncated(DType::I32, scalar::int(DType::I32, sum).wrapping_add(scalar::int(d, x) * scalar::int(sb.dtype, y)) as u64),
        d => scalar::f32_bits(scalar::float(d, x).mul_add(scalar::float(sb.dtype, y), scalar::float(DType::F32, sum))),
    };
    let n = sb.cols;
    (0..sa.rows * n).map(|i| (0..sa.cols).fold(c[i], |sum, k| step(sum, a[i / n * sa.cols + k], b[k * n + i % n]))).collect()
}

/// a b from 0 in integers, dim k of a `by[k % 8]` bits higher and the result by the highest.
pub fn mma_raised((sa, a): (Shape, &[u64]), (sb, b): (Shape, &[u64]), by: &[u8; 8]) -> Vec<u64> {
    let (n, top) = (sb.cols, by.iter().copied().fold(0, u8::max));
    let product = |i: usize, k: usize| (a[i / n * sa.cols + k] as i64 * scalar::int(sb.dtype, b[k * n + i % n])) << (top - by[k % 8]);
    (0..sa.rows * n).map(|i| scalar::truncated(DType::I32, (0..sa.cols).map(|k| product(i, k)).sum::<i64>() as u64)).collect()
}

/// Sums of a right operand of u8 over k.
pub fn sum_k(s: Shape, x: &[u64]) -> Vec<u64> {
    (0..s.cols).map(|c| (0..s.rows).map(|r| x[r * s.cols + c]).sum()).collect()
}

/// Sylvester-Hadamard, natural order, unscaled: stages 1, 2, 4, ..
pub fn hadamard(x: &[u64]) -> Vec<u64> {
    let mut y: Vec<f32> = x.iter().map(|bits| f32::from_bits(*bits as u32)).collect();
    let mut h = 1;
    while h < y.len() {
        for i in (0..y.len()).filter(|i| i & h == 0) {
            (y[i], y[i + h]) = (y[i] + y[i + h], y[i] - y[i + h]);
        }
        h *= 2;
    }
    y.into_iter().map(scalar::f32_bits).collect()
}

/// A left operand from packed codes; `decode` takes the words of a code, as many as it has parameters, to the lane words.
pub fn unpack<E>(k: Packing, bytes: &[u8], mut decode: impl FnMut(&[u32]) -> Result<Vec<u32>, E>) -> Result<Vec<u64>, E> {
    let (d, nb) = (k.d, k.blocks());
    let lane = |words: &[u32], i: usize| match k.lane {
        DType::U8 => u64::from(words[i / 4] >> (i % 4 * 8) & 0xff),
        _ => u64::from(words[i / 2] >> (i % 2 * 16) & 0xffff),
    };
    let mut out = vec![0; TOKENS * d];
    if k.feed.transposed() {
        for quad in k.quads() {
            for (i, word) in decode(&k.quad_code(bytes, &quad))?.into_iter().enumerate() {
                for j in 0..4 {
                    let (i, code) = k.feed.place(i, j);
                    let (token, block) = quad[code];
                    let dim = 8 * block + i;
                    let at = if k.feed.of_keys() { token * d + dim } else { dim * TOKENS + token };
                    out[at] = u64::from(word >> (8 * j) & 0xff);
                }
            }
        }
        return Ok(out);
    }
    for (token, block) in (0..TOKENS * nb).map(|i| (i / nb, i % nb)) {
        let words = decode(&k.code(bytes, token, block))?;
        for i in 0..8 {
            let dim = 8 * block + i;
            let at = if k.feed.of_keys() { token * d + dim } else { dim * TOKENS + token };
            out[at] = lane(&words, i);
        }
    }
    Ok(out)
}
