//! The PCA codec by itself: what the published implementation gets wrong, every switch, and the bytes that are stored.

mod support;

use kernels_gen::pca::{Block, Coding, Grouping, Metric, Norm, PcaError, Settings, Stream, Svd, Table, codec, eigen, gather, scatter};
use support::{Random, relative_error2};

const D: usize = 32;

fn settings() -> Settings {
    Settings { block: 128, centres: 8, ..Settings::default() }
}

/// Rows with a mean and a falling spectrum, like keys. `[n, D]`
fn rows(n: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let at = |i: usize| (-(i as f32) / 8.0).exp();
    (0..n * D).map(|x| 0.5 * ((x % D) as f32).sin() + at(x % D) * random.gaussian()).collect()
}

fn round_trip(settings: &Settings, rows: &[f32]) -> Result<Vec<f32>, PcaError> {
    let coding = Coding::new(settings, D, None)?;
    coding.decode(&coding.encode(rows)?)
}

fn error(settings: &Settings, rows: &[f32]) -> f64 {
    relative_error2(&round_trip(settings, rows).unwrap(), rows)
}

#[test]
fn the_inner_product_metric_keeps_the_norm_but_in_compat() {
    let rows: Vec<f32> = rows(128, 1).iter().map(|x| 30.0 * x).collect();
    let ip = Settings { metric: Metric::InnerProduct, ..settings() };
    assert_eq!(error(&ip, &rows), error(&settings(), &rows));
    let lost = Settings { compat: true, ..ip };
    assert!(error(&lost, &rows) > 5.0 * error(&Settings { compat: true, ..settings() }, &rows));
}

#[test]
fn rows_of_any_size_lose_the_same_share() {
    let plain = rows(128, 2);
    let error_at = |settings: &Settings, size: f32| error(settings, &plain.iter().map(|x| x * size).collect::<Vec<f32>>());
    let one = error_at(&settings(), 1.0);
    for size in [1e-20, 1e-5, 1e5, 1e20] {
        let share = error_at(&settings(), size) / one;
        assert!((0.8..1.25).contains(&share), "{size}: {share} times the error");
    }
    // powers of two change no bit
    assert_eq!(error_at(&settings(), 2.0_f32.powi(-40)), one);
    let compat = Settings { compat: true, ..settings() };
    assert!(error_at(&compat, 1e-5) > 10.0 * error_at(&compat, 1.0), "the absolute threshold is gone from compat");
}

#[test]
fn equal_rows_zeros_and_single_rows_come_back() {
    let compat = Settings { compat: true, ..settings() };
    for level in [0.0, 1.0, -3.75, 1e5] {
        let constant = vec![level; 128 * D];
        assert!(level == 0.0 || error(&settings(), &constant) < 1e-6);
        let found = round_trip(&compat, &constant).unwrap_err();
        assert!(matches!(found, PcaError::Original { does: "panics", .. }), "{found}");
    }
    assert!(round_trip(&settings(), &vec![0.0; 128 * D]).unwrap().iter().all(|x| *x == 0.0));
    let mut one = vec![0.0; 128 * D];
    one[5 * D + 3] = 7.0;
    let decoded = round_trip(&settings(), &one).unwrap();
    assert!(relative_error2(&decoded, &one) < 1e-3);
    // rows that are all in the plane of mean and centre leave a residual of nothing
    let line: Vec<f32> = (0..128 * D).map(|x| if x % D == 0 { (x / D) as f32 } else { 0.0 }).collect();
    let exact = Settings { centres: 1, ..settings() };
    let compat = Settings { compat: true, ..exact.clone() };
    assert!(error(&exact, &line) < 1e-6);
    assert!(error(&exact, &line) <= error(&compat, &line));
}

#[test]
fn numbers_that_are_none_are_replaced() {
    let mut broken = rows(128, 3);
    broken[77] = f32::NAN;
    broken[D + 5] = f32::INFINITY;
    broken[2 * D] = f32::MIN;
    assert!(round_trip(&settings(), &broken).unwrap().iter().all(|x| x.is_finite()));
    let found = round_trip(&Settings { compat: true, ..settings() }, &broken).unwrap_err();
    assert!(found.to_string().contains("never ends"), "{found}");
}

#[test]
fn an_offset_beyond_f16_is_no_harm() {
    let far: Vec<f32> = rows(128, 4).iter().map(|x| x + 1e5).collect();
    assert!(error(&settings(), &far) < 1e-6);
    let compat = Settings { compat: true, ..settings() };
    assert!(round_trip(&compat, &far).unwrap_err().to_string().contains("beyond the range of f16"));
}

#[test]
fn fewer_rows_than_the_sketch_wants() {
    let few = Settings { block: 16, centres: 4, svd: Svd::Randomized, rank: Some(16), ratio: 1.0, ..settings() };
    assert!(error(&few, &rows(16, 5)) < 0.1);
    let found = round_trip(&Settings { compat: true, ..few }, &rows(16, 5)).unwrap_err();
    assert!(found.to_string().contains("fewer rows"), "{found}");
}

