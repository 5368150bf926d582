//! Every codec: round trips, lattice membership, degenerate inputs, distortion on Gaussian rows.

mod support;

use kernels_gen::codec::{Codec, Lane};
use kernels_gen::codecs::Levels;
use kernels_gen::pca::{GAUSSIAN, PUBLISHED};
use kernels_gen::registry::{FAMILIES, HEAD_DIMS_STORE, Half, codec};
use support::{Random, relative_error2};

fn lanes(c: &Half, code: [u32; 4]) -> [i32; 8] {
    let words = c.bands[0].decode(code);
    std::array::from_fn(|i| (words[i / 4] >> (8 * (i % 4)) & 0xff) as i32)
}

/// Lanes `2 d + c` with one coset bit c and digits of even sum.
fn is_e8(lanes: [i32; 8]) -> bool {
    let coset = lanes[0] & 1;
    lanes.iter().all(|l| l & 1 == coset) && lanes.iter().map(|l| l >> 1).sum::<i32>() % 2 == 0
}

/// Codecs of every family.
fn halves() -> impl Iterator<Item = (&'static str, &'static Half)> {
    FAMILIES.iter().map(|name| (*name, &codec(name).unwrap().k))
}

fn through(c: &Half, x: &[f32]) -> Vec<f32> {
    c.decode_row(&c.encode_row(x), x.len())
}

#[test]
fn e8_codes_stand_for_lattice_points_of_the_box_and_for_nothing_else() {
    let mut random = Random(1);
    for (name, sides, top_lane) in [("e8w4", [1.0, 0.0], 31), ("e8q38", [1.0, 38.0], 152)] {
        let c = &codec(name).unwrap().k;
        for round in 0..20_000 {
            // From well inside the box to far outside of it.
            let spread = top_lane as f32 * 0.3 * (round % 10) as f32 / 4.0;
            let code = c.bands[0].encode(std::array::from_fn(|_| random.gaussian() * spread), sides);
            let point = lanes(c, code);
            assert!(is_e8(point) && point.iter().all(|l| *l <= top_lane), "{name}: {point:?}");
            let again: [f32; 8] = point.map(|l| (2 * l - c.zero2) as f32 / 4.0);
            assert_eq!(c.bands[0].encode(again, sides), code, "{name}: {point:?} does not code to itself");
        }
    }
    // Every 32-bit word is a code of e8w4.
    let e8w4 = &codec("e8w4").unwrap().k;
    assert!((0..100_000).all(|_| is_e8(lanes(e8w4, [random.bits() as u32, 0, 0, 0]))));
}

#[test]
fn e8q38_decodes_every_digit() {
    let c = &codec("e8q38").unwrap().k;
    for f in 0..77 * 77 * 77 {
        let (d0, d1, d2) = (f % 77, f / 77 % 77, f / 5929);
        let coset = f % 2;
        let mut d = [d0, d1, d2, d2, d1, d0, (d0 * 7 + d2) % 77, (d1 * 3 + d0) % 77].map(|d: i32| d.min(76 - coset));
        d[7] -= (d.iter().sum::<i32>() % 2) * if d[7] > 0 { 1 } else { -1 };
        let code = c.bands[0].encode(d.map(|d| (d - 38) as f32 + 0.5 * coset as f32), [1.0, 38.0]);
        assert_eq!(lanes(c, code), d.map(|d| 2 * d + coset), "code {code:08x?}");
    }
}

/// The lowest bits of a word.
fn kept(word: u32, bits: usize) -> u32 {
    if bits < 32 { word & ((1 << bits) - 1) } else { word }
}

