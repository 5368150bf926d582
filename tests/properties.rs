//! Properties that hold for any input: packed tiles, codecs, the language's own mathematics.

use half::f16;
use kernel_dsl::dtype::DType;
use kernel_dsl::ir::{Feed, Packing};
use kernel_dsl::math::{exp2, exp2_or_zero, log2, sanitise};
use kernels_gen::codec::Lane;
use kernels_gen::layout::{Codes, Layout, Operand, TILE};
use kernels_gen::registry::{CodecInfo, HEAD_DIMS_STORE, codecs};
use proptest::prelude::*;

fn any_codes() -> impl Strategy<Value = Codes> {
    (1..=128_usize, 0..=2_usize, any::<bool>()).prop_map(|(bits, sides, bytewise)| Codes::of(bits, sides, bytewise))
}

fn any_layout() -> impl Strategy<Value = Layout> {
    proptest::sample::select(HEAD_DIMS_STORE.to_vec()).prop_flat_map(|d| (any_codes(), any_codes()).prop_map(move |(k, v)| Layout { k, v, d }))
}

/// The bits of a code that a codec of `bits` bits stores.
fn kept(code: [u32; 4], bits: usize) -> [u32; 4] {
    std::array::from_fn(|w| match bits.saturating_sub(32 * w) {
        0 => 0,
        n if n < 32 => code[w] & ((1 << n) - 1),
        _ => code[w],
    })
}

/// A code that differs from token to token, block to block and word to word.
fn code_of(seed: u32, token: usize, block: usize) -> [u32; 4] {
    let at = (token * 64 + block) as u32 + 1;
    std::array::from_fn(|w| seed.wrapping_add(at.wrapping_mul(0x9e37_79b9)).rotate_left(7 * w as u32).wrapping_mul(0x85eb_ca6b))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the reference packs, the tile operations of the language unpack: every token, block and feed.
    #[test]
    fn packed_codes_are_read_back(layout in any_layout(), seed in any::<u32>()) {
        let mut tile = vec![0xa5_u8; layout.tile_bytes()];
        let everywhere = || (0..TILE).flat_map(|t| (0..layout.blocks()).map(move |b| (t, b)));
        for (token, block) in everywhere() {
            layout.write_code(&mut tile, Operand::K, token, block, code_of(seed, token, block));
            layout.write_code(&mut tile, Operand::V, token, block, code_of(!seed, token, block));
        }
        let packing = |bits, feed| Packing { bits, d: layout.d, feed, lane: DType::U8, group: layout.k.group };
        let values = if layout.quads() { Feed::Quads } else { Feed::Values };
        let keys = if layout.key_quads() { Feed::KeyQuads } else { Feed::Keys };
        let (keys, values) = (packing(layout.k.bits[0], keys), packing(layout.v.bits[0], values));
        let (k, v) = tile.split_at(keys.bytes());
        for (token, block) in everywhere() {
            let (want_k, want_v) = (kept(code_of(seed, token, block), layout.k.bits[0]), kept(code_of(!seed, token, block), layout.v.bits[0]));
            prop_assert_eq!(keys.code(k, token, block), want_k);
            prop_assert_eq!(values.code(v, token, block), want_v);
            prop_assert_eq!(layout.read_code(&tile, Operand::K, token, block), want_k);
            prop_assert_eq!(layout.read_code(&tile, Operand::V, token, block), want_v);
        }
    }

    /// Each bit of a tile belongs to one place of one code or side value.
    #[test]
    fn a_tile_is_filled_exactly_once(layout in any_layout()) {
        let mut owners = vec![0_u8; 8 * layout.tile_bytes()];
        for operand in [Operand::K, Operand::V] {
            for token in 0..TILE {
                for block in 0..layout.blocks() {
                    layout.each_piece(operand, token, block, |p| owners[p.tile_bit..][..p.width].iter_mut().for_each(|n| *n += 1));
                }
                for i in 0..layout.codes(operand).sides {
                    owners[8 * layout.side_byte(operand, token, i)..][..16].iter_mut().for_each(|n| *n += 1);
                }
            }
        }
        prop_assert!(owners.iter().all(|n| *n == 1));
    }
}

/// A row of one of the head dims, large and small coordinates mixed.
fn any_row() -> impl Strategy<Value = Vec<f32>> {
    let d = proptest::sample::select(HEAD_DIMS_STORE.to_vec());
    (d, -6..10_i32).prop_flat_map(|(d, e)| {
        let scale = (e as f32).exp2();
        proptest::collection::vec(prop_oneof![4 => -1.0..1.0_f32, 1 => -1e-4..1e-4_f32], d).prop_map(move |row| row.into_iter().map(|x| x * scale).collect())
    })
}

/// Any bits at all: NaN, infinities, subnormal numbers.
fn any_bits_row() -> impl Strategy<Value = Vec<f32>> {
    let d = proptest::sample::select(HEAD_DIMS_STORE.to_vec());
    d.prop_flat_map(|d| proptest::collection::vec(any::<u32>().prop_map(f32::from_bits), d))
}

