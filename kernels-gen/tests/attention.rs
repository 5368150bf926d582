//! The attention reference: against f64, against its fast form bit for bit, and on bad tables.

mod support;

use kernels_gen::reference::{CacheShape, Sequence, Status, decode, store, to_bf16};
use kernels_gen::registry::{CodecInfo, codec, codecs};
use support::{Random, relative_error2};

/// One stored sequence on shuffled pages, in a cache whose other bytes are NaN patterns.
struct Stored {
    c: &'static CodecInfo,
    shape: CacheShape,
    cache: Vec<u8>,
    table: Vec<i32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Stored {
    /// `k` and `v` are `[token, kv head, d]`.
    fn new(c: &'static CodecInfo, kv_heads: usize, d: usize, k: Vec<f32>, v: Vec<f32>) -> Stored {
        let tokens = k.len() / (kv_heads * d);
        let used = tokens.div_ceil(64);
        let shape = CacheShape { pages: used + 3, page_tokens: 64, kv_heads, d };
        let mut table: Vec<i32> = (0..used as i32).map(|p| p + 2).collect();
        table.reverse();
        let slots: Vec<i64> = (0..tokens).map(|t| i64::from(table[t / 64]) * 64 + t as i64 % 64).collect();
        table.push(-7); // beyond the sequence: must not be looked at
        let mut cache = vec![0xff; shape.bytes(c)];
        assert!(store(c, &shape, &mut cache, &k, &v, &slots).is_ok());
        Stored { c, shape, cache, table, k, v }
    }

    fn gaussian(c: &'static CodecInfo, tokens: usize, kv_heads: usize, d: usize) -> Stored {
        let mut random = Random(9);
        let n = tokens * kv_heads * d;
        let (k, v) = (random.gaussians(n), random.gaussians(n));
        Stored::new(c, kv_heads, d, k, v)
    }

    fn decode(&self, q: &[f32], heads: usize, len: i32, scale: f32) -> (Vec<f32>, Vec<f32>) {
        let d = decode(self.c, &self.shape, &self.cache, q, heads, &self.table, self.table.len(), &[len], scale);
        assert!(d.status.is_ok());
        (d.out, d.lse)
    }

    fn sequence(&self) -> Sequence {
        let tokens = self.k.len() / (self.shape.kv_heads * self.shape.d);
        Sequence::new(self.c, &self.shape, &self.cache, &self.table, tokens).unwrap()
    }

    /// Output and lse of one head in f64, from the decoded rows.
    fn exact(&self, q: &[f32], kv_head: usize, len: usize, scale: f32) -> (Vec<f32>, f64) {
        let d = self.shape.d;
        let row = |x: &[f32], t: usize| {
            let at = (t * self.shape.kv_heads + kv_head) * d;
            self.c.k.decode_row(&self.c.k.encode_row(&x[at..at + d]), d)
        };
        let score = |t| row(&self.k, t).iter().zip(q).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
        let scores: Vec<f64> = (0..len).map(|t| score(t) * f64::from(scale)).collect();
        let top = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
        let sum: f64 = scores.iter().map(|x| (x - top).exp()).sum();
        let mut out = vec![0.0; d];
        for (t, x) in scores.iter().enumerate() {
            let p = (x - top).exp() / sum;
            out.iter_mut().zip(row(&self.v, t)).for_each(|(o, v)| *o += p * f64::from(v));
        }
        (out.iter().map(|o| *o as f32).collect(), top + sum.ln())
    }
}

#[test]
fn attention_agrees_with_f64() {
    // A leaf's largest weight has 14 bits or more: 256 of them lose about 16 quarters of 2^-13 where one token has nearly all.
    for (name, bound) in [("bf16", 5e-3), ("int4", 1e-3), ("e8w4", 1e-3), ("e8q38", 1e-3)] {
        for (d, spread) in [(64, 1.0), (128, 1.0), (128, 4.0), (256, 1.0)] {
            let s = Stored::gaussian(codec(name).unwrap(), 1500, 2, d);
            let q: Vec<f32> = Random(10).gaussians(4 * d).iter().map(|q| to_bf16(q * spread)).collect();
            let scale = 1.0 / (d as f32).sqrt();
            let (out, lse) = s.decode(&q, 4, 1500, scale);
            let (mut worst, mut worst_lse) = (0.0_f64, 0.0_f64);
            for head in 0..4 {
                let (exact, exact_lse) = s.exact(&q[head * d..][..d], head / 2, 1500, scale);
                worst = worst.max(relative_error2(&out[head * d..][..d], &exact).sqrt());
                worst_lse = worst_lse.max((f64::from(lse[head]) - exact_lse).abs());
            }
            println!("{name} D {d} spread {spread}: relative error {worst:.1e}, lse off by {worst_lse:.1e}");
            assert!(worst <= bound && worst_lse <= 3e-4, "{name} D {d} spread {spread}: {worst:e}, lse {worst_lse:e}");
        }
    }
}

/// A token that takes half of the weight must not hide 100,000 that share the other half.
#[test]
fn a_sink_does_not_swallow_the_diffuse_tokens() {
    let (d, tokens) = (64, 100_001);
    let mut random = Random(11);
    let mut q = vec![0.0; d];
    q[0] = 4.0;
    let common = random.gaussians(d);
    let pool = random.gaussians(1 << 16);
    let mut noise = |spread: f32| pool[random.bits() as usize % pool.len()] * spread;
    let mut k: Vec<f32> = (0..tokens * d).map(|_| noise(0.05)).collect();
    let mut v: Vec<f32> = (0..tokens * d).map(|i| common[i % d] + noise(0.2)).collect();
    k[0] = 100_000_f32.ln() / 4.0;
    // The sink's value: 0, as sinks have it, or as large as the others, which is harder.
    let cases = [("bf16", 1.0, 3e-3), ("int4", 0.0, 1e-4), ("int4", 1.0, 1e-3), ("e8w4", 1.0, 1e-3), ("e8q38", 1.0, 1e-3)];
    for (name, sink_value, bound) in cases {
        (0..d).for_each(|i| v[i] = -sink_value * common[d - 1 - i]);
        let s = Stored::new(codec(name).unwrap(), 1, d, k.clone(), v.clone());
        let (out, lse) = s.decode(&q, 1, tokens as i32, 1.0);
        let (exact, exact_lse) = s.exact(&q, 0, tokens, 1.0);
        let error = relative_error2(&out, &exact).sqrt();
        let off = (f64::from(lse[0]) - exact_lse).abs();
        println!("{name}, sink value {sink_value}: relative error {error:.1e}, lse {exact_lse:.3} off by {off:.1e}");
        assert!(error <= bound && off <= 1e-3, "{name}: {error:e}, lse {off:e}");
    }
}

#[test]
fn a_sequence_gives_the_bits_of_decode() {
    for c in codecs() {
        for (d, kv_heads, heads) in [(64, 2, 2), (128, 1, 4), (256, 2, 6)] {
            let s = Stored::gaussian(c, 1200, kv_heads, d);
            let sequence = s.sequence();
            let lens = [0, 1, 31, 32, 33, 54, 255, 257, 1023, 1024, 1025, 1199, 1200];
            let q: Vec<f32> = Random(12).gaussians(lens.len() * heads * d).iter().map(|q| 2.0 * q).collect();
            let (out, lse) = sequence.attend(&q, heads, &lens, 0.1);
            for (i, len) in lens.into_iter().enumerate() {
                let rows = i * heads * d..(i + 1) * heads * d;
                let expected = s.decode(&q[rows.clone()], heads, len, 0.1);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&out[rows]), bits(&expected.0), "{} D {d} len {len}", c.name);
                assert_eq!(bits(&lse[i * heads..(i + 1) * heads]), bits(&expected.1), "{} D {d} len {len}", c.name);
            }
            let (out, lse) = sequence.attend(&q[..2 * heads * d], heads, &[-1, 1201], 0.1);
            assert!(out.iter().all(|o| *o == 0.0) && lse.iter().all(|l| *l == f32::NEG_INFINITY));
        }
    }
}

