//! The `turboquant` presets against their original: levels, bytes of slots, attention.

mod support;

use kernels_gen::codecs::Lloyd;
use kernels_gen::codecs::lloyd_max::{distortion, levels, midpoints};
use kernels_gen::kernels::slots::slot_bytes;
use kernels_gen::kernels::{Elem, slot_meta};
use kernels_gen::reference::{CacheShape, SlotShape, decode, export_slots, import_slots, rotate, store, store_slots};
use kernels_gen::registry::codec;
use support::{Random, npy_f32, npy_u8, relative_error2};

const PRESETS: [&str; 4] = ["k8v4", "4bit_nc", "k3v4_nc", "3bit_nc"];
/// The golden cache: pages of two sequences, their lengths; the last rows have slot -1.
const TABLES: [[i32; 3]; 2] = [[3, 0, 0], [5, 1, 4]];
const LENS: [i32; 2] = [21, 40];
const PAGE: usize = 16;
const HEADS: usize = 2;
const TOKENS: usize = 64;

fn golden_slots() -> Vec<i64> {
    let of = |b: usize| (0..LENS[b] as usize).map(move |t| i64::from(TABLES[b][t / PAGE]) * PAGE as i64 + (t % PAGE) as i64);
    let mut slots: Vec<i64> = of(0).chain(of(1)).collect();
    slots.resize(TOKENS, -1);
    slots
}

/// Rows rotated by so many, as the original rolled them.
fn rolled(x: &[f32], d: usize, by: usize) -> Vec<f32> {
    let mut x = x.to_vec();
    x.rotate_left(by * d);
    x
}

#[test]
fn levels_are_those_of_the_original() {
    for width in [3, 4] {
        let (wanted, _) = npy_f32(&format!("turboquant/levels{width}"));
        for (ours, theirs) in levels(width).into_iter().zip(wanted) {
            assert!((ours - f64::from(theirs)).abs() < 1e-6, "{width} bits: {ours}, wanted {theirs}");
        }
    }
}

/// Each level is the mean of its cell, each cell ends half way; short of the fixed point by 2e-3 at most. The error is
/// that of a Lloyd-Max quantiser: 0.03455 and 0.00950 of the variance.
#[test]
fn levels_meet_the_conditions_of_lloyd_and_max() {
    for (width, best) in [(3, 0.034_548), (4, 0.009_497)] {
        let levels = levels(width);
        let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        let mut edges = vec![-12.0];
        edges.extend(midpoints(&levels));
        edges.push(12.0);
        for (cell, level) in edges.windows(2).zip(&levels) {
            // The mean of a Gaussian cell in closed form, its mass by a fine sum.
            let steps = 20_000;
            let h = (cell[1] - cell[0]) / f64::from(steps);
            let mass: f64 = (0..steps).map(|i| density(cell[0] + (f64::from(i) + 0.5) * h) * h).sum();
            let mean = (density(cell[0]) - density(cell[1])) / mass;
            assert!((mean - level).abs() < 2e-3, "{width} bits: level {level}, mean of its cell {mean}");
        }
        let error = distortion(&levels);
        println!("{width} bits: distortion {error:.5}");
        assert!((error / best - 1.0).abs() < 2e-3, "{width} bits: {error}");
    }
}

/// Bytes in the place of levels cost less than 1e-4 of the quantiser's error.
#[test]
fn levels_as_bytes_lose_nothing() {
    for width in [3, 4] {
        let (lanes, levels) = (Lloyd::new(width).lanes(), levels(width));
        let scale = lanes.iter().zip(&levels).map(|(a, l)| a * l).sum::<f64>() / lanes.iter().map(|a| a * a).sum::<f64>();
        let rounded: Vec<f64> = lanes.iter().map(|a| a * scale).collect();
        let off = levels.iter().zip(&rounded).map(|(l, r)| (l - r).abs()).fold(0.0, f64::max);
        let (exact, ours) = (distortion(&levels), distortion(&rounded));
        println!("{width} bits: levels {lanes:?}, off by {off:.4} at most, distortion {ours:.6}, exact levels {exact:.6}");
        assert!(off < 0.011 && ours < exact * 1.002, "{width} bits");
    }
}

