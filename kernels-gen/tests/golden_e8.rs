//! The E8 codec against vectors of the published implementation, stage by stage.
//!
//! Rotation is reproducible to ulps only, so each later stage starts from the golden output of the
//! one before it. See `golden/README.md` for what the files hold.

mod support;

use half::f16;
use kernels_gen::codecs::fractions::{between, nearest_between};
use kernels_gen::codecs::lattice::{distance2, nearest_e8};
use kernels_gen::reference::{Row, rotate};
use kernels_gen::registry::{HEAD_DIMS_STORE, codec};
use support::{npy_f32, npy_i16, npy_u16};

struct Golden {
    d: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    norm: Vec<u16>,
    qmax: Vec<u16>,
    tags: Vec<&'static str>,
}

impl Golden {
    fn all() -> Vec<Golden> {
        let tags: Vec<&str> = include_str!("golden/tags.txt").lines().collect();
        let load = |d: usize| Golden { d, x: npy_f32(&format!("D{d}_x")).0, y: npy_f32(&format!("D{d}_y_rotated")).0, norm: npy_u16(&format!("D{d}_norm_f16bits")).0, qmax: npy_u16(&format!("D{d}_qmax_f16bits")).0, tags: tags.clone() };
        HEAD_DIMS_STORE.map(load).into()
    }

    /// Rows that the reference itself codes without overflow.
    fn sound_rows(&self) -> impl Iterator<Item = usize> {
        (0..self.tags.len()).filter(|&row| !is_defect(self.tags[row]))
    }

    fn row<'a, T>(&self, data: &'a [T], row: usize) -> &'a [T] {
        &data[row * self.d..(row + 1) * self.d]
    }

    fn sides(&self, row: usize) -> [u16; 2] {
        [self.norm[row], self.qmax[row]]
    }
}

fn is_defect(tag: &str) -> bool {
    tag.starts_with("huge_") || tag == "norm_above_fp16max"
}

fn f32_of(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

fn block(x: &[f32]) -> [f32; 8] {
    x.try_into().unwrap()
}

fn doubled(p: [f32; 8]) -> [i16; 8] {
    p.map(|p| (2.0 * p) as i16)
}

/// The order of a sum decides, or a fraction rounded to 1/256.
const EXACT: f32 = 1e-5;
const BYTES: f32 = 4e-2;

/// Both points are so near that next to nothing decides.
fn near_tie(z: [f32; 8], ours: [f32; 8], golden2: &[i16], tie: f32) -> bool {
    let golden: [f32; 8] = std::array::from_fn(|i| f32::from(golden2[i]) / 2.0);
    let (a, b) = (distance2(z, ours), distance2(z, golden));
    (a - b).abs() <= tie * a.max(b)
}

/// The point that `e8q` with `q` levels of few bytes stores.
fn by_bytes(y: [f32; 8], inverse: f32, q: f32) -> [f32; 8] {
    let (digits, coset) = nearest_between(y, inverse, q as usize, between(q as usize));
    std::array::from_fn(|i| (digits[i / 4] >> (8 * (i % 4)) & 255) as f32 - q + 0.5 * (coset & 1) as f32)
}

#[test]
fn closest_points_match() {
    let (y, _) = npy_f32("closest_e8_y");
    let (out2, _) = npy_i16("closest_e8_out2");
    let (mut ties, mut within) = (0, 0);
    for (i, (z, golden2)) in y.chunks_exact(8).zip(out2.chunks_exact(8)).enumerate() {
        // The search has faces; far blocks are left out.
        if z.iter().any(|z| z.abs() > 37.0) {
            continue;
        }
        within += 1;
        let ours = nearest_e8(block(z), 38.0);
        if doubled(ours) != golden2 {
            assert!(near_tie(block(z), ours, golden2, EXACT), "block {i}: {z:?} to {ours:?}, golden doubled {golden2:?}");
            // Blocks of quarters are equally far from several points.
            ties += usize::from(z.iter().any(|z| (4.0 * z).fract() != 0.0));
        }
    }
    println!("{within} of {} blocks, {ties} near ties decided otherwise", y.len() / 8);
    assert!(ties <= 10);
}

#[test]
fn rotated_rows_match_within_ulps() {
    let mut worst = 0.0_f32;
    for g in Golden::all() {
        for row in g.sound_rows() {
            let x = g.row(&g.x, row);
            let r = x.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::EPSILON);
            let mut y: Vec<f32> = x.iter().map(|x| x / r).collect();
            rotate(&mut y);
            let differences = y.iter().zip(g.row(&g.y, row)).map(|(a, b)| (a - b).abs());
            worst = differences.fold(worst, f32::max);
        }
    }
    println!("largest difference {worst:e} on rows of norm 1");
    assert!(worst <= 5e-7, "{worst:e}");
}