#[test]
fn every_switch_does_what_it_says() {
    let rows = rows(512, 6);
    let base = error(&settings(), &rows);
    let of = |settings: Settings| error(&settings, &rows);
    assert!(of(Settings { bits: 4, ..settings() }) < base && base < of(Settings { bits: 2, ..settings() }));
    assert!(of(Settings { ratio: 1.0, ..settings() }) < base, "components");
    assert!(of(Settings { rank: Some(4), ..settings() }) > base, "rank");
    assert!(of(Settings { outliers: Some(1.5), ..settings() }) < base, "outliers");
    assert!(of(Settings { share_basis: true, ..settings() }) < 1.3 * base, "shared basis");
    let full = Settings { ratio: 1.0, ..settings() };
    let sketched = of(Settings { svd: Svd::Randomized, rank: Some(D), ..full.clone() });
    assert!((sketched / of(full) - 1.0).abs() < 0.1, "a sketch of full rank is the exact basis");
    // ours counts variance against the whole, the published sketch against itself
    let sketch = Settings { svd: Svd::Randomized, rank: Some(12), ratio: 0.9, ..settings() };
    let rank = |settings: &Settings| Coding::new(settings, D, None).unwrap().encode(&rows).unwrap().blocks[0].basis.as_ref().unwrap().rank();
    assert!(rank(&Settings { compat: true, ..sketch.clone() }) <= rank(&sketch));
    assert_ne!(of(Settings { seed: 7, ..settings() }), base);
    assert_eq!(of(settings()), base, "the same seed, the same bits");
}

#[test]
fn corrected_norms_are_those_of_the_rows() {
    let rows = rows(128, 7);
    let norms = |norm| {
        let plain = Settings { ratio: 1.0, centres: 1, bits: 1, norm, ..settings() };
        let coding = Coding::new(&plain, D, None).unwrap();
        let stream = coding.encode(&rows).unwrap();
        let basis = stream.blocks[0].basis.clone().unwrap();
        let decoded = coding.decode(&stream).unwrap();
        let length = |x: &[f32]| basis.project(x).iter().map(|c| c * c).sum::<f32>().sqrt();
        rows.chunks(D).zip(decoded.chunks(D)).map(|(a, b)| (length(b) / length(a) - 1.0).abs()).sum::<f32>() / 128.0
    };
    assert!(norms(Norm::Corrected) < 0.3 * norms(Norm::Plain), "{} {}", norms(Norm::Corrected), norms(Norm::Plain));
}

#[test]
fn bytes_hold_everything_and_are_all_that_is_counted() {
    let rows = rows(300, 8);
    for (share_basis, outliers, wide) in [(false, None, false), (true, Some(1.5), false), (false, Some(2.0), true)] {
        let settings = Settings { share_basis, outliers, wide, ..settings() };
        let coding = Coding::new(&settings, D, None).unwrap();
        let stream = coding.encode(&rows).unwrap();
        assert_eq!((stream.blocks.len(), stream.tail.len()), (2, 44 * D));
        let shared = stream.shared.as_ref().map(|b| b.to_bytes(&settings));
        let read = shared.as_ref().map(|b| kernels_gen::pca::Basis::from_bytes(&settings, b, D).unwrap());
        let blocks: Vec<Vec<u8>> = stream.blocks.iter().map(|b| b.to_bytes(&settings)).collect();
        let again = blocks.iter().map(|b| Block::from_bytes(&settings, read.as_ref(), b, D).unwrap());
        let again = Stream { shared: read.clone(), blocks: again.collect(), tail: stream.tail.clone() };
        assert_eq!(coding.decode(&again).unwrap(), coding.decode(&stream).unwrap());
        let counted = shared.as_ref().map_or(0, Vec::len) + blocks.iter().map(Vec::len).sum::<usize>();
        assert_eq!(stream.coded_bytes(&settings), counted);
        // cut anywhere, it is refused
        for cut in [0, 1, blocks[0].len() / 2, blocks[0].len() - 1] {
            assert!(Block::from_bytes(&settings, read.as_ref(), &blocks[0][..cut], D).is_err());
        }
        assert!(Block::from_bytes(&settings, read.as_ref(), &[&blocks[0][..], &[0]].concat(), D).is_err());
    }
}

#[test]
fn sizes_by_hand() {
    let plain = Settings { ratio: 1.0, rank: Some(16), ..settings() };
    let coding = Coding::new(&plain, D, None).unwrap();
    let stream = coding.encode(&rows(128, 9)).unwrap();
    // scale, rank, mean, components; count, centres; segments of 3 bits, t and norm, 16 coordinates of 3 bits
    let bytes = 4 + 2 + 2 * D + 2 * 16 * D + 2 + 2 * 8 * 16 + 128 * 3 / 8 + 2 * 128 * 2 + 128 * 6;
    assert_eq!(stream.coded_bytes(&plain), bytes);
}