#[test]
fn extreme_scores_stay_finite() {
    for c in codecs() {
        let (k, v) = (vec![300.0; 40 * 64], Random(13).gaussians(40 * 64));
        let s = Stored::new(c, 1, 64, k, v);
        for (q, scale) in [(65504.0, 1.0), (-65504.0, 1.0), (f32::INFINITY, 1.0), (f32::NAN, 1.0), (1.0, 1e-30), (1e-30, 1.0), (1.0, 0.0)] {
            let (out, lse) = s.decode(&[q; 64], 1, 40, scale);
            assert!(out.iter().all(|o| o.is_finite()) && lse[0].is_finite(), "{} q {q} scale {scale}: {out:?} {lse:?}", c.name);
            // Equal keys weigh equally: the output is the mean of the values.
            let mean: f32 = (0..40).map(|t| s.v[t * 64]).sum::<f32>() / 40.0;
            assert!((out[0] - mean).abs() < 0.2, "{} q {q} scale {scale}: {} not {mean}", c.name, out[0]);
        }
    }
}

#[test]
fn bad_tables_and_lengths_give_zero_rows_and_a_status() {
    for c in codecs() {
        let s = Stored::gaussian(c, 100, 1, 64);
        let (pages, q) = (s.shape.pages as i32, Random(14).gaussians(5 * 64));
        let good = &s.table[..2];
        let run = |table: &[i32], lens: &[i32]| decode(c, &s.shape, &s.cache, &q[..lens.len() * 64], 1, table, 2, lens, 0.125);
        let clean = run(good, &[100]);
        for bad in [-1, pages, pages + 1, i32::MIN, i32::MAX] {
            for table in [[bad, good[1]], [good[0], bad]] {
                let d = run(&[table, [good[0], good[1]]].concat(), &[100, 100]);
                assert_eq!((d.status, d.lse[0]), (Status::BAD_PAGE, f32::NEG_INFINITY));
                assert!(d.out[..64].iter().all(|o| *o == 0.0));
                // The neighbour is not affected: the same query row alone gives the same bits.
                let alone = decode(c, &s.shape, &s.cache, &q[64..128], 1, good, 2, &[100], 0.125);
                assert_eq!((&d.out[64..], d.lse[1]), (&alone.out[..], alone.lse[0]));
            }
            assert_eq!(run(&[good[0], bad], &[64]).status, Status::OK);
        }
        for bad in [-1, i32::MIN, 129, i32::MAX] {
            let d = run(good, &[bad]);
            assert_eq!((d.status, d.lse[0]), (Status::BAD_LENGTH, f32::NEG_INFINITY));
            assert!(d.out.iter().all(|o| *o == 0.0));
        }
        let empty = run(good, &[0]);
        assert_eq!((empty.status, empty.lse[0]), (Status::OK, f32::NEG_INFINITY));
        assert!(clean.status.is_ok() && clean.out.iter().any(|o| *o != 0.0));
        assert_eq!(Sequence::new(c, &s.shape, &s.cache, &[0, pages], 65).err(), Some(Status::BAD_PAGE));
        assert_eq!(Sequence::new(c, &s.shape, &s.cache, &[0], 65).err(), Some(Status::BAD_LENGTH));
    }
}

