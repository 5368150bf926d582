//! KIVI's groups by themselves: names, windows, what a reader sees.

use kernels_gen::kivi::{GROUP, codec};

#[test]
fn names() {
    let found = codec("kivi_k2v4").unwrap();
    assert_eq!((found.key_bits, found.value_bits, found.window), (2, 4, 128));
    assert_eq!(codec("kivi_k4v4_r32").unwrap().window, 32);
    for name in ["kivi", "kivi_k2", "kivi_k0v2", "kivi_k2v9", "kivi_k2v2_r31", "kivi_k2v2_r0", "kivi_k2v2_x", "int4"] {
        assert!(codec(name).is_none(), "{name}");
    }
}

#[test]
fn what_is_coded_follows_the_window() {
    let c = codec("kivi_k2v2_r64").unwrap();
    assert_eq!([0, 63, 64, 127, 130].map(|n| c.coded_keys(n)), [0, 0, 64, 64, 128]);
    assert_eq!([0, 63, 64, 65, 130].map(|n| c.coded_values(n)), [0, 0, 0, 1, 66]);
    assert_eq!([0, 64, 95, 96, 127, 128].map(|n| c.coded_tiles(n)), [0, 0, 0, 32, 32, 64]);
}

/// A channel that is large in every token costs a key nothing: it is a group of its own.
#[test]
fn keys_by_channel_values_by_token() {
    let c = codec("kivi_k4v4").unwrap();
    let noise = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0;
    let rows: Vec<f32> = (0..GROUP * 64).map(|i| noise(i) + if i % 64 == 5 { 300.0 } else { 0.0 }).collect();
    let off = |y: &[f32], skip: usize| rows.iter().zip(y).enumerate().filter(|(i, _)| i % 64 != skip).map(|(_, (x, y))| (x - y).abs()).fold(0.0, f32::max);
    assert!(off(&c.keys(&rows), 5) < 0.04, "{}", off(&c.keys(&rows), 5));
    // Channels 32.. are groups of their own; those beside the large one lose all.
    let values = c.values(&rows);
    assert!(off(&values, 5) > 0.5);
    assert!((0..rows.len()).filter(|i| i % 64 >= 32).all(|i| (values[i] - rows[i]).abs() < 0.04));
}

#[test]
fn degenerate_groups() {
    for x in [[0.0; GROUP], [7.0; GROUP], [f32::NAN; GROUP], [f32::INFINITY; GROUP]] {
        let y = codec("kivi_k2v2").unwrap().values(&x);
        assert!(y.iter().all(|y| y.is_finite()));
        assert_eq!(y[0], if x[0].is_nan() { 0.0 } else { x[0].min(65504.0) });
    }
}