/// The transposed form on four codes gives the lanes of each.
#[test]
fn transposed_codes_decode_alike() {
    let mut random = Random(6);
    for (name, c) in halves().filter(|(_, c)| c.bytewise) {
        for _ in 0..10_000 {
            let codes: [[u32; 2]; 4] = std::array::from_fn(|_| [0, 32].map(|from| kept(random.bits() as u32, c.bits.saturating_sub(from))));
            let byte = |word: u32, j: usize| word >> (8 * j) & 0xff;
            let across = |k: usize| (0..4).fold(0, |word, j| word | byte(codes[j][k / 4], k % 4) << (8 * j));
            let lanes = c.bands[0].decode4(std::array::from_fn(across));
            let raised = c.bands[0].raised4(std::array::from_fn(across));
            let heights = c.bands[0].spec().raised;
            assert_eq!(raised, std::array::from_fn(|i| lanes[i] << heights[i]), "{name}: raised by {heights:?}");
            for (j, code) in codes.into_iter().enumerate() {
                let expected = c.bands[0].decode([code[0], code[1], 0, 0]);
                for (i, lane) in lanes.into_iter().enumerate() {
                    assert_eq!(byte(lane, j), byte(expected[i / 4], i % 4), "{name} code {code:08x?} dim {i}");
                }
            }
        }
    }
}

#[test]
fn the_point_is_the_best_in_the_box() {
    // Exhaustive over the cosets' candidates within one step of each coordinate.
    let mut random = Random(2);
    let c = &codec("e8w4").unwrap().k;
    let (mut all, mut lost) = (0.0, 0.0);
    for _ in 0..300 {
        let z: [f32; 8] = std::array::from_fn(|_| random.gaussian() * 4.0);
        let cost = |p: [f32; 8]| p.iter().zip(z).map(|(p, z)| f64::from(p - z).powi(2)).sum::<f64>();
        let ours = cost(lanes(c, c.bands[0].encode(z, [1.0, 0.0])).map(|l| (l - 16) as f32 / 2.0));
        let mut best = f64::INFINITY;
        for pick in 0..2 * 3_usize.pow(8) {
            let shift = (pick % 2) as f32 / 2.0;
            let near = |i: u32| (pick / 2 / 3_usize.pow(i) % 3) as f32 - 1.0;
            let m: [f32; 8] = std::array::from_fn(|i| ((z[i] - shift).round().clamp(-8.0, 7.0) + near(i as u32)).clamp(-8.0, 7.0));
            if m.iter().sum::<f32>() % 2.0 == 0.0 {
                best = best.min(cost(m.map(|m| m + shift)));
            }
        }
        // Coordinates are known to 1/256, and what moving one costs only where it is not beyond a face.
        let inside = z.iter().all(|z| (-7.8..=7.3).contains(z));
        assert!(ours >= best - 1e-4 && (!inside || ours <= best + 0.04), "{z:?}: {ours} for {best}");
        all += best;
        lost += ours - best;
    }
    println!("{:.2e} of the squared error lost", lost / all);
    assert!(lost < 2e-3 * all);
}

#[test]
fn zeros_decode_to_zeros() {
    for (name, c) in halves() {
        for d in HEAD_DIMS_STORE {
            assert!(through(c, &vec![0.0; d]).iter().all(|x| *x == 0.0), "{name} D {d}");
        }
    }
}

#[test]
fn non_finite_inputs_are_sanitised() {
    let clean = Random(3).gaussians(128);
    for (name, c) in halves() {
        for lane in [0, 60, 127] {
            let with = |x: f32| {
                let mut row = clean.clone();
                row[lane] = x;
                c.encode_row(&row)
            };
            assert_eq!(with(f32::NAN), with(0.0), "{name}");
            assert_eq!(with(f32::INFINITY), with(c.limit), "{name}");
            assert_eq!(with(f32::NEG_INFINITY), with(-c.limit), "{name}");
            for x in [f32::INFINITY, f32::MAX, 1e-40, -65504.0] {
                assert!(c.decode_row(&with(x), 128).iter().all(|x| x.is_finite()), "{name} with {x}");
            }
        }
        assert!(through(c, &[f32::MAX; 512]).iter().all(|x| x.is_finite()), "{name}");
    }
}

#[test]
fn bf16_rounds_to_nearest_even() {
    let c = &codec("bf16").unwrap().k;
    assert_eq!(c.lane, Lane::Bf16);
    assert_eq!(c.limit, half::bf16::MAX.to_f32());
    let mut random = Random(4);
    let row: Vec<f32> = (0..512).map(|_| f32::from_bits(random.bits() as u32)).map(|x| if x.is_nan() { 0.0 } else { x }).collect();
    let expected: Vec<f32> = row.iter().map(|x| half::bf16::from_f32(x.clamp(-c.limit, c.limit)).to_f32()).collect();
    assert_eq!(through(c, &row), expected);
}