/// Our store writes the original's bytes. Indices may differ where the coordinate is within 1e-6 of the end of its cell: sums
/// have another order there.
#[test]
fn slots_have_the_bytes_of_the_original() {
    for d in [64, 128] {
        let (x, _) = npy_f32(&format!("turboquant/D{d}_x"));
        let v = rolled(&x, d, 37);
        for preset in PRESETS {
            let c = codec(&format!("turboquant_{preset}")).unwrap();
            let shape = SlotShape { pages: 6, page_tokens: PAGE, kv_heads: HEADS, d };
            let (wanted, size) = npy_u8(&format!("turboquant/D{d}_{preset}_cache"));
            assert_eq!(slot_bytes(c, d), size, "{preset}");
            let mut cache = vec![0xee; shape.bytes(c)];
            assert!(store_slots(c, &shape, &mut cache, &x, &v, &golden_slots()).is_ok());
            let bits = c.k.level_bits;
            let ends = midpoints(&levels(bits.min(4)));
            let mut flips = 0;
            for (i, (ours, theirs)) in cache.chunks_exact(size).zip(wanted.chunks_exact(size)).enumerate() {
                if ours == theirs {
                    continue;
                }
                let at = golden_slots().iter().position(|s| *s as usize == i / HEADS).expect("a slot that was stored");
                let row = &x[(at * HEADS + i % HEADS) * d..][..d];
                let codes = d * bits / 8;
                assert_eq!(ours[codes..], theirs[codes..], "D {d} {preset} token {at}: norm or values");
                let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() + 1e-8;
                let mut y = row.to_vec();
                rotate(&mut y);
                let index = |slot: &[u8], i: usize| (0..bits).fold(0, |n, b| n | usize::from(slot[(i * bits + b) / 8] >> ((i * bits + b) % 8) & 1) << b);
                for i in (0..d).filter(|i| index(ours, *i) != index(theirs, *i)) {
                    let y = f64::from(y[i]) / norm;
                    let near = ends.iter().map(|end| (end / (d as f64).sqrt() - y).abs()).fold(f64::INFINITY, f64::min);
                    assert!(near < 1e-6, "D {d} {preset} token {at} dim {i}: {} instead of {}, {near:e} from the end of a cell", index(ours, i), index(theirs, i));
                    // A constant row's coordinates are 0, the end of a cell; the original's sums leave a trace of either sign.
                    flips += usize::from(near > 1e-12);
                }
            }
            println!("D {d} {preset}: {flips} of {} indices differ", 61 * HEADS * d);
            assert!(flips as f64 <= 0.0005 * (61 * HEADS * d) as f64, "D {d} {preset}: {flips} indices differ");
        }
    }
}

/// The original's bytes, brought into tiles, give the original's attention.
#[test]
fn attention_over_its_slots_is_that_of_the_original() {
    for d in [64, 128] {
        let (x, _) = npy_f32(&format!("turboquant/D{d}_x"));
        let q = &x[..2 * 4 * d];
        for preset in PRESETS {
            let c = codec(&format!("turboquant_{preset}")).unwrap();
            let slots = SlotShape { pages: 6, page_tokens: PAGE, kv_heads: HEADS, d };
            let (bytes, _) = npy_u8(&format!("turboquant/D{d}_{preset}_cache"));
            let (wanted, _) = npy_f32(&format!("turboquant/D{d}_{preset}_out"));
            let shape = CacheShape { pages: 3, page_tokens: 64, kv_heads: HEADS, d };
            let mut cache = vec![0xff; shape.bytes(c)];
            // The first sequence into page 2, the second into page 0.
            let to: Vec<i64> = (0..TOKENS as i64).map(|t| if t < 21 { 128 + t } else { t - 21 }).collect();
            assert!(import_slots(c, &slots, &bytes, &golden_slots(), &shape, &mut cache, &to).is_ok());
            let got = decode(c, &shape, &cache, q, 4, &[2, 0], 1, &LENS, 1.0 / (d as f32).sqrt());
            let most = wanted.iter().fold(0.0_f32, |top, w| top.max(w.abs()));
            let worst = got.out.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most;
            println!("D {d} {preset}: off by {worst:.1e} of the largest output");
            // Stored norms round once more, by 2^-11 of a score; E4M3 keys meet queries and weights rounded to bf16.
            assert!(worst < if c.exact() { 3e-3 } else { 1e-2 }, "D {d} {preset}: {worst}");
        }
    }
}

/// Offsets of keys and of values reach the scores and the output: attention is that of the decoded rows.
#[test]
fn attention_is_that_of_the_decoded_rows() {
    let (d, tokens) = (64, 50);
    for name in ["int4_per_token_head", "affine3", "turboquant_3bit_nc", "turboquant_k8v4"] {
        let c = codec(name).unwrap();
        let mut random = Random(31);
        // Rows far from zero.
        let mut rows = |n: usize| random.gaussians(n * d).chunks(d).enumerate().flat_map(|(i, row)| row.iter().map(|x| x + (i % 7) as f32 - 2.0).collect::<Vec<_>>()).collect::<Vec<f32>>();
        let (k, v, q) = (rows(tokens), rows(tokens), rows(2));
        let shape = CacheShape { pages: 1, page_tokens: 64, kv_heads: 1, d };
        let mut cache = vec![0xff; shape.bytes(c)];
        store(c, &shape, &mut cache, &k, &v, &(0..tokens as i64).collect::<Vec<_>>());
        let got = decode(c, &shape, &cache, &q, 2, &[0], 1, &[tokens as i32], 0.05);
        for (q, out) in q.chunks(d).zip(got.out.chunks(d)) {
            let decoded = |half: &kernels_gen::registry::Half, x: &[f32]| half.decode_row(&half.encode_row(x), d);
            let scores: Vec<f64> = k.chunks(d).map(|k| decoded(&c.k, k).iter().zip(q).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>() * 0.05).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut wanted = vec![0.0; d];
            for (w, v) in weights.iter().zip(v.chunks(d)) {
                wanted.iter_mut().zip(decoded(&c.v, v)).for_each(|(o, v)| *o += w / total * f64::from(v));
            }
            let worst = out.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            let largest = wanted.iter().fold(0.0_f64, |top, w| top.max(w.abs()));
            println!("{name}: off by {worst:.1e}, the largest output is {largest:.1}");
            assert!(worst < largest * if c.exact() { 1e-3 } else { 1e-2 }, "{name}: off by {worst} beside {largest}");
        }
    }
}

