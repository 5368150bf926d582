//! Pages of the PCA codec: they hold what the codec says, attention over them is attention over those numbers, and every stage of
//! both kernels has the reference's bits.

#[path = "support/attending.rs"]
mod attending;
#[path = "support/stages.rs"]
mod run;
mod support;

use attending::{Launches, attends};
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::pca as fused;
use kernels_gen::pca::pages::{BLOCK, Before, PcaLayout, PcaPages, open, open_fitted, plain_speeds};
use kernels_gen::pca::{Coding, Whitening};
use kernels_gen::reference::{self, CacheShape, PcaHead, Status};
use run::{assert_bytes, buffer, global, interpreted, memory, scalar, shuffled, stages};
use support::{Random, relative_error2};

const KV_HEADS: usize = 2;

fn pages(name: &str) -> &'static PcaPages {
    open(name).expect("a name of the family").unwrap_or_else(|e| panic!("{e}"))
}

/// Rows with a mean and a falling spectrum in turned coordinates, as keys have them.
fn rows(random: &mut Random, n: usize, d: usize) -> Vec<f32> {
    let mut x = random.gaussians(n * d);
    for row in x.chunks_mut(d) {
        row.iter_mut().enumerate().for_each(|(i, x)| *x *= 3.0 * (-(i as f32) / 20.0).exp());
        reference::rotate(row);
        row.iter_mut().enumerate().for_each(|(i, x)| *x += (i as f32).sin());
    }
    x
}

/// Pages of keys and values, and that of the bases they share.
fn paged(c: &'static PcaPages, k: &[f32], v: &[f32], d: usize) -> PcaHead {
    let bases = (c.lead() > 0).then(|| c.fit_bases(k, v, d).unwrap());
    let head = PcaHead::new(c, d);
    let mut head = if let Some(bases) = &bases { head.under(bases) } else { head };
    for (k, v) in k.chunks_exact(BLOCK * d).zip(v.chunks_exact(BLOCK * d)) {
        let page = c.encode(bases.as_deref(), k, v, d).unwrap();
        assert_eq!(page.len(), PcaLayout::of(c, d).page_bytes());
        head.push(&page);
    }
    head
}

/// What pages stand for is what the codec decodes, but for the bytes of matrices and of outliers.
#[test]
fn pages_hold_the_codecs_numbers() {
    for (name, d) in [
        ("pca_b3_post_ds_t2_r64_vr100/pca_b2_share_ds_r64_vr100", 128),
        ("pca_b3_r64_vr100", 128),
        ("pca_b4_t2_vr100/pca_b2_t2_vr100", 64),
        ("pca_b4_post_share_t3_vr100/pca_b4_share_t3_vr100", 64),
        ("pca_b2_post_share_vr100/pca_b3_vr100", 64),
        ("pca_b3_post_r64_vr100", 128),
        ("pca_b4_post_vr100", 64),
        ("pca_b2_post_k1_r64_vr100/pca_b1_k16_qwen_b2_r64_vr100", 128),
        ("pca_b3_post_random_ds_vr100/pca_b4_norm_r128_vr100", 128),
    ] {
        let (c, mut random) = (pages(name), Random(d as u64));
        let blocks = 1 + c.lead();
        let (k, v) = (rows(&mut random, blocks * BLOCK, d), rows(&mut random, blocks * BLOCK, d));
        let head = paged(c, &k, &v, d);
        for ((numbers, rows), settings) in head.numbers().iter().zip([&k, &v]).zip([&c.k, &c.v]) {
            let numbers: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
            let coding = Coding::new(settings, d, None).unwrap();
            let plain = coding.decode(&coding.encode(rows).unwrap()).unwrap();
            let off = relative_error2(&numbers, &plain);
            // Under a basis in bytes k-means may end elsewhere, as well.
            assert!(settings.share_basis || off < 4e-4, "{name}: {off} of the codec's rows");
            let (own, its) = (relative_error2(&numbers, rows), relative_error2(&plain, rows));
            assert!((own / its - 1.0).abs() < if settings.share_basis { 0.05 } else { 0.02 }, "{name}: error {own}, the codec's {its}");
        }
    }
}