#[test]
fn skipped_slots_leave_the_cache_alone() {
    for c in codecs() {
        let shape = CacheShape { pages: 2, page_tokens: 32, kv_heads: 2, d: 64 };
        let mut cache = vec![0xff; shape.bytes(c)];
        let x = Random(15).gaussians(2 * 2 * 64);
        assert_eq!(store(c, &shape, &mut cache, &x, &x, &[-1, i64::MIN]), Status::OK);
        assert_eq!(store(c, &shape, &mut cache, &x, &x, &[64, i64::MAX]), Status::BAD_SLOT);
        assert!(cache.iter().all(|b| *b == 0xff), "{}", c.name);
        assert_eq!(store(c, &shape, &mut cache, &x, &x, &[64, 63]), Status::BAD_SLOT);
        assert!(cache.iter().any(|b| *b != 0xff), "{}", c.name);
    }
}

/// `cargo test --release -p kernels-gen --test attention -- --ignored --nocapture`
#[test]
#[ignore = "prints the speed of the reference on one core"]
fn speed() {
    let (tokens, d, heads) = (2048, 128, 4);
    let seconds = |work: &mut dyn FnMut()| {
        let once = |work: &mut dyn FnMut()| {
            let clock = std::time::Instant::now();
            work();
            clock.elapsed().as_secs_f64()
        };
        (0..12).map(|_| once(work)).fold(f64::INFINITY, f64::min)
    };
    for c in codecs() {
        let s = Stored::gaussian(c, tokens, 1, d);
        let row_ns = 1e9 / (2 * tokens) as f64;
        let (slots, mut cache) = ((0..tokens as i64).collect::<Vec<_>>(), s.cache.clone());
        let storing = row_ns * seconds(&mut || assert!(store(c, &s.shape, &mut cache, &s.k, &s.v, &slots).is_ok()));
        let unpacking = row_ns * seconds(&mut || drop(s.sequence()));
        let sequence = s.sequence();
        let lens: Vec<i32> = (1..=tokens as i32).step_by(4).collect();
        let q = Random(16).gaussians(lens.len() * heads * d);
        let products = lens.iter().map(|l| *l as f64).sum::<f64>() * (heads * d * 2) as f64;
        let rate = products / 1e9 / seconds(&mut || drop(sequence.attend(&q, heads, &lens, 0.1)));
        println!("{}: store {storing:.0} ns, unpack {unpacking:.0} ns a row; attend {rate:.1} GMAC/s", c.name);
    }
}