#[test]
fn stored_sides_match_within_one_step() {
    let e8 = &codec("e8q38").unwrap().k;
    let mut off = 0;
    for g in Golden::all() {
        for row in g.sound_rows() {
            let ours = e8.encode_row(g.row(&g.x, row)).side;
            for (ours, golden) in ours.into_iter().zip(g.sides(row)) {
                off += usize::from(ours != golden);
                assert!(ours.abs_diff(golden) <= 1, "D {} row {row} ({}): {ours} against {golden}", g.d, g.tags[row]);
            }
        }
    }
    println!("{off} of the stored f16 values differ by one step");
}

/// Points and decoded rows from the golden rotated rows and sides. The reference's clamp leaves the
/// lattice, so a block whose golden point is outside the box must only be a lattice point inside it.
fn check_given_rotation(q: i16, search: impl Fn([f32; 8], f32, f32) -> [f32; 8], tie: f32, decode: impl Fn(&Golden, usize, &[[f32; 8]]) -> Vec<f32>) {
    let (mut ties, mut outside, mut worst) = (0, 0, 0.0_f64);
    for g in Golden::all() {
        let lat2 = npy_i16(&format!("D{}_e8_Q{q}_lat2x_preclamp", g.d)).0;
        let xhat = npy_f32(&format!("D{}_e8_Q{q}_xhat", g.d)).0;
        for row in g.sound_rows() {
            // Steps by a reciprocal, as the codec takes them.
            let (box_, top) = (f32::from(q), f32_of(g.qmax[row]));
            let inverse = if top >= 6.2e-5 { box_ / top } else { 0.0 };
            let mut same = true;
            let mut points = Vec::new();
            for (y, golden2) in g.row(&g.y, row).chunks_exact(8).zip(g.row(&lat2, row).chunks_exact(8)) {
                let z = block(y).map(|y| y * inverse);
                let ours = search(block(y), inverse, box_);
                points.push(ours);
                if doubled(ours) == golden2 {
                    continue;
                }
                same = false;
                if golden2.iter().any(|c| c.abs() > 2 * q) {
                    outside += 1;
                    assert!(is_lattice_point(ours, q), "D {} row {row}: {ours:?}", g.d);
                } else {
                    ties += 1;
                    assert!(near_tie(z, ours, golden2, tie), "D {} row {row}: {z:?} to {ours:?}, not {golden2:?}", g.d);
                }
            }
            if same {
                let golden = g.row(&xhat, row);
                let norm = golden.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                for (ours, golden) in decode(&g, row, &points).iter().zip(golden) {
                    let error = (f64::from(*ours) - f64::from(*golden)).abs();
                    worst = if norm > 0.0 { worst.max(error / norm) } else { worst.max(error) };
                }
            }
        }
    }
    println!("Q {q}: {ties} near ties, {outside} blocks moved into the box, decoded rows within {worst:e} of their norm");
    assert!(worst <= 4e-6, "{worst:e}");
}

