//! Signs drawn by a seed, and the Hadamard butterfly: together they spread a residual evenly over its coordinates.

use std::ops::{Add, Sub};

use super::random::Small;

/// 1 or -1 for each of `n` coordinates.
pub fn signs(seed: u64, n: usize) -> Vec<f32> {
    let mut random = Small::new(seed);
    (0..n).map(|_| random.sign()).collect()
}

/// Sylvester's Hadamard matrix, entries 1 and -1, natural order; the length is a power of two.
pub fn hadamard<T: Copy + Add<Output = T> + Sub<Output = T>>(x: &mut [T]) {
    let mut h = 1;
    while h < x.len() {
        for pair in x.chunks_exact_mut(2 * h) {
            let (low, high) = pair.split_at_mut(h);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        h *= 2;
    }
}