#[test]
fn fitted_levels_beat_gaussian_ones_on_clipped_coordinates() {
    let rows = rows(512, 10);
    let clipped = Settings { outliers: Some(1.2), bits: 2, ..settings() };
    let fitted = Settings { table: Table::Fitted, ..clipped.clone() };
    let coding = Coding::new(&fitted, D, None).unwrap();
    assert!(matches!(coding.encode(&rows), Err(PcaError::Missing { .. })));
    let levels = coding.fitted(&coding.samples(&rows).unwrap());
    assert!(levels.iter().all(|level| level.abs() < 1.2), "{levels:?}");
    let ours = Coding::new(&fitted, D, Some(&levels)).unwrap();
    let decoded = ours.decode(&ours.encode(&rows).unwrap()).unwrap();
    assert!(relative_error2(&decoded, &rows) < error(&clipped, &rows));
}

#[test]
fn heads_apart_or_pooled() {
    let all = rows(64, 11);
    for grouping in [Grouping::Head, Grouping::Pooled] {
        let streams = gather(grouping, &all, 2, D);
        assert_eq!(streams.len(), if grouping == Grouping::Head { 2 } else { 1 });
        assert_eq!(scatter(grouping, &streams, 2, D), all);
    }
    assert_eq!(gather(Grouping::Head, &all, 2, D)[1][..D], all[D..2 * D]);
}

#[test]
fn names() {
    let of = |name: &str| codec(name).unwrap();
    let v13 = of("pca_v13").unwrap();
    assert!(v13.k.bits == 3 && v13.k.precondition && v13.k.outliers == Some(2.0) && !v13.k.share_basis);
    assert!(v13.v.bits == 2 && !v13.v.precondition && v13.v.outliers.is_none() && v13.v.share_basis);
    let plain = of("pca_b4_vr100_k32_r96_t2_exact_head_raw0.5").unwrap();
    assert!((plain.k.bits, plain.k.centres, plain.k.rank, plain.k.ratio) == (4, 32, Some(96), 1.0));
    assert_eq!((plain.v.outliers, plain.v.raw_layers.clone()), (Some(2.0), vec![0, 5]));
    let two = of("pca_b3_qp/pca_b2_share").unwrap();
    assert!(two.k.precondition && !two.k.share_basis && two.v.share_basis && two.v.bits == 2);
    assert!(codec("int4").is_none() && codec("int4/e8w4").is_none());
    for name in ["pca_b5", "pca_", "pca_v13_x", "pca_b3_k", "pca_b3/int4", "pca_b3_vrx", "pca_b3_raw", "pca_b3__t2"] {
        let found = of(name).unwrap_err().to_string();
        assert!(found.contains(name) && found.contains("pca_v13"), "{found}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let bad = |settings: Settings| Coding::new(&settings, D, None).unwrap_err().to_string();
    assert!(bad(Settings { bits: 5, ..settings() }).contains("1 to 4"));
    assert!(bad(Settings { ratio: 0.0, ..settings() }).contains("variance ratio"));
    assert!(bad(Settings { ratio: f32::NAN, ..settings() }).contains("variance ratio"));
    assert!(bad(Settings { rank: Some(33), ..settings() }).contains("1 to 32"));
    assert!(bad(Settings { centres: 0, ..settings() }).contains("centres"));
    assert!(bad(Settings { centres: 129, ..settings() }).contains("1 to 128"));
    assert!(bad(Settings { outliers: Some(-1.0), ..settings() }).contains("threshold"));
    assert!(bad(Settings { precondition: true, before_rope: false, ..settings() }).contains("exclude each other"));
    assert!(bad(Settings { compat: true, norm: Norm::Corrected, ..settings() }).contains("norm correction"));
    let published = Table::Published(kernels_gen::pca::Published::DsValues);
    assert!(bad(Settings { bits: 4, table: published, ..settings() }).contains("none of 4 bits"));
    let short = Coding::new(&Settings { table: Table::Fitted, ..settings() }, D, Some(&[0.0, 1.0]));
    assert!(short.unwrap_err().to_string().contains("8 rising levels"));
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn symmetric(n: usize) -> Vec<f64> {
    let at = |i: usize, j: usize| ((i * j * 7 + 3 * (i + j)) % 23) as f64 - 11.0;
    (0..n * n).map(|x| at(x / n, x % n)).collect()
}

#[test]
fn eigenvectors_are_orthogonal_and_rebuild_the_matrix() {
    for n in [1, 2, 3, 17, 64] {
        let a = symmetric(n);
        let (values, vectors) = eigen(&a, n);
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        for (i, j) in (0..n * n).map(|x| (x / n, x % n)) {
            let product = inner(&vectors[i * n..][..n], &vectors[j * n..][..n]);
            assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12, "{n}: {i} {j} {product}");
            let sum: f64 = (0..n).map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j]).sum();
            assert!((sum - a[i * n + j]).abs() < 1e-10, "{n}: {i} {j} {sum}");
        }
    }
}

#[test]
fn degenerate_matrices_have_bases_too() {
    for a in [vec![0.0; 81], (0..81).map(|x| f64::from(u8::from(x % 10 == 0))).collect(), vec![1.0; 81]] {
        let (_, vectors) = eigen(&a, 9);
        for (i, j) in (0..81).map(|x| (x / 9, x % 9)) {
            let product = inner(&vectors[i * 9..][..9], &vectors[j * 9..][..9]);
            assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12);
        }
    }
}
