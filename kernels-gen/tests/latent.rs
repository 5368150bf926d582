//! Formats of rows: bytes as engines have them, what is lost, what neighbours and garbage do.

mod support;

use kernels_gen::latent::{DIM, Format, GROUP, NOPE, e8m0_above, format, fp8_codes};
use support::{Random, npy_f32, npy_u8, relative_error2};

fn named(name: &str) -> Format {
    format(name).unwrap_or_else(|e| panic!("{e}"))
}

/// Rows as a norm leaves them: groups of unequal size, some large channels, RoPE's numbers `rope` times as large.
fn rows(n: usize, rope: f32) -> Vec<[f32; DIM]> {
    let mut random = Random(11);
    (0..n).map(|_| std::array::from_fn(|i| random.gaussian() * if i < NOPE { [1.0, 0.6, 1.4, 0.9, 1.1, 0.5, 1.2][i / GROUP] } else { rope } * if i % 97 == 5 { 4.0 } else { 1.0 })).collect()
}

/// Squared error over squares: numbers without a position, numbers with one.
fn lost(f: &Format, rows: &[[f32; DIM]]) -> [f64; 2] {
    let back: Vec<[f32; DIM]> = rows.iter().map(|x| f.round_trip(x)).collect();
    let part = |from: usize, to: usize| {
        let of = |rows: &[[f32; DIM]]| rows.iter().flat_map(|r| r[from..to].to_vec()).collect::<Vec<f32>>();
        relative_error2(&of(&back), &of(rows))
    };
    [part(0, NOPE), part(NOPE, DIM)]
}

#[test]
fn fp8_codes_are_those_of_the_golden_vectors() {
    let (x, d) = npy_f32("latent/x");
    let (codes, exponents) = (npy_u8("latent/codes").0, npy_u8("latent/exponents").0);
    assert_eq!(d, NOPE);
    for (row, x) in x.chunks(NOPE).enumerate() {
        let (own_codes, own_exponents) = fp8_codes(x);
        assert_eq!(own_exponents[..], exponents[row * 7..][..7], "row {row}");
        assert_eq!(own_codes[..], codes[row * NOPE..][..NOPE], "row {row}");
    }
}

#[test]
fn a_page_of_fp8_rows_is_that_of_the_engines() {
    let f = named("v4_fp8");
    // vLLM's blocks: 64 rows of the sparse layers, 2 of the heavily compressed ones.
    assert_eq!([f.row_bytes(), f.page_bytes(64), f.page_bytes(2), f.page_bytes(256)], [584, 37_440, 1_728, 149_760]);
    let mut x = [0.0; DIM];
    (x[0], x[1], x[64], x[448], x[511]) = (448.0, -1.0, 1.5, 1.0, -2.0);
    let mut page = vec![0xee; f.page_bytes(2)];
    f.store(&mut page, 2, 1, &x);
    // Row 1: codes from byte 576, RoPE's bf16 from 1024, exponents from 2 x 576 + 8.
    assert_eq!([page[576], page[577], page[578], page[576 + 64]], [0x7e, 0xb8, 0, 0x7c]);
    assert_eq!([page[1024], page[1025], page[1150], page[1151]], [0x80, 0x3f, 0x00, 0xc0]);
    assert_eq!(page[1160..1168], [127, 119, 105, 105, 105, 105, 105, 0]);
    assert!(page[..576].iter().chain(&page[1152..1160]).chain(&page[1168..]).all(|b| *b == 0xee), "bytes of others were touched");
    assert_eq!(f.load(&page, 2, 1), x);
}

#[test]
fn scales_are_the_least_powers_of_two() {
    for (x, byte) in [(1.0, 127), (1.0001, 128), (2.0, 128), (0.5, 126), (1e-4 / 448.0, 105)] {
        assert_eq!(e8m0_above(x), byte, "{x}");
    }
}

#[test]
fn rows_take_the_bytes_that_are_counted() {
    let bytes = [("v4_bf16", 1024), ("v4_fp8", 584), ("v4_mxfp4", 368), ("v4_int8_int8", 528), ("v4_e8q38_int8", 432), ("v4_e8w5_int8", 352), ("v4_int4_int8", 304), ("v4_e8w4_int8", 304), ("v4_e8w3_int8", 240), ("v4_int4_bf16", 368)];
    for (name, bytes) in bytes {
        assert_eq!(named(name).row_bytes(), bytes, "{name}");
    }
}