#[test]
fn what_pages_cannot_hold_is_refused_in_words() {
    for (name, wanted) in [
        ("pca_b3_share", "_own"),
        ("pca_b3_theta1", "above 1"),
        ("pca_v13", "_head"),
        ("pca_b3_post_k32", "16"),
        ("pca_b3_post_n256", "_n512"),
        ("pca_b3_post_fitted", "levels of its own"),
        ("pca_b3_post_compat", "_compat"),
        ("pca_b3_post_raw0", "bf16"),
    ] {
        let text = open(name).unwrap().unwrap_err().to_string();
        assert!(text.contains(wanted), "{name}: {text}");
    }
    assert!(open("int4").is_none());
    let c = pages("pca_b3_post_r64");
    assert!(c.encode(None, &[0.0; 128], &[0.0; 128], 128).unwrap_err().to_string().contains("512 rows"));
    let sharing = pages("pca_b3_post_r64/pca_b2_share_r64");
    for bases in [None, Some(vec![0; 7]), Some(vec![0xff; PcaLayout::of(sharing, 128).page_bytes()])] {
        let text = sharing.encode(bases.as_deref(), &[0.0; BLOCK * 128], &[0.0; BLOCK * 128], 128).unwrap_err().to_string();
        assert!(text.contains("shared bases"), "{text}");
    }
    assert!(sharing.fit_bases(&[0.0; 64], &[0.0; 64], 128).unwrap_err().to_string().contains("at least two"));
    // Rows that are all alike, zeros and numbers that are none.
    for x in [0.0, 7.0, f32::NAN, f32::INFINITY] {
        let mut head = PcaHead::new(c, 128);
        head.push(&c.encode(None, &vec![x; BLOCK * 128], &vec![x; BLOCK * 128], 128).unwrap());
        let wanted = if x.is_nan() { 0.0 } else { f64::from(x.min(65504.0)) };
        assert!(head.numbers().iter().flatten().all(|y| (y - wanted).abs() <= 1e-3 * wanted), "{x}");
    }
}

/// Keys as attention meets them.
fn turned(c: &PcaPages, keys: &[f64], d: usize) -> Vec<f64> {
    let speeds = if c.k.before_rope { plain_speeds(c.k.theta, d) } else { vec![0.0; d / 2] };
    let half = d / 2;
    let of = |at: usize| {
        let (token, i) = (at / d, at % d);
        let (x, y) = (keys[token * d + i % half], keys[token * d + i % half + half]);
        let (sin, cos) = (token as f64 * speeds[i % half]).sin_cos();
        if i < half { x * cos - y * sin } else { y * cos + x * sin }
    };
    (0..keys.len()).map(of).collect()
}

/// f64 attention over the numbers that pages stand for.
fn exact(q: &[f32], keys: &[f64], values: &[f64], d: usize, len: usize, scale: f32) -> (Vec<f64>, f64) {
    let dot = |t: usize| q.iter().zip(&keys[t * d..]).map(|(q, k)| f64::from(*q) * k).sum::<f64>() * f64::from(scale);
    let scores: Vec<f64> = (0..len).map(dot).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
    let out = (0..d).map(|c| (0..len).map(|t| (scores[t] - top).exp() / total * values[t * d + c]).sum());
    (out.collect(), top + total.ln())
}

#[test]
fn attention_is_that_of_the_numbers() {
    for (name, d) in
        [("pca_b3_post_r64", 128), ("pca_b4_post", 64), ("pca_b2_post_k1/pca_b1_r64", 128), ("pca_b3_post_share_t2_r64/pca_b2_share_t2_r64", 128), ("pca_b3_r64", 128), ("pca_b4_theta1000000", 64), ("pca_b3_ds_t2_r64/pca_b2_share_r64", 128)]
    {
        let (c, mut random, scale) = (pages(name), Random(3 + d as u64), 1.0 / (d as f32).sqrt());
        let head = paged(c, &rows(&mut random, 3 * BLOCK, d), &rows(&mut random, 3 * BLOCK, d), d);
        let [keys, values] = head.numbers();
        let keys = turned(c, &keys, d);
        for (len, loud) in [(1, 1.0_f64), (300, 1.0), (1536, 1.0), (1111, 4.0)] {
            let q: Vec<f32> = random.gaussians(d).iter().map(|q| q * loud as f32).collect();
            let (out, lse) = head.attend(&q, len, 1 + len % 2, scale);
            let (wanted, total) = exact(&q, &keys, &values, d, len, scale);
            let size = wanted.iter().map(|x| x.abs()).fold(0.0, f64::max);
            let off = out.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(off < 1e-3 * size * loud, "{name} d {d} len {len}: off by {off}, outputs up to {size}");
            assert!((f64::from(lse) - total).abs() < 1e-3 * loud, "{name} d {d} len {len}: lse {lse}, wanted {total}");
        }
    }
}

struct Problem {
    d: usize,
    group: usize,
    /// Warps of a block and log2 of the leaves of a warp.
    share: (usize, usize),
    lens: Vec<i32>,
    bad_page: bool,
}