/// Steps between neighbours with integer coordinates in a lane unit, and the largest squared error of a block
/// in steps: 8 / 4 and the rounding of a side value where nothing is clipped; e8w4 clips 1.58 steps.
fn grid(c: &CodecInfo) -> (f32, f64) {
    match c.name {
        "int4" => (1.0, 8.0 * 0.505 * 0.505),
        "e8w4" => (2.0, 8.0 * 1.58 * 1.58 + 1.0 + 2.0 * 1.58),
        "e8q38" => (2.0, 2.2),
        other => panic!("{other}: say how far its points lie apart"),
    }
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// A decoded row is off by a step at most in each block; bf16 by its rounding.
    #[test]
    fn errors_are_bounded_by_the_step(row in any_row()) {
        for c in codecs() {
            let coded = c.k.encode_row(&row);
            let back = c.k.decode_row(&coded, row.len());
            let error = norm(row.iter().zip(&back).map(|(x, y)| f64::from(*x) - f64::from(*y)));
            let size = norm(row.iter().map(|x| f64::from(*x)));
            let bound = if c.k.lane == Lane::Bf16 {
                size / 256.0
            } else {
                let (lanes, block) = grid(c);
                let step = f64::from(c.k.bands[0].scale(coded.side.map(|s| f16::from_bits(s).to_f32())) * lanes);
                step * (block * (row.len() / 8) as f64).sqrt() + size / 1024.0
            };
            prop_assert!(error <= bound, "{} D {}: off by {error:e}, allowed {bound:e}", c.name, row.len());
        }
    }

    /// Whatever comes in is coded as its sanitised form, and comes out finite.
    #[test]
    fn any_bits_are_sanitised(row in any_bits_row()) {
        for c in codecs() {
            let clean: Vec<f32> = row.iter().map(|x| if x.is_nan() { 0.0 } else { x.clamp(-c.k.limit, c.k.limit) }).collect();
            let coded = c.k.encode_row(&row);
            prop_assert_eq!(&coded, &c.k.encode_row(&clean), "{}", c.name);
            prop_assert!(c.k.decode_row(&coded, row.len()).iter().all(|x| x.is_finite()), "{}", c.name);
        }
    }

    /// A decoded block codes to itself: its code is the nearest one to where it stands.
    #[test]
    fn points_code_to_themselves(y in proptest::array::uniform8(-1.2..1.2_f32), top in 0.01..100.0_f32) {
        for c in codecs().iter().filter(|c| c.exact()) {
            let side = c.k.bands[0].side(1.0, top).map(|s| f16::from_f32(s).to_f32());
            let code = c.k.bands[0].encode(y.map(|y| y * top), side);
            let lanes = c.k.bands[0].decode(code);
            let unit = c.k.bands[0].scale(side) / if c.k.unit { side[0] } else { 1.0 };
            let lane = |i: usize| (lanes[i / 4] >> (8 * (i % 4)) & 0xff) as f32;
            let point = std::array::from_fn(|i| unit * (lane(i) - c.k.zero2 as f32 / 2.0));
            prop_assert_eq!(c.k.bands[0].encode(point, side), code, "{} at {:?}", c.name, point);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exp2_is_within_its_bound(x in -126.0..126.0_f32) {
        let exact = f64::from(x).exp2();
        prop_assert!((f64::from(exp2(x)) - exact).abs() <= EXP2_ERROR * exact, "2^{x} = {}, wanted {exact}", exp2(x));
        prop_assert_eq!(exp2_or_zero(x).to_bits(), exp2(x).to_bits());
    }

    /// 3e-7 beside the rounding of the result.
    #[test]
    fn log2_is_within_its_bound(bits in 0x0080_0000..0x7f80_0000_u32) {
        let x = f32::from_bits(bits);
        let exact = f64::from(x).log2();
        let bound = 3e-7 + exact.abs() * 2.0_f64.powi(-24);
        prop_assert!((f64::from(log2(x)) - exact).abs() <= bound, "log2 {x} = {}, wanted {exact}", log2(x));
    }

    #[test]
    fn sanitise_keeps_what_is_in_range(bits in any::<u32>(), limit in 1.0..1e38_f32) {
        let (x, y) = (f32::from_bits(bits), sanitise(f32::from_bits(bits), limit));
        prop_assert!(y.abs() <= limit);
        let kept = x.abs() > limit || y.to_bits() == x.to_bits();
        prop_assert!(kept || x.is_nan() && y == 0.0, "{x} became {y}");
    }
}

/// Relative: the polynomial's, and its roundings.
const EXP2_ERROR: f64 = 2.5e-7;

/// A rescale by a difference of integer maxima is exact, and an empty maximum weighs nothing.
#[test]
fn powers_of_two_are_exact() {
    for n in -126..=126 {
        assert_eq!(exp2(n as f32), 2.0_f32.powi(n));
        assert_eq!(log2(2.0_f32.powi(n)), n as f32);
    }
    for x in [f32::NEG_INFINITY, f32::NAN, -126.5, -1e30] {
        assert_eq!(exp2_or_zero(x).to_bits(), 0);
    }
}