/// From slots to tiles and back: codes bit for bit, sides to within a step; and what was imported is what is stored at once.
#[test]
fn slots_and_tiles_hold_the_same() {
    for d in [64, 128, 256] {
        for preset in PRESETS {
            let c = codec(&format!("turboquant_{preset}")).unwrap();
            let mut random = Random(d as u64);
            let (k, v) = (random.gaussians(TOKENS * HEADS * d), random.gaussians(TOKENS * HEADS * d));
            let slots = SlotShape { pages: 6, page_tokens: PAGE, kv_heads: HEADS, d };
            let tiles = CacheShape { pages: 1, page_tokens: 64, kv_heads: HEADS, d };
            let places: Vec<i64> = golden_slots().iter().enumerate().map(|(i, s)| if *s < 0 { -1 } else { 63 - i as i64 }).collect();
            let mut direct = vec![0; tiles.bytes(c)];
            store(c, &tiles, &mut direct, &k, &v, &places);
            let mut cache = vec![0; slots.bytes(c)];
            store_slots(c, &slots, &mut cache, &k, &v, &golden_slots());
            let mut brought = vec![0; tiles.bytes(c)];
            assert!(import_slots(c, &slots, &cache, &golden_slots(), &tiles, &mut brought, &places).is_ok());
            assert!(brought == direct, "D {d} {preset}: imported slots differ from stored tiles");
            let mut back = vec![0; slots.bytes(c)];
            assert!(export_slots(c, &tiles, &brought, &places, &slots, &mut back, &golden_slots()).is_ok());
            let (size, key) = (slot_bytes(c, d), c.k.slot_bytes(d));
            for (a, b) in cache.chunks_exact(size).zip(back.chunks_exact(size)) {
                let codes = key - 2 * c.k.sides;
                assert!(a[..codes] == b[..codes] && a[key..] == b[key..], "D {d} {preset}");
                if c.k.sides == 1 {
                    let norm = |s: &[u8]| i32::from(u16::from_le_bytes([s[codes], s[codes + 1]]));
                    assert!((norm(a) - norm(b)).abs() <= 1, "D {d} {preset}");
                }
            }
        }
    }
}

/// A decoded key has the norm of the key; errors of Gaussian rows are those of the original: 0.0090 and 0.0332 for keys,
/// 0.0099 and 0.0445 for values.
#[test]
fn distortion_of_gaussian_rows() {
    let mut random = Random(12);
    let x: Vec<f32> = random.gaussians(1000 * 128);
    for (name, wanted) in [("lloyd4", 0.0091), ("lloyd3", 0.0334), ("affine4", 0.0099), ("affine3", 0.0445), ("int4_per_token_head", 0.0099)] {
        let c = &codec(name).unwrap().k;
        let y: Vec<f32> = x.chunks(128).flat_map(|row| c.decode_row(&c.encode_row(row), 128)).collect();
        let error = relative_error2(&y, &x);
        println!("{name}: {:.3} bits, relative squared error {error:.5}", codec(name).unwrap().stored_bits_per_element(128));
        assert!((error / wanted - 1.0).abs() < 0.03, "{name}: {error}");
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if name.starts_with("lloyd") {
            for (x, y) in x.chunks(128).zip(y.chunks(128)) {
                assert!((norm(y) / norm(x) - 1.0).abs() < 1.5e-3, "{name}: {} became {}", norm(x), norm(y));
            }
        }
    }
}

/// Bits an element, keys and values together: 6.125, 4.188, 3.688, 3.188, what a slot takes.
#[test]
fn tiles_take_the_bytes_of_slots() {
    for (preset, bits) in PRESETS.into_iter().zip([6.125, 4.1875, 3.6875, 3.1875]) {
        let c = codec(&format!("turboquant_{preset}")).unwrap();
        assert_eq!(c.stored_bits_per_element(128), bits);
        assert_eq!(slot_bytes(c, 128) as f64 * 8.0 / 256.0, bits);
    }
}

#[test]
fn codecs_without_levels_have_no_slots() {
    for (name, has) in [("turboquant_4bit_nc", true), ("fp8_e4m3", true), ("int4", false), ("lloyd4/e8w4", false), ("affine4", true)] {
        let c = codec(name).unwrap();
        assert_eq!(c.has_slots(), has, "{name}");
        assert_eq!(slot_meta(c, 128, 16, 64, Elem::Bf16).is_some(), has, "{name}");
    }
}
