//! The PCA codec against vectors of the published implementation, stage by stage, under `compat`. Codes are compared
//! under the golden skeleton: signs of eigenvectors are free. See `golden/pca/README.md`.

mod support;

use half::f16;
use kernels_gen::pca::{Basis, Centres, Coded, Coding, Metric, Published, Settings, Skeleton, Small, Svd, Table, Whitening, hadamard, lloyd, nearest, pack, signs, unpack};
use support::{npy_f32, npy_u8, npy_u16, relative_error2};

/// A block of a published case.
struct Case {
    name: &'static str,
    /// its input and the first row
    x: (&'static str, usize),
    d: usize,
    settings: Settings,
    /// relative squared error about the mean, as published
    error: f64,
}

fn settings(bits: usize, rank: usize) -> Settings {
    Settings { bits, svd: Svd::Randomized, rank: Some(rank), ratio: 1.0, compat: true, ..Settings::default() }
}

fn cases() -> Vec<Case> {
    let case = |name, x, d, error, settings| Case { name, x, d, settings, error };
    let ds = Table::Published(Published::DsKeys);
    let (kd, heavy, pooled, adv) = ("x_kD128", "x_heavyD64", "x_pooled2heads_D64", "x_adversarialD32");
    let exact = Settings { svd: Svd::Exact, rank: None, ratio: 0.99, block: 128, outliers: Some(2.0), ..settings(3, 1) };
    vec![
        case("K_prod_seed17_b0", (kd, 0), 128, 0.104_413, Settings { table: ds, outliers: Some(2.0), ..settings(3, 64) }),
        case("V_prod_share_basis_b0", (kd, 0), 128, 0.184_273, Settings { table: Table::Published(Published::DsValues), share_basis: true, ..settings(2, 64) }),
        case("pooled_mse_b3_b0", (pooled, 0), 64, 0.044_100, settings(3, 32)),
        case("pooled_ip_b2_T2_b0", (pooled, 0), 64, 0.404_915, Settings { metric: Metric::InnerProduct, outliers: Some(2.0), ..settings(2, 32) }),
        case("heavy_linf_b3_b0", (heavy, 0), 64, 0.357_545, Settings { metric: Metric::Linf, ..settings(3, 32) }),
        case("heavy_b1_b1", (heavy, 256), 64, 0.480_960, Settings { block: 256, centres: 8, ..settings(1, 32) }),
        case("heavy_fp32skel_b0", (heavy, 0), 64, 0.397_325, Settings { wide: true, ..settings(2, 32) }),
        case("adv_exact_b3_b0", (adv, 0), 32, 1.149_679e-6, exact.clone()),
        case("adv_exact_b3_b1", (adv, 128), 32, 0.027_469, exact),
        case("adv_rsvd_b2_b0", (adv, 0), 32, 3.646_903e-5, Settings { block: 256, seed: 42, ..settings(2, 16) }),
    ]
}

impl Case {
    fn coding(&self) -> Coding {
        Coding::new(&self.settings, self.d, None).unwrap()
    }

    /// The rows of the block.
    fn rows(&self) -> Vec<f32> {
        let (x, d) = npy_f32(&format!("pca/{}", self.x.0));
        assert_eq!(d, self.d);
        x[self.x.1 * d..(self.x.1 + self.settings.block) * d].to_vec()
    }

    fn u16s(&self, what: &str) -> Vec<u16> {
        npy_u16(&format!("pca/{}_{what}", self.name)).0
    }

    /// A part of the skeleton.
    fn stored(&self, what: &str) -> (Vec<f32>, usize) {
        if self.settings.wide {
            return npy_f32(&format!("pca/{}_{what}_f32", self.name));
        }
        let (bits, last) = npy_u16(&format!("pca/{}_{what}_f16", self.name));
        (bits.into_iter().map(|b| f16::from_bits(b).to_f32()).collect(), last)
    }

    fn basis(&self) -> Basis {
        Basis { scale: 1.0, mean: self.stored("mean").0, rows: self.stored("basis").0, captured: 1.0 }
    }

    fn centres(&self) -> Centres {
        let (rows, rank) = self.stored("centers");
        Centres { rows, rank }
    }

