//! Codecs with a side value for each group of coordinates: nearest levels, exact lanes, what a tile keeps of a group.

mod support;

use half::bf16;
use kernel_dsl::math::{e2m1_of, e4m3_of, e4m3_value, mul_bf16x2};
use kernels_gen::layout::{Operand, TILE};
use kernels_gen::registry::{HEAD_DIMS_STORE, Half, codec};
use support::{Random, relative_error2};

const GROUPED: [&str; 5] = ["fp8_e4m3_64", "fp8_e4m3_64_e8m0", "nvfp4", "nvfp4_t6", "mxfp4"];

/// E2M1 by its code.
const LEVELS: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

fn half(name: &str) -> &'static Half {
    &codec(name).unwrap().k
}

#[test]
fn e2m1_takes_the_nearest_level_and_the_even_one_of_two() {
    assert_eq!([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0].map(e2m1_of), [0, 2, 2, 4, 4, 6, 6]);
    assert_eq!([7.0, f32::INFINITY, -9.0, -0.5, -0.0].map(e2m1_of), [7, 7, 15, 9, 8]);
    assert_eq!(e2m1_of(f32::NAN) & 7, 0);
    let mut random = Random(1);
    for _ in 0..100_000 {
        let x = 7.0 * random.gaussian().abs();
        let nearest = LEVELS.iter().map(|l| (l - x).abs()).fold(f32::INFINITY, f32::min);
        assert!((LEVELS[e2m1_of(x) as usize] - x).abs() <= nearest + 1e-6, "{x}");
    }
}

#[test]
fn products_of_bf16_round_once() {
    let mut random = Random(2);
    for _ in 0..200_000 {
        let (a, b) = (random.bits() as u32 & 0xbfff_bfff, random.bits() as u32);
        let of = |w: u32, by: u32| f64::from(f32::from_bits(w >> by << 16));
        for by in [0, 16] {
            let (x, got) = (of(a, by) * of(b, by), of(mul_bf16x2(a, b), by));
            if !x.is_finite() || x.abs() >= 3.39e38 {
                continue;
            }
            // No bf16 is nearer; neighbours by the bits of its magnitude.
            let bits = (mul_bf16x2(a, b) >> by & 0x7fff) as u16;
            let near = |bits: u16| f64::from(bf16::from_bits(bits.min(0x7f80)).to_f32());
            let (below, above) = (near(bits.saturating_sub(1)), near(bits + 1));
            let off = (got.abs() - x.abs()).abs();
            assert!(off <= (below - x.abs()).abs() && (off <= (above - x.abs()).abs() || !above.is_finite()), "{x:e} became {got:e}");
        }
    }
}

/// What a lane is worth in a group of value `value`, exactly.
fn expected(name: &str, number: f32, value: f32) -> f32 {
    if name != "fp8_e4m3_64" {
        return number * value;
    }
    bf16::from_f32(number * f32::from_bits((value.to_bits() + 0x8000) >> 16 << 16)).to_f32()
}

/// Every number under every kind of scale is its product.
#[test]
fn lanes_are_products() {
    for name in GROUPED {
        let c = half(name).bands[0];
        let fp8 = name.starts_with("fp8");
        let numbers: Vec<f32> = if fp8 { (0..127).map(e4m3_value).collect() } else { LEVELS.to_vec() };
        let step = if name == "nvfp4_t6" { 2.0_f32.powi(-6) } else { 1.0 };
        for top in [1e-3, 0.01, 0.7, 1.0, 3.3, 100.0, 2000.0] {
            let value = c.group(top);
            for (i, number) in numbers.iter().enumerate() {
                // The other seven are its neighbours.
                let block: [f32; 8] = std::array::from_fn(|e| if e % 2 == 0 { 1.0 } else { -1.0 } * numbers[(i + e) % numbers.len()]);
                let mut code = c.encode(block.map(|n| n * value * step), [value, 0.0]);
                assert!(code.iter().skip(c.spec().bits / 32).all(|w| *w == 0), "{name}");
                code[c.spec().bits / 32] = c.shared(value);
                let lanes = c.decode(code);
                for (e, n) in block.iter().enumerate() {
                    let lane = f32::from_bits(lanes[e / 2] >> (16 * (e % 2)) << 16) * c.scale([0.0; 2]);
                    assert_eq!(lane, expected(name, *n, value) * step, "{name}: {n} (after {number}) under {value}");
                }
            }
        }
    }
}

/// Whatever bits lie in a slot that nobody wrote, lanes are finite.
#[test]
fn every_code_is_finite() {
    let mut random = Random(3);
    for name in GROUPED {
        for _ in 0..100_000 {
            let code = std::array::from_fn(|_| if random.bits() % 4 == 0 { u32::MAX } else { random.bits() as u32 });
            let mut code: [u32; 4] = code;
            let c = half(name).bands[0];
            let last = c.spec().bits / 32;
            code[last] &= if c.spec().shared == 32 { u32::MAX } else { (1 << c.spec().shared) - 1 };
            assert!(c.decode(code).iter().all(|w| [0, 16].iter().all(|by| f32::from_bits(w >> by << 16).is_finite())), "{name}: {code:08x?}");
        }
    }
}