/// Every code, its NaNs as 480.
#[test]
fn fp8_decodes_every_code() {
    let c = codec("fp8_e4m3").unwrap().k.bands[0];
    for code in 0..256_u32 {
        let lanes = c.decode([code << 8 | code << 24, code | code << 16, 0, 0]);
        let value = kernel_dsl::math::e4m3_value(code).to_bits() >> 16;
        assert_eq!(lanes, [value << 16, value << 16, value, value], "code {code:02x}");
    }
}

#[test]
fn distortion_on_gaussian_rows_is_as_designed() {
    // Relative squared error at D = 64, 128, 256, 512.
    let bounds = [("bf16", [3e-6; 4]), ("int4", [9.6e-3, 1.12e-2, 1.28e-2, 1.42e-2]), ("e8w4", [8.5e-3, 9.1e-3, 1.0e-2, 1.1e-2]), ("e8q38", [3.6e-4, 4.2e-4, 4.8e-4, 5.4e-4])];
    for (name, bounds) in bounds {
        let c = &codec(name).unwrap().k;
        for (d, bound) in HEAD_DIMS_STORE.into_iter().zip(bounds) {
            let mut random = Random(5);
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for _ in 0..1000 {
                let row = random.gaussians(d);
                y.extend(through(c, &row));
                x.extend(row);
            }
            let error = relative_error2(&y, &x);
            println!("{name} D {d}: {:.3} stored bits an element, relative squared error {error:.3e}", codec(name).unwrap().stored_bits_per_element(d));
            assert!(error <= bound, "{name} D {d}: {error:e} above {bound:e}");
        }
    }
}

/// A block codes to a point that codes to itself, and the code takes no more bits than it says.
fn codes_points_to_themselves(name: &str, c: &Half, rounds: i32, random: &mut Random) {
    for round in 0..rounds {
        let top = 0.01 * 1.5_f32.powi(round % 20);
        let side = c.bands[0].side(1.0, top).map(|s| half::f16::from_f32(s).to_f32());
        let code = c.bands[0].encode(std::array::from_fn(|_| random.gaussian() * top * 0.5), side);
        for (w, word) in code.into_iter().enumerate() {
            assert_eq!(word, if c.bits <= 32 * w { 0 } else { kept(word, c.bits - 32 * w) }, "{name}: {code:08x?} has more than {} bits", c.bits);
        }
        let words = c.bands[0].decode(code);
        let byte = |w: usize, i: usize| (words[w + i / 4] >> (8 * (i % 4)) & 0xff) as i32;
        let lane = |i: usize| byte(0, i) + if c.wide_lanes() { 256 * byte(2, i) } else { 0 };
        let unit = c.bands[0].scale(side) / if c.unit { side[0] } else { 1.0 };
        let point = std::array::from_fn(|i| unit * (lane(i) as f32 - c.zero2 as f32 / 2.0));
        assert_eq!(c.bands[0].encode(point, side), code, "{name}: {point:?}");
    }
}

#[test]
fn every_family_codes_points_to_themselves() {
    let mut random = Random(7);
    // `turboquant` has tests of its own: its levels are chosen by the row's range or its dims.
    for (name, c) in halves().filter(|(_, c)| c.exact() && !c.affine && !c.spread) {
        codes_points_to_themselves(name, c, 4000, &mut random);
    }
}

/// Whatever layout its codes have.
#[test]
fn every_q_codes_points_to_themselves() {
    let mut random = Random(9);
    let mut quick = vec![];
    for name in (1..=255).flat_map(|q| [format!("e8q{q}"), format!("d4q{q}")]) {
        let c = &codec(&name).unwrap().k;
        codes_points_to_themselves(&name, c, 100, &mut random);
        quick.extend(c.bytewise.then_some(name));
    }
    assert_eq!(quick.len(), 40, "decoded four at a time: {quick:?}");
}