#[test]
fn an_unknown_name_says_which_there_are() {
    for name in ["v4", "v4_int4", "v4_int4_fp8", "v4_int1_int8", "v4_e8q64_int8", "v4_int04_int8", "fp8", "v4_bf16_bf16"] {
        let error = format(name).expect_err(name).to_string();
        assert!(error.contains(name) && error.contains("v4_mxfp4") && error.contains("e8wW (W 2 to 7)"), "{error}");
    }
    for w in 2..=7 {
        assert!(format(&format!("v4_int{w}_int8")).is_ok() && format(&format!("v4_e8w{w}_bf16")).is_ok());
    }
}

#[test]
fn more_is_lost_in_fewer_bytes_and_integers_lose_less_than_floats() {
    let rows = rows(64, 1.0);
    let of = |name: &str| lost(&named(name), &rows);
    for name in Format::FAMILIES {
        println!("{name:14} {:4} B  nope {:.3e}  rope {:.3e}", named(name).row_bytes(), of(name)[0], of(name)[1]);
    }
    // Beside the rows of engines with at least as many bytes.
    assert!(of("v4_int8_int8")[0] < 0.3 * of("v4_fp8")[0]);
    assert!(of("v4_e8q38_int8")[0] < of("v4_fp8")[0]);
    assert!(of("v4_e8w5_int8")[0] < 0.3 * of("v4_mxfp4")[0]);
    assert!(of("v4_int4_int8")[0] < of("v4_mxfp4")[0]);
    assert!(of("v4_e8w4_int8")[0] < 0.9 * of("v4_int4_int8")[0]);
    // RoPE's numbers are bytes at least; bf16 ones as exact as bf16 is.
    assert!(of("v4_int4_int8")[1] < 1e-3 && of("v4_int4_bf16")[1] < 1e-5);
}

#[test]
fn a_group_of_small_numbers_keeps_its_levels() {
    let mut rows = rows(32, 1.0);
    rows.iter_mut().for_each(|row| row[..GROUP].iter_mut().for_each(|x| *x *= 0.25));
    let small = |f: &str| {
        let back: Vec<f32> = rows.iter().flat_map(|x| named(f).round_trip(x)[..GROUP].to_vec()).collect();
        relative_error2(&back, &rows.iter().flat_map(|x| x[..GROUP].to_vec()).collect::<Vec<f32>>())
    };
    // Under the row's scale alone it would be 16 times as much.
    assert!(small("v4_int4_int8") < 0.03, "{}", small("v4_int4_int8"));
    assert!(small("v4_e8w4_int8") < 0.03, "{}", small("v4_e8w4_int8"));
}

#[test]
fn large_or_small_numbers_of_rope_spoil_nothing() {
    for rope in [0.01, 0.3, 3.0, 6.0] {
        let [nope, turned] = lost(&named("v4_int4_int8"), &rows(32, rope));
        // What RoPE's numbers lose is less than what as many of the others lose, however small they are.
        assert!(nope < 0.02 && turned * f64::from(rope * rope) < nope, "rope {rope}: {nope} {turned}");
    }
}

#[test]
fn rows_that_were_never_sound_do_no_harm() {
    let mut random = Random(5);
    for name in Format::FAMILIES {
        let f = named(name);
        assert_eq!(f.round_trip(&[0.0; DIM]), [0.0; DIM], "{name}");
        let mut odd = [1.0; DIM];
        (odd[3], odd[4], odd[5], odd[500]) = (f32::NAN, f32::INFINITY, 1e30, f32::NEG_INFINITY);
        if f.integers().is_some() {
            assert!(f.round_trip(&odd).iter().take(NOPE).all(|x| x.is_finite()), "{name}");
            let page: Vec<u8> = (0..f.page_bytes(3)).map(|_| random.bits() as u8).collect();
            assert!(f.load(&page, 3, 2).iter().take(NOPE).all(|x| x.is_finite()), "{name}");
        }
    }
}

#[test]
fn a_stored_row_touches_no_other() {
    let x = rows(1, 1.0)[0];
    for name in Format::FAMILIES {
        let f = named(name);
        let mut page = vec![0xee; f.page_bytes(4)];
        f.store(&mut page, 4, 2, &x);
        assert_eq!(f.load(&page, 4, 2), f.round_trip(&x), "{name}");
        let touched = page.iter().filter(|b| **b != 0xee).count();
        assert!(touched <= f.row_bytes(), "{name}: {touched} bytes");
    }
}