fn decode<T: Float>(name: &str, p: &Problem) {
    let (c, mut random) = (pages(name), Random((p.d * 100 + p.group) as u64));
    let (batch, d, heads) = (p.lens.len(), p.d, KV_HEADS * p.group);
    let lead = c.lead();
    let stride = (p.lens.iter().copied().max().unwrap_or(0) as usize).div_ceil(BLOCK).max(1) + 1 + lead;
    let count = batch * stride + 1;
    let s = CacheShape { pages: count, page_tokens: BLOCK, kv_heads: KV_HEADS, d };
    let mut table: Vec<i32> = shuffled(count, &mut random).into_iter().take(batch * stride).map(|p| p as i32).collect();
    let mut cache = vec![0xff; count * KV_HEADS * PcaLayout::of(c, d).page_bytes()];
    for (b, len) in p.lens.iter().enumerate() {
        let (n, bases) = (BLOCK * KV_HEADS, table[b * stride] as usize);
        if lead > 0 {
            reference::store_bases(c, &s, &mut cache, &rows(&mut random, n, d), &rows(&mut random, n, d), bases).unwrap();
        }
        for block in lead..(*len).clamp(0, ((stride - lead) * BLOCK) as i32) as usize / BLOCK + 1 + lead {
            if block < stride {
                let status = reference::store_block(c, &s, &mut cache, &rows(&mut random, n, d), &rows(&mut random, n, d), (lead > 0).then_some(bases), table[b * stride + block] as usize);
                assert_eq!(status, Ok(Status::OK));
            }
        }
    }
    if p.bad_page {
        table[0] = count as i32;
    }
    let q: Global<T> = global(&random.gaussians(batch * heads * d));
    let scale = 1.0 / (d as f32).sqrt();
    let floats: Vec<f32> = q.to_vec().into_iter().map(T::to_f32).collect();
    let want = reference::decode_pca(c, &s, &cache, &floats, heads, &table, stride, &p.lens, scale);

    let m = fused::decode_meta(c, d, p.group);
    let m = DecodeMeta { warps: p.share.0, depth: p.share.1.max(1), ..m };
    let (what, f) = (format!("{name} decode d {d} group {} share {:?} lens {:?}", p.group, p.share, p.lens), fused::fold_meta(&m, memory::<T>()));
    let (held_table, lens, cache, grid) = (Global::new(&table), Global::new(&p.lens), Global::new(&cache), [stride as u32, KV_HEADS as u32, batch as u32]);
    let mut records = Global::<u8>::new(&vec![0xa5; batch * KV_HEADS * stride * f.record()]);
    let counts = [KV_HEADS as i32, count as i32, stride as i32];
    let mut args = vec![buffer(&q), buffer(&cache), buffer(&held_table), buffer(&lens), buffer(&records)];
    args.extend(counts.map(scalar));
    args.push(scalar(scale));
    launch(grid, || match c.k.before_rope {
        true => fused::turn::turn_queries::<T>(f, &q, &cache, &held_table, &lens, &mut records, counts[0], counts[1], counts[2], scale),
        false => fused::queries::fold_queries::<T>(f, &q, &cache, &held_table, &lens, &mut records, counts[0], counts[1], counts[2], scale),
    });
    for stage in stages(fused::fold_ir(&f).unwrap()) {
        let got = interpreted(&what, &stage, grid, args.clone());
        assert_bytes(&format!("{what}, {} IR: records", stage.0), &got[4], &records.bytes);
    }
    let mut held = Global::<T>::zeroed(0);
    held.bytes = records.bytes;
    let records = held;
    // The bits of the reference, not only near it.
    let halves = &c.halves;
    assert!(halves.exact());
    let launches = Launches { m, join: kernels_gen::kernels::join_after(&m), c: halves, shape: s, group: p.group, stride, unit: p.share.1, blocks: 2 + p.group % 2, own: 0, table: &table, lens: &p.lens, scale };
    attends(&what, &launches, &records, &cache, &want);
}

#[test]
fn decodes() {
    decode::<f32>("pca_b3_post_r64", &Problem { d: 128, group: 4, share: (4, 1), lens: vec![600], bad_page: false });
    decode::<bf16>("pca_b4_post", &Problem { d: 64, group: 8, share: (4, 1), lens: vec![70, -3, 0], bad_page: false });
    decode::<f32>("pca_b2_post_k1/pca_b1_r64", &Problem { d: 128, group: 1, share: (4, 1), lens: vec![33, 40], bad_page: true });
}

