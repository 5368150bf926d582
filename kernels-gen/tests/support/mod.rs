//! Data for tests: a seeded Gaussian source and a reader for `.npy` files.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;

use kernels_gen::preset::{Calibration, Fit, Shape};

/// SplitMix64 with Box-Muller: the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ a >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ b >> 31
    }

    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn gaussian(&mut self) -> f32 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    pub fn gaussians(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.gaussian()).collect()
    }
}

/// The data part of `tests/golden/<name>.npy` and its last dimension.
fn npy(name: &str, descr: &str) -> (Vec<u8>, usize) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("npy");
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header_end = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = std::str::from_utf8(&bytes[10..header_end]).unwrap();
    assert!(header.contains(descr) && header.contains("'fortran_order': False"), "{name}: {header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let last = shape.split(',').filter_map(|n| n.trim().parse().ok()).next_back().unwrap();
    (bytes[header_end..].to_vec(), last)
}

pub fn npy_f32(name: &str) -> (Vec<f32>, usize) {
    let (bytes, last) = npy(name, "<f4");
    (bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(), last)
}

pub fn npy_i16(name: &str) -> (Vec<i16>, usize) {
    let (bytes, last) = npy(name, "<i2");
    (bytes.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect(), last)
}

pub fn npy_u8(name: &str) -> (Vec<u8>, usize) {
    npy(name, "|u1")
}

pub fn npy_u16(name: &str) -> (Vec<u16>, usize) {
    let (bytes, last) = npy(name, "<u2");
    (bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect(), last)
}

/// sum (a - b)^2 / sum b^2.
pub fn relative_error2(a: &[f32], b: &[f32]) -> f64 {
    let squares: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>() / squares
}

/// Any invertible basis and falling energies serve.
pub fn calibration(d: usize) -> Calibration {
    let shape = Shape { layers: 2, kv_heads: 2, d };
    let heads = shape.layers * shape.kv_heads;
    let mut random = Random(7);
    let mut fit = || {
        let mut basis = random.gaussians(heads * d * d);
        basis.iter_mut().for_each(|b| *b *= 0.2 / (d as f32).sqrt());
        (0..heads * d).for_each(|i| basis[i * d + i % d] += 1.0);
        let energy = (0..heads * d).map(|i| 2.0 * 0.98_f32.powi((i % d) as i32)).collect();
        Fit { basis, mean: random.gaussians(heads * d), energy }
    };
    let (keys, values) = (fit(), fit());
    let speeds = (0..d / 2).map(|i| 1e4_f32.powf(-((2 * i) as f32) / d as f32)).collect();
    Calibration { shape, model: "0123456789abcdef".into(), text: "fedc".into(), tokens: 8192, speeds, keys, values, bands: Default::default() }
}
