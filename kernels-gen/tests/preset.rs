//! Bits shared out among layers: no other choice loses less; and what fitting inverts.

use kernels_gen::preset::{Bands, Costs, Preset, inverse, menu, share};

const PRESET: Preset = Preset { name: "test", keys: &[3, 3, 3, 3], values: &[3, 3] };

fn costs(losses: &[f64]) -> Costs {
    Costs { widths: vec![3; losses.len()], losses: losses.to_vec() }
}

#[test]
fn layers_that_matter_more_get_more_and_the_total_holds() {
    let layer = |x: f64| [costs(&[8.0 * x, x, x, 0.1 * x]), costs(&[2.0 * x, x])];
    let bands = share(&[layer(1.0), layer(8.0), layer(0.01)], &PRESET, 6);
    let bits: Vec<f64> = bands.iter().map(Bands::bits).collect();
    assert!(bits[1] > bits[0] && bits[0] > bits[2], "{bands:?}");
    assert!((bits.iter().sum::<f64>() - 9.0).abs() < 0.2, "{bands:?}");
    assert!(bits.iter().sum::<f64>() <= 9.0);
    assert!(bands.iter().all(|b| b.keys.is_sorted_by(|a, b| a >= b)), "{bands:?}");
    assert!(bands[..2].iter().all(|b| b.keys[0] > b.keys[3]), "{bands:?}");
}

#[test]
fn it_is_the_best_of_all() {
    let layers = [[costs(&[1.0, 0.3]), costs(&[5.0])], [costs(&[0.2, 0.2]), costs(&[0.7])]];
    let preset = Preset { name: "test", keys: &[2, 2], values: &[2] };
    let loss = |bands: &[Bands]| bands.iter().zip(&layers).map(|(b, c)| c[0].of(&b.keys) + c[1].of(&b.values)).sum::<f64>();
    let found = share(&layers, &preset, 9);
    let (keys, values) = (menu(preset.keys), menu(preset.values));
    let each: Vec<Bands> = keys.iter().flat_map(|k| values.iter().map(move |v| (k, v))).map(|(k, v)| Bands { keys: k.clone(), values: v.clone() }).collect();
    for (a, b) in each.iter().flat_map(|a| each.iter().map(move |b| (a, b))) {
        let fits = a.bits() + b.bits() <= 4.0;
        assert!(!fits || loss(&[a.clone(), b.clone()]) >= loss(&found) - 1e-12, "{a} {b} beats {found:?}");
    }
    // one schedule for all layers is the uniform best, not better than many
    let one = share(&layers, &preset, 1);
    assert!(one[0] == one[1] && loss(&one) >= loss(&found));
}

#[test]
fn a_matrix_times_its_inverse_is_one() {
    let n = 9;
    let a: Vec<f64> = (0..n * n).map(|i| ((i * i * 7 + 3 * i) % 23) as f64 - 11.0).collect();
    let b = inverse(&a, n).unwrap();
    for i in 0..n {
        for j in 0..n {
            let sum: f64 = (0..n).map(|k| a[i * n + k] * b[k * n + j]).sum();
            assert!((sum - f64::from(u8::from(i == j))).abs() < 1e-9, "{i} {j}: {sum}");
        }
    }
    assert!(inverse(&[1.0, 2.0, 2.0, 4.0], 2).is_none());
    assert!(inverse(&[f64::NAN; 4], 2).is_none());
}
