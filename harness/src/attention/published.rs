//! Formats as others publish them, for comparison with their tables: round trips, no packed bytes, no kernel. Ours of the
//! same name differ where the format cannot be packed into the bits that it counts.
//!
//! * `kakeya_e8qQ`, `kakeya_d4qQ`: the nearest lattice point, then every coordinate clamped to -Q..Q, so that points at
//!   the edge leave the lattice. `e8qQ` and `d4qQ` look for the nearest point within the box.
//! * `symmetric_intB`: 2^B - 1 levels around 0. `intB` uses all 2^B, half a step off.
//! * `scaled_e4m3_64`: E4M3 under an f32 scale for 64 numbers, multiplied in f32. `fp8_e4m3_64` stores as much, its scales to 8 significant bits, which a bf16 lane holds.

use half::f16;
use kernels_gen::reference::rotate;
use kernels_gen::registry::codec;

/// One of these formats.
#[derive(Debug)]
pub struct Published {
    pub name: String,
    format: Format,
}

#[derive(Debug)]
enum Format {
    /// dims of a block, levels to either side
    Lattice(usize, u32),
    /// bits
    Symmetric(u32),
    Scaled,
}

/// Numbers under one scale of `scaled_e4m3_64`.
const SCALED: usize = 64;

impl Published {
    /// The format of that name, kept for the rest of the program.
    pub fn of(name: &str) -> Option<&'static Published> {
        let number = |prefix: &str, most: u32| {
            let number: u32 = name.strip_prefix(prefix)?.parse().ok()?;
            (1..=most).contains(&number).then_some(number)
        };
        let format = number("kakeya_e8q", 255).map(|q| Format::Lattice(8, q));
        let format = format.or_else(|| number("kakeya_d4q", 255).map(|q| Format::Lattice(4, q)));
        let format = format.or_else(|| number("symmetric_int", 8).filter(|b| *b > 1).map(Format::Symmetric));
        let format = format.or_else(|| (name == "scaled_e4m3_64").then_some(Format::Scaled))?;
        Some(Box::leak(Box::new(Published { name: name.into(), format })))
    }

    /// Bits that a row of `d` numbers is said to take, its f16 values included.
    pub fn row_bits(&self, d: usize) -> usize {
        match self.format {
            Format::Lattice(n, q) => {
                let free = if n == 4 { 1.0 } else { 0.0 };
                d / n * (n as f64 * f64::from(2 * q + 1).log2() - free).ceil() as usize + 32
            }
            Format::Symmetric(bits) => d * bits as usize + 16,
            Format::Scaled => 8 * d + 32 * d.div_ceil(SCALED),
        }
    }

    /// What a reader sees of a row.
    pub fn round_trip(&self, x: &[f32]) -> Vec<f32> {
        match self.format {
            Format::Lattice(n, q) => lattice(x, n, q as f32),
            Format::Symmetric(bits) => symmetric(x, ((1_u32 << (bits - 1)) - 1) as f32),
            Format::Scaled => x.chunks(SCALED).flat_map(scaled).collect(),
        }
    }
}

/// The largest E4M3 number is 448.
fn scaled(x: &[f32]) -> Vec<f32> {
    let scale = top(x, 1e-10) / 448.0;
    let Ok(e4m3) = codec("fp8_e4m3") else { return vec![f32::NAN; x.len()] };
    let y: Vec<f32> = x.iter().map(|x| x / scale).collect();
    e4m3.k.decode_row(&e4m3.k.encode_row(&y), y.len()).into_iter().map(|y| y * scale).collect()
}