    /// The codes of all rows.
    fn codes(&self) -> Vec<Coded> {
        let (segments, t, norms) = (self.u16s("seg"), self.u16s("t"), self.u16s("norm"));
        let (packed, width) = npy_u8(&format!("pca/{}_packed", self.name));
        let has = self.settings.outliers.is_some() && self.name != "adv_exact_b3_b0";
        let counts = if has { self.u16s("ocount") } else { vec![0; t.len()] };
        let (indices, values) = if has { (self.u16s("oidx"), self.u16s("oval")) } else { (vec![], vec![]) };
        let mut pairs = indices.into_iter().zip(values);
        let row = |i: usize| Coded { segment: segments[i], t16: t[i], norm16: norms[i], packed: packed[i * width..(i + 1) * width].to_vec(), outliers: pairs.by_ref().take(usize::from(counts[i])).collect() };
        (0..t.len()).map(row).collect()
    }
}

#[test]
fn the_random_source_is_the_published_one() {
    let mut small = Small::new(42);
    let wanted = [2_939_647_976_913_485_485, 5_612_343_741_886_906_158, 5_452_211_403_613_372_577];
    assert_eq!(wanted.map(|_| small.bits()), wanted);
    for (seed, n, first) in [(0, 512, 229), (1, 7, 0), (42, 500, 79), (0xCAFE_BABE, 512, 377), (0xDEAD_BEEF, 500, 272)] {
        assert_eq!(Small::new(seed).below(n), first, "{seed} {n}");
    }
    let mut small = Small::new(0x9E37_79B9_7F4A_7C15);
    let wanted = [1_068_565_432, 1_063_013_103, 1_073_509_681, 3_222_096_529, 1_074_446_062];
    for bits in wanted {
        let (ours, theirs) = (small.gaussian(), f32::from_bits(bits));
        assert!((ours - theirs).abs() <= 2e-6, "{ours} {theirs}");
    }
    let text: String = signs(0xDEAD_BEEF, 16).iter().map(|s| if *s > 0.0 { '+' } else { '-' }).collect();
    assert_eq!(text, "++--+-++--++---+");
}

#[test]
fn rotation_and_levels_match() {
    for n in [64, 128] {
        let ((x, _), (y, _)) = (npy_f32(&format!("pca/wht_{n}_3405691582_x")), npy_f32(&format!("pca/wht_{n}_3405691582_y")));
        let signs = signs(3_405_691_582, n);
        for (x, y) in x.chunks(n).zip(y.chunks(n)) {
            let mut ours: Vec<f32> = x.iter().zip(&signs).map(|(x, s)| x * s).collect();
            hadamard(&mut ours);
            assert_eq!(ours, y);
        }
    }
    for bits in 1..=4 {
        let levels = kernels_gen::pca::GAUSSIAN[bits - 1];
        for metric in ["mse", "linf"] {
            let golden = npy_u8(&format!("pca/quant_b{bits}_{metric}_idx")).0;
            let packed = npy_u8(&format!("pca/quant_b{bits}_{metric}_packed")).0;
            let x = npy_f32(&format!("pca/quant_b{bits}_x")).0;
            let ours: Vec<u16> = x.iter().map(|x| nearest(levels, *x)).collect();
            assert!(ours.iter().zip(&golden).all(|(a, b)| *a == u16::from(*b)), "{bits} {metric}");
            assert_eq!(pack(&ours, bits), packed);
            assert_eq!(unpack(&packed, bits, ours.len()), ours);
        }
    }
}

#[test]
fn codes_match_under_the_golden_skeleton() {
    for case in cases() {
        let (coding, basis, centres) = (case.coding(), case.basis(), case.centres());
        let skeleton = Skeleton { basis: &basis, centres: &centres };
        let (mut bytes, mut flips, mut sides, mut beyond) = (0, 0, 0, 0);
        for (x, golden) in case.rows().chunks_exact(case.d).zip(case.codes()) {
            let ours = coding.rules().encode(skeleton, x);
            assert_eq!(ours.segment, golden.segment, "{}", case.name);
            for (a, b) in [(ours.t16, golden.t16), (ours.norm16, golden.norm16)] {
                sides += usize::from(a != b);
                assert!(a.abs_diff(b) <= 1, "{}: {a} against {b}", case.name);
            }
            bytes += golden.packed.len();
            flips += ours.packed.iter().zip(&golden.packed).filter(|(a, b)| a != b).count();
            beyond += usize::from(ours.outliers.len() != golden.outliers.len());
        }
        println!("{}: {flips} of {bytes} bytes, {sides} sides, outliers of {beyond} rows", case.name);
        assert!(flips * 200 <= bytes && beyond <= 2 && sides * 50 <= bytes, "{}", case.name);
    }
}

#[test]
fn decoded_rows_match_given_the_codes() {
    for case in cases() {
        let (coding, basis, centres) = (case.coding(), case.basis(), case.centres());
        let skeleton = Skeleton { basis: &basis, centres: &centres };
        let golden = npy_f32(&format!("pca/{}_dec", case.name)).0;
        let ours: Vec<f32> = case.codes().iter().flat_map(|coded| coding.rules().decode(skeleton, coded)).collect();
        let top = case.rows().iter().fold(0.0_f32, |top, x| top.max(x.abs()));
        let worst = ours.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{}: {:e} of the largest number", case.name, worst / top);
        assert!(worst <= 2e-5 * top, "{}", case.name);
    }
}

#[test]
fn skeletons_span_the_golden_planes() {
    for case in cases().into_iter().filter(|case| !case.settings.share_basis) {
        let (rows, golden) = (case.rows(), case.basis());
        let ours = Basis::fit(&case.settings, &rows, case.d).unwrap();
        assert_eq!(ours.rank(), golden.rank(), "{}", case.name);
        let top = golden.mean.iter().fold(0.0_f32, |top, m| top.max(m.abs()));
        assert!(ours.mean.iter().zip(&golden.mean).all(|(a, b)| (a - b).abs() <= 1e-3 * top), "{}", case.name);
        // every component of the golden plane lies in ours
        let mut outside = 0.0_f32;
        for row in golden.rows.chunks_exact(case.d) {
            let inside: f32 = ours.rows.chunks_exact(case.d).map(|o| o.iter().zip(row).map(|(a, b)| a * b).sum::<f32>().powi(2)).sum();
            outside = outside.max(1.0 - inside);
        }
        println!("{}: {outside:e} outside", case.name);
        assert!(outside < 5e-3, "{}: {outside}", case.name);
        // the golden coordinates make the golden centres
        let coordinates: Vec<f32> = rows.chunks_exact(case.d).flat_map(|x| golden.project(x)).collect();
        let centres = Centres::fit(&case.settings, &coordinates, golden.rank()).unwrap();
        let error = relative_error2(&centres.rows, &case.centres().rows);
        println!("{}: centres differ by {error:e}", case.name);
        assert!(error < 1e-4, "{}: {error}", case.name);
    }
}

#[test]
fn whole_blocks_lose_what_the_published_ones_lose() {
    for case in cases().into_iter().filter(|case| !case.settings.share_basis) {
        let (coding, rows) = (case.coding(), case.rows());
        let decoded = coding.decode(&coding.encode(&rows).unwrap()).unwrap();
        let mut mean = vec![0.0; case.d];
        rows.chunks_exact(case.d).for_each(|x| mean.iter_mut().zip(x).for_each(|(m, x)| *m += x));
        mean.iter_mut().for_each(|m| *m /= case.settings.block as f32);
        let about = |x: &[f32]| x.iter().enumerate().map(|(i, x)| x - mean[i % case.d]).collect::<Vec<f32>>();
        let error = relative_error2(&about(&decoded), &about(&rows));
        println!("{}: {error:e}, published {:e}", case.name, case.error);
        // rows of six orders of magnitude: the published sketch loses small directions in f32, ours is f64
        let wide = case.name == "adv_rsvd_b2_b0";
        let share = error / case.error;
        assert!(share < 1.03 && (wide || share > 0.97), "{}: {error} against {}", case.name, case.error);
    }
}

#[test]
fn preconditioning_matches() {
    let ((sigma, d), (k, _)) = (npy_f32("pca/qp_sigma"), npy_f32("pca/qp_k"));
    let all: Vec<Vec<f32>> = ["chol", "inv", "kw", "ku"].map(|n| npy_f32(&format!("pca/qp_{n}")).0).into();
    for head in 0..2 {
        let moments: Vec<f64> = sigma[head * d * d..][..d * d].iter().map(|x| f64::from(*x)).collect();
        let w = Whitening::of(&moments, d).unwrap();
        let of = |m: &[f32]| m[head * d * d..][..d * d].to_vec();
        assert!(relative_error2(&w.factor, &of(&all[0])) < 1e-8);
        assert!(relative_error2(&w.inverse, &of(&all[1])) < 1e-6);
        for token in 0..50 {
            let at = (token * 2 + head) * d;
            let x = &k[at..at + d];
            assert!(relative_error2(&w.forth(x), &all[2][at..at + d]) < 1e-8);
            assert!(relative_error2(&w.back(&w.forth(x)), x) < 1e-6);
        }
    }
}

#[test]
fn fitted_levels_match() {
    let samples = npy_f32("pca/lm_samples").0;
    let golden: [&[f32]; 2] = [&[-1.565_875_8, -0.414_021_73, 0.486_694_16, 1.624_746_7], &[-2.781_057, -1.518_045_5, -0.792_153_95, -0.213_106_6, 0.324_513_14, 0.916_012_5, 1.667_465_4, 3.124_499_8]];
    for (bits, golden) in [2, 3].into_iter().zip(golden) {
        let ours = lloyd(&samples, kernels_gen::pca::GAUSSIAN[bits - 1]);
        assert!(ours.iter().zip(golden).all(|(a, b)| (a - b).abs() < 1e-5), "{ours:?} against {golden:?}");
    }
}