/// Keys before RoPE, which the kernel turns.
#[test]
fn decodes_keys_before_rope() {
    decode::<f32>("pca_b3_r64", &Problem { d: 128, group: 4, share: (4, 1), lens: vec![600], bad_page: false });
    decode::<bf16>("pca_b4_theta1000000", &Problem { d: 64, group: 8, share: (1, 2), lens: vec![1100, -3, 70, 0], bad_page: true });
    decode::<f32>("pca_b3_ds_t2_r64/pca_b2_share_ds_r64", &Problem { d: 128, group: 1, share: (4, 0), lens: vec![33, 40], bad_page: true });
}

/// Preconditioned keys come back as they were, nearer where queries are larger.
#[test]
fn keys_are_preconditioned() {
    let (c, plain, mut random, d) = (pages("pca_b3_qp_r64"), pages("pca_b3_r64"), Random(5), 64);
    let (k, v, speeds) = (rows(&mut random, BLOCK, d), rows(&mut random, BLOCK, d), plain_speeds(1e4, d));
    assert!(c.encode(None, &k, &v, d).unwrap_err().to_string().contains("second moments"));
    let moments: Vec<f64> = (0..d * d).map(|at| if at / d == at % d { [1.0, 25.0][at / d / 32] } else { 0.0 }).collect();
    let whitening = Whitening::of(&moments, d).unwrap();
    let [own, its] = [(c, Some(&whitening)), (plain, None)].map(|(c, whitening)| {
        let mut head = PcaHead::new(c, d);
        head.push(&c.encode_before(None, &k, &v, d, &Before { speeds: &speeds, whitening }).unwrap());
        let keys: Vec<f32> = head.numbers()[0].iter().map(|x| *x as f32).collect();
        [0, 32].map(|from| {
            let part = |x: &[f32]| x.chunks(d).flat_map(|row| row[from..from + 32].to_vec()).collect::<Vec<f32>>();
            relative_error2(&part(&keys), &part(&k))
        })
    });
    assert!(own[1] < 0.9 * its[1] && own[0] < 0.5, "errors {own:?}, unweighed {its:?}");
}

/// Leaves of one block and of several, whose warps take one, two or four.
#[test]
fn decodes_leaves() {
    for (share, group) in [((4, 0), 2), ((1, 1), 3), ((1, 2), 2)] {
        decode::<f32>("pca_b3_post_r64", &Problem { d: 64, group, share, lens: vec![1100], bad_page: share.0 == 4 });
    }
}

/// Bases that blocks share, outliers of keys and of values.
#[test]
fn decodes_shared_bases_and_outliers() {
    decode::<f32>("pca_b3_post_ds_t2_r64/pca_b2_share_ds_r64", &Problem { d: 128, group: 4, share: (4, 1), lens: vec![600], bad_page: false });
    decode::<bf16>("pca_b4_post_share_t3/pca_b3_t2.5", &Problem { d: 64, group: 8, share: (1, 2), lens: vec![1100, 40, 1700], bad_page: true });
    decode::<f32>("pca_b2_post_share_r64/pca_b1_share_t2_r64", &Problem { d: 128, group: 1, share: (4, 0), lens: vec![33, -1, 300, 0], bad_page: true });
}

/// Levels that were fitted to a model are a table like the others.
#[test]
fn fitted_levels_are_a_table() {
    let (gaussian, mut random, d) = (kernels_gen::pca::GAUSSIAN[2], Random(1), 128);
    fn opened(name: &str, levels: [Option<&[f32]>; 2]) -> Result<&'static PcaPages, kernels_gen::pca::PcaError> {
        open_fitted(name, levels).unwrap()
    }
    let c = opened("pca_b3_post_fitted_r64/pca_b2_r64", [Some(gaussian), None]).unwrap();
    let (k, v) = (rows(&mut random, BLOCK, d), rows(&mut random, BLOCK, d));
    assert_eq!(c.encode(None, &k, &v, d), pages("pca_b3_post_r64/pca_b2_r64").encode(None, &k, &v, d));
    let other: Vec<f32> = gaussian.iter().map(|l| l * 0.9).collect();
    assert_ne!(c.encode(None, &k, &v, d), opened("pca_b3_post_fitted_r64/pca_b2_r64", [Some(&other), None]).unwrap().encode(None, &k, &v, d));
    for (name, levels, wanted) in [("pca_b3_post_fitted", vec![0.0; 8], "8 rising levels"), ("pca_b3_post_fitted", vec![1.0], "8 rising levels"), ("pca_b3_post", other, "_fitted")] {
        let text = opened(name, [Some(&levels), Some(&levels)]).unwrap_err().to_string();
        assert!(text.contains(wanted), "{name}: {text}");
    }
}