fn rounded(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

fn top(y: &[f32], least: f32) -> f32 {
    y.iter().fold(least, |top, y| top.max(y.abs()))
}

fn lattice(x: &[f32], n: usize, q: f32) -> Vec<f32> {
    let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::EPSILON);
    let mut y: Vec<f32> = x.iter().map(|x| x / norm).collect();
    rotate(&mut y);
    let step = rounded(top(&y, f32::EPSILON)) / q;
    y.iter_mut().for_each(|y| *y /= step);
    let mut y: Vec<f32> = y.chunks(n).flat_map(nearest).map(|c| c.clamp(-q, q) * step).collect();
    rotate(&mut y);
    y.iter_mut().for_each(|y| *y *= rounded(norm));
    y
}

fn symmetric(x: &[f32], q: f32) -> Vec<f32> {
    let mut y = x.to_vec();
    rotate(&mut y);
    let step = rounded(top(&y, 1e-12)).max(6e-8) / q;
    y.iter_mut().for_each(|y| *y = (*y / step).round_ties_even().clamp(-q, q) * step);
    rotate(&mut y);
    y
}

/// The nearest point of D4, or of E8, which is D8 and D8 half a step off; of equals the first.
fn nearest(z: &[f32]) -> Vec<f32> {
    let whole = nearest_even(z);
    if z.len() == 4 {
        return whole;
    }
    let shifted: Vec<f32> = z.iter().map(|z| z - 0.5).collect();
    let half: Vec<f32> = nearest_even(&shifted).into_iter().map(|c| c + 0.5).collect();
    let distance = |c: &[f32]| z.iter().zip(c).map(|(z, c)| (z - c) * (z - c)).sum::<f32>();
    if distance(&whole) <= distance(&half) { whole } else { half }
}

/// The nearest integers with an even sum: where it is odd, the coordinate that is off most goes the other way.
fn nearest_even(z: &[f32]) -> Vec<f32> {
    let mut c: Vec<f32> = z.iter().map(|z| z.round_ties_even()).collect();
    if c.iter().sum::<f32>().rem_euclid(2.0) != 0.0 {
        let off = |i: usize| (z[i] - c[i]).abs();
        let far = (1..z.len()).fold(0, |far, i| if off(i) > off(far) { i } else { far });
        c[far] += if z[far] - c[far] >= 0.0 { 1.0 } else { -1.0 };
    }
    c
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits() {
        let bits = |name: &str| Published::of(name).map(|format| format.row_bits(128) as f64 / 128.0);
        assert_eq!(bits("kakeya_e8q38"), Some(6.625));
        assert_eq!((bits("kakeya_d4q10"), bits("symmetric_int4"), bits("scaled_e4m3_64")), (Some(4.5), Some(4.125), Some(8.5)));
        assert!(["kakeya_e8q0", "kakeya_e8", "symmetric_int1", "e8q38"].iter().all(|name| Published::of(name).is_none()));
    }

    #[test]
    fn points_are_nearest() {
        assert_eq!(nearest(&[0.9, 0.2, 0.0, 0.1]), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(nearest(&[0.4, 0.6, 0.5, 0.5, 0.5, 0.5, 0.4, 0.6]), [0.5; 8]);
        assert_eq!(nearest(&[2.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), [2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    /// Squared error over squared size of rows that are near Gaussian.
    #[test]
    fn finer_formats_lose_less() {
        let mut seed = 7_u64;
        let mut uniform = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let x: Vec<f32> = (0..64 * 128).map(|_| uniform() + uniform() + uniform() + uniform()).collect();
        let loss = |name: &str| {
            let y: Vec<f32> = x.chunks(128).flat_map(|row| Published::of(name).unwrap().round_trip(row)).collect();
            x.iter().zip(&y).map(|(x, y)| (x - y) * (x - y)).sum::<f32>() / x.iter().map(|x| x * x).sum::<f32>()
        };
        assert!((1e-5..1e-3).contains(&loss("scaled_e4m3_64")));
        let all = ["kakeya_e8q38", "kakeya_d4q38", "symmetric_int6", "kakeya_e8q10", "symmetric_int4", "kakeya_e8q4"].map(loss);
        assert!(all[0] < 1e-3 && all.is_sorted() && all[5] < 0.1, "{all:?}");
    }
}