/// What `e8q10` and `e8q38` store beside the golden points: other ones near ties, which lose next to nothing.
#[test]
fn stored_points_are_as_near_as_the_golden_ones() {
    for q in [10_i16, 38] {
        let (mut blocks, mut others, mut ours_lose, mut golden_lose) = (0, 0, 0.0_f64, 0.0_f64);
        for g in Golden::all() {
            let lat2 = npy_i16(&format!("D{}_e8_Q{q}_lat2x_preclamp", g.d)).0;
            for row in g.sound_rows() {
                let top = f32_of(g.qmax[row]);
                let inverse = if top >= 6.2e-5 { f32::from(q) / top } else { 0.0 };
                for (y, golden2) in g.row(&g.y, row).chunks_exact(8).zip(g.row(&lat2, row).chunks_exact(8)) {
                    if golden2.iter().any(|c| c.abs() > 2 * q) {
                        continue;
                    }
                    let ours = by_bytes(block(y), inverse, f32::from(q));
                    assert!(is_lattice_point(ours, q), "{ours:?}");
                    let z = block(y).map(|y| y * inverse);
                    let golden: [f32; 8] = std::array::from_fn(|i| f32::from(golden2[i]) / 2.0);
                    (blocks, others) = (blocks + 1, others + usize::from(ours != golden));
                    ours_lose += f64::from(distance2(z, ours));
                    golden_lose += f64::from(distance2(z, golden));
                }
            }
        }
        println!("Q {q}: {others} of {blocks} blocks have another point, {:+.5} % of the squared error", 100.0 * (ours_lose / golden_lose - 1.0));
        assert!(blocks > 1000 && others * 25 < blocks && ours_lose < golden_lose * (1.0 + 1e-4));
    }
}

fn is_lattice_point(p: [f32; 8], q: i16) -> bool {
    let twice = doubled(p);
    let coset = twice[0] & 1;
    let sum: i16 = twice.iter().map(|c| (c - coset) / 2).sum();
    twice.iter().all(|c| c & 1 == coset && c.abs() <= 2 * q) && sum % 2 == 0
}

#[test]
fn q38_points_codes_and_decoded_rows_match() {
    let e8 = &codec("e8q38").unwrap().k;
    check_given_rotation(38, by_bytes, BYTES, |g, row, points| {
        let side = g.sides(row).map(f32_of);
        let codes: Vec<[u32; 4]> = g.row(&g.y, row).chunks_exact(8).map(|y| e8.bands[0].encode(block(y), side)).collect();
        for (code, point) in codes.iter().zip(points) {
            let lanes = e8.bands[0].decode(*code);
            let bytes = lanes[..2].iter().flat_map(|w| w.to_le_bytes());
            assert!(bytes.eq(point.map(|p| (2.0 * p + 76.0) as u8)), "code {code:08x?} of {point:?}: {lanes:08x?}");
        }
        e8.decode_row(&Row { codes, side: g.sides(row) }, g.d)
    });
}

#[test]
fn q10_points_and_decoded_rows_match() {
    check_given_rotation(
        10,
        |y, inverse, q| nearest_e8(y.map(|y| y * inverse), q),
        EXACT,
        |g, row, points| {
            let s = f32_of(g.qmax[row]) / 10.0;
            let mut x: Vec<f32> = points.as_flattened().iter().map(|p| p * s).collect();
            rotate(&mut x);
            x.iter().map(|x| x * f32_of(g.norm[row])).collect()
        },
    );
}

#[test]
fn rows_that_overflow_the_reference_saturate() {
    let e8 = &codec("e8q38").unwrap().k;
    for g in Golden::all() {
        for row in (0..g.tags.len()).filter(|&row| is_defect(g.tags[row])) {
            let coded = e8.encode_row(g.row(&g.x, row));
            let out = e8.decode_row(&coded, g.d);
            let norm = out.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            assert!(out.iter().all(|x| x.is_finite()), "D {} row {row}: {out:?}", g.d);
            assert!((60000.0..70000.0).contains(&norm) || g.tags[row] == "huge_1e4", "D {} row {row}: norm {norm}", g.d);
        }
    }
}