/// Counted widths: ceil(8 log2(2Q + 1)) for E8 but at Q = 139, ceil(4 log2(2Q + 1) - 1) twice for D4.
#[test]
fn lattice_codes_take_the_counted_bits() {
    for q in 1..=255_u32 {
        let levels = u128::from(2 * q + 1);
        let ceil_log2 = |n: u128| 128 - (n - 1).leading_zeros() as usize;
        let e8 = codec(&format!("e8q{q}")).unwrap().k.bits;
        assert_eq!(e8, ceil_log2(levels.pow(8)) + usize::from(q == 139), "e8q{q}");
        assert_eq!(codec(&format!("d4q{q}")).unwrap().k.bits, 2 * ceil_log2(levels.pow(4).div_ceil(2)), "d4q{q}");
    }
}

/// Rows of a family lose no more at more bits.
#[test]
fn more_bits_lose_less() {
    for family in [&["int2", "int3", "int4", "int5", "int6", "int7", "int8"][..], &["e8w2", "e8w3", "e8w4", "e8w5", "e8w6", "e8w7"], &["e8q1", "e8q7", "e8q38", "e8q63", "e8q152"], &["d4q1", "d4q10", "d4q38", "d4q152"]] {
        let mut before = f64::INFINITY;
        for name in family {
            let c = codec(name).unwrap();
            let mut random = Random(8);
            let x: Vec<f32> = random.gaussians(500 * 128);
            let y: Vec<f32> = x.chunks(128).flat_map(|row| through(&c.k, row)).collect();
            let error = relative_error2(&y, &x);
            println!("{name}: {:.3} bits, relative squared error {error:.3e}", c.stored_bits_per_element(128));
            assert!(error < 0.5 * before, "{name}: {error:e} after {before:e}");
            before = error;
        }
    }
}

/// At high rates the shape of the cell is all that counts: 1/12 for integers, 0.0766 for D4 and 0.0717 for E8, cells of
/// volume 1. Source: Conway and Sloane, Sphere Packings, Lattices and Groups, table 2.3.
#[test]
fn lattices_have_their_granular_gain_at_high_rate() {
    let rows: Vec<f32> = Random(21).gaussians(128 * 2000).iter().map(|x| 10.0 * x).collect();
    // lanes that make 1, and the volume of a cell to the power 2/n
    let half_steps = |name| (name, 2.0, 1.0, 0.654);
    for (name, lanes, volume, gain) in [("d4q152", 1.0, 2.0_f64.sqrt(), 0.366), half_steps("e8q152"), half_steps("e8w7"), half_steps("e8c7")] {
        let c = &codec(name).unwrap().k;
        let error = |x: &[f32]| {
            let row = c.encode_row(x);
            let lane = f64::from(c.bands[0].scale(row.side.map(|side| half::f16::from_bits(side).to_f32())));
            let off = |(a, b): (&f32, f32)| ((f64::from(*a) - f64::from(b)) / (lane * lanes)).powi(2);
            x.iter().zip(c.decode_row(&row, 128)).map(off).sum::<f64>()
        };
        let moment = rows.chunks_exact(128).map(error).sum::<f64>() / rows.len() as f64 / volume;
        let found = 10.0 * (1.0 / 12.0 / moment).log10();
        assert!((found - gain).abs() < 0.05, "{name}: {found:.3} dB, not {gain}");
    }
}

#[test]
fn numbers_come_back_and_decode_to_their_lanes() {
    for levels in GAUSSIAN.into_iter().chain(PUBLISHED.map(|(_, levels)| levels)) {
        let c = Levels::new(levels);
        for turn in 0..97 {
            let numbers = std::array::from_fn(|i| ((i * 7 + turn * (i + 3)) % levels.len()) as u32);
            let code = c.of_levels(numbers);
            assert!(u64::from(code[0]) >> c.spec().bits == 0);
            assert_eq!(c.levels(code), numbers);
            let words = c.decode(code);
            for (i, number) in numbers.into_iter().enumerate() {
                let lane = i32::from(words[i / 4].to_le_bytes()[i % 4]) - 128;
                assert_eq!(lane, c.lane(number as usize));
                assert!((lane as f32 - levels[number as usize] * c.step()).abs() <= 0.5);
            }
        }
    }
}