/// A group is coded by its own largest magnitude, and a tile gives back what a row was coded to.
#[test]
fn tiles_keep_what_groups_share() {
    for name in GROUPED {
        for d in HEAD_DIMS_STORE {
            let (c, mut random) = (codec(name).unwrap(), Random(d as u64));
            let layout = c.layout(d);
            let mut tile = vec![0xff; layout.tile_bytes()];
            let mut row = || -> Vec<f32> { (0..d).map(|i| random.gaussian() * 2.0_f32.powi((i / c.k.group % 7) as i32 - 3)).collect() };
            let rows: Vec<_> = (0..2 * TILE).map(|_| c.k.encode_row(&row())).collect();
            for (i, row) in rows.iter().enumerate() {
                let operand = if i % 2 == 0 { Operand::K } else { Operand::V };
                row.codes.iter().enumerate().for_each(|(block, code)| layout.write_code(&mut tile, operand, i / 2, block, *code));
            }
            for (i, row) in rows.iter().enumerate() {
                let operand = if i % 2 == 0 { Operand::K } else { Operand::V };
                let read: Vec<_> = (0..layout.blocks()).map(|block| layout.read_code(&tile, operand, i / 2, block)).collect();
                assert_eq!(read, row.codes, "{name} d {d} row {i}");
            }
            let of_group = |g: usize| rows[0].codes[g * c.k.group / 8][c.k.bits / 32];
            assert!(d == c.k.group || (1..d / c.k.group).any(|g| of_group(g) != of_group(0)), "{name} d {d}: groups differ in size here");
        }
    }
}

#[test]
fn stored_bits_count_the_groups() {
    let bits = GROUPED.map(|name| codec(name).unwrap().stored_bits_per_element(128));
    assert_eq!(bits, [8.5, 8.125, 4.5, 4.5, 4.25]);
    assert!(codec("nvfp4+nvfp4").is_err() && codec("nvfp4_t9").is_err());
    assert_eq!(codec("int4/nvfp4").unwrap().stored_bits_per_element(128), (4.125 + 4.5) / 2.0);
}

/// Gaussian rows, and rows with a large channel, which spoils its group alone.
#[test]
fn distortion_is_that_of_the_formats() {
    let mut random = Random(5);
    let rows: Vec<f32> = random.gaussians(128 * 500);
    let mut large = rows.clone();
    large.iter_mut().step_by(128).for_each(|x| *x *= 30.0);
    let error = |name: &str, rows: &[f32]| {
        let y: Vec<f32> = rows.chunks_exact(128).flat_map(|row| half(name).decode_row(&half(name).encode_row(row), 128)).collect();
        relative_error2(&y, rows)
    };
    for (name, most) in GROUPED.into_iter().zip([7.5e-4, 7.5e-4, 1.0e-2, 1.0e-2, 1.5e-2]) {
        let (plain, spoilt) = (error(name, &rows), error(name, &large));
        println!("{name}: {plain:.3e}, with a channel 30 times as large {spoilt:.3e}");
        assert!(plain < most && plain > 0.6 * most, "{name}: {plain:e}");
        // 2^-6 for the tensor leaves 448 / 64 * 6 = 42 as the largest coordinate.
        assert!(spoilt < if name == "nvfp4_t6" { 0.06 } else { 2.5 * most }, "{name}: {spoilt:e}");
    }
}

/// What is simulated elsewhere: E4M3 under an f32 scale of the group, in f32. A scale of 8 bits takes one number in a hundred
/// to the neighbour of its code: in all rows together 1.1e-4 of their squares, and their error is theirs.
#[test]
fn fp8_is_what_engines_store() {
    let rows = Random(6).gaussians(128 * 200);
    let c = half("fp8_e4m3_64");
    let square = |a: f32, b: f32| f64::from((a - b) * (a - b));
    let (mut apart, mut error, mut other, mut energy) = (0.0, 0.0, 0.0, 0.0);
    for row in rows.chunks_exact(128) {
        let ours = c.decode_row(&c.encode_row(row), 128);
        for (x, y) in row.chunks_exact(64).zip(ours.chunks_exact(64)) {
            let scale = x.iter().fold(0.0_f32, |top, x| top.max(x.abs())) / 448.0;
            for (x, y) in x.iter().zip(y) {
                let theirs = e4m3_value(e4m3_of(x / scale)) * scale;
                apart += square(theirs, *y);
                error += square(*y, *x);
                other += square(theirs, *x);
                energy += square(*x, 0.0);
            }
        }
    }
    assert!(apart < 2e-4 * energy && apart > 0.0, "{:e}", apart / energy);
    assert!(error < 1.04 * other && other < 7e-4 * energy, "{:e} and {:e}", error / energy, other / energy);
}
