//! Attention over rows of integers: near f64, the same bits in every stage, whatever lists hold and however they are cut.

#[path = "support/stages.rs"]
mod stages;
mod support;

use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels::latent::Cut;
use kernels_gen::kernels::latent::decode::{DecodeMeta, latent_decode};
use kernels_gen::kernels::latent::join::{JoinMeta, OWN, latent_join};
use kernels_gen::kernels::latent::lanes::RowMeta;
use kernels_gen::kernels::latent::store::{ROWS, StoreMeta, latent_store};
use kernels_gen::latent::{DIM, Format, List, Problem, format};
use stages::{assert_bytes, buffer, interpreted, scalar};
use support::Random;

const FORMATS: [&str; 3] = ["v4_int4_int8", "v4_e8w4_int8", "v4_int8_int8"];

/// A problem's data, owned.
struct Case {
    f: Format,
    tokens: usize,
    heads: usize,
    rows: [usize; 2],
    caches: [Vec<u8>; 2],
    at: [Vec<i32>; 2],
    capacities: [usize; 2],
    lens: Vec<i32>,
    sinks: Vec<f32>,
    q: Vec<f32>,
    share: usize,
}

impl Case {
    /// Random rows and lists with holes; `lens` of window and extra of each token.
    fn new(name: &str, lens: &[[i32; 2]], capacities: [usize; 2], share: usize, seed: u64) -> Case {
        let (f, mut random, heads, tokens) = (format(name).unwrap(), Random(seed), 64, lens.len());
        let rows = [200, 150];
        let caches = rows.map(|n| {
            let mut bytes = vec![0; n * f.row_bytes()];
            for at in 0..n {
                let x: Vec<f32> = (0..DIM).map(|i| random.gaussian() * if i % 61 == 3 { 3.0 } else { 1.0 } * if at == 7 { 4.0 } else { 1.0 }).collect();
                f.store(&mut bytes, n, at, &x.try_into().unwrap());
            }
            bytes
        });
        let at = [0, 1].map(|list| {
            (0..tokens * capacities[list])
                .map(|_| match random.bits() % 8 {
                    0 => -1,
                    1 => [rows[list] as i32, i32::MIN, i32::MAX][(random.bits() % 3) as usize],
                    _ => (random.bits() % rows[list] as u64) as i32,
                })
                .collect()
        });
        let q = random.gaussians(tokens * heads * DIM).iter().map(|x| kernels_gen::reference::to_bf16(x * 1.5)).collect();
        let sinks = (0..heads).map(|h| if h % 5 == 0 { f32::NEG_INFINITY } else { random.gaussian() * 3.0 }).collect();
        Case { f, tokens, heads, rows, caches, at, capacities, lens: lens.concat(), sinks, q, share }
    }

    fn list(&self, i: usize) -> (Vec<i32>, usize) {
        ((0..self.tokens).map(|t| self.lens[2 * t + i]).collect(), self.capacities[i])
    }

    fn reference(&self) -> (Vec<f32>, Vec<f32>) {
        let ((window_lens, window), (extra_lens, extra)) = (self.list(0), self.list(1));
        let list = |i: usize, lens, capacity| List { rows: &self.caches[i], at: &self.at[i], capacity, lens };
        let p = Problem { q: &self.q, heads: self.heads, window: list(0, &window_lens, window), extra: list(1, &extra_lens, extra), sinks: &self.sinks, scale: 512_f32.powf(-0.5), share: self.share };
        p.solve(self.f.integers().unwrap())
    }

    fn splits(&self) -> usize {
        self.capacities.iter().map(|c| c.div_ceil(128)).sum::<usize>().div_ceil(self.share)
    }

    /// The same in f64 over decoded rows.
    fn exact(&self) -> Vec<f64> {
        let mut out = Vec::new();
        for token in 0..self.tokens {
            let mut rows: Vec<[f32; DIM]> = Vec::new();
            for i in 0..2 {
                for p in 0..self.capacities[i].min(self.lens[2 * token + i].max(0) as usize) {
                    let at = self.at[i][token * self.capacities[i] + p];
                    if at >= 0 && (at as usize) < self.rows[i] {
                        rows.push(self.f.load(&self.caches[i], self.rows[i], at as usize));
                    }
                }
            }
            for head in 0..self.heads {
                let q = &self.q[(token * self.heads + head) * DIM..][..DIM];
                let x: Vec<f64> = rows.iter().map(|r| r.iter().zip(q).map(|(r, q)| f64::from(*r) * f64::from(*q)).sum::<f64>() / 512_f64.sqrt()).collect();
                let top = x.iter().copied().fold(f64::from(self.sinks[head]), f64::max);
                let p: Vec<f64> = x.iter().map(|x| (x - top).exp()).collect();
                let all = p.iter().sum::<f64>() + (f64::from(self.sinks[head]) - top).exp();
                out.extend((0..DIM).map(|d| if rows.is_empty() { 0.0 } else { rows.iter().zip(&p).map(|(r, p)| f64::from(r[d]) * p).sum::<f64>() / all }));
            }
        }
        out
    }
}

/// Ragged lists; a token without rows; one whose window is empty.
fn cases(name: &str) -> Vec<Case> {
    vec![Case::new(name, &[[128, 300], [100, 0]], [128, 300], 4, 1), Case::new(name, &[[0, 0], [0, 129], [77, 600]], [128, 512], 2, 2)]
}

#[test]
fn the_reference_is_near_f64() {
    for name in FORMATS {
        for (i, case) in cases(name).iter().enumerate() {
            let (got, exact) = (case.reference(), case.exact());
            let top = exact.iter().fold(0.0_f64, |top, x| top.max(x.abs()));
            let worst = got.0.iter().zip(&exact).map(|(g, e)| (f64::from(*g) - e).abs()).fold(0.0, f64::max) / top;
            println!("{name} {i}: error {worst:.2e} of the largest output");
            assert!(worst < 1e-3, "{name} {i}: {worst}");
        }
    }
}

#[test]
fn a_sink_leaves_what_is_diffuse() {
    // One row with nearly all weight and hardly a value, 128 x 16 - 1 others: what they add must stay.
    let f = format("v4_int8_int8").unwrap();
    let mut random = Random(3);
    let n = 2048;
    let q: Vec<f32> = (0..64 * DIM).map(|i| if i % DIM == 0 { 100.0 } else { 0.0 }).collect();
    let mut cache = vec![0; n * f.row_bytes()];
    for at in 0..n {
        let mut x: [f32; DIM] = std::array::from_fn(|i| if i == 300 { 1.0 } else { 0.2 * random.gaussian() });
        x[0] = if at == 700 { 1.5 } else { 0.0 };
        if at == 700 {
            x[300] = 0.0;
        }
        f.store(&mut cache, n, at, &x);
    }
    let (at, lens): (Vec<i32>, _) = ((0..n as i32).collect(), [n as i32]);
    let p =
        Problem { q: &q[..DIM], heads: 1, window: List { rows: &cache, at: &[], capacity: 0, lens: &[0] }, extra: List { rows: &cache, at: &at, capacity: n, lens: &lens }, sinks: &[f32::NEG_INFINITY], scale: 512_f32.powf(-0.5), share: 64 };
    let out = p.solve(f.integers().unwrap()).0;
    let x: Vec<[f32; DIM]> = (0..n).map(|i| f.load(&cache, n, i)).collect();
    let w: Vec<f64> = x.iter().map(|x| (f64::from(x[0]) * 100.0 / 512_f64.sqrt()).exp()).collect();
    let all: f64 = w.iter().sum();
    let exact = x.iter().zip(&w).map(|(x, w)| f64::from(x[300]) * w).sum::<f64>() / all;
    assert!(w[700] / all > 0.2 && exact > 0.1, "{} {exact}", w[700] / all);
    assert!((f64::from(out[300]) - exact).abs() < 1e-3, "{} {exact}", out[300]);
}

#[test]
fn every_stage_gives_the_references_bits() {
    for name in FORMATS {
        let all = cases(name);
        let taken = if name == "v4_e8w4_int8" { &all[..] } else { &all[..1] };
        for (i, case) in taken.iter().enumerate() {
            for whole in [true, false] {
                if !whole || case.splits() == 1 {
                    for cut in if i == 0 { &[Cut::FEW, Cut::ONE, Cut::TWO][..] } else { &[Cut::TWO] } {
                        decoded(&format!("{name} {i} {whole} {cut:?}"), case, whole, *cut);
                    }
                }
            }
        }
    }
}

fn decoded(what: &str, case: &Case, whole: bool, cut: Cut) {
    let (want, want_lse) = case.reference();
    let want: Vec<bf16> = want.iter().map(|x| bf16::from_f32(*x)).collect();
    let (splits, tokens, heads) = (case.splits(), case.tokens, case.heads);
    let q: Vec<bf16> = case.q.iter().map(|x| bf16::from_f32(*x)).collect();
    let parts = if whole { 1 } else { tokens * splits * heads };
    let (out, lse) = (Global::<bf16>::zeroed(want.len()), Global::<f32>::zeroed(tokens * heads));
    let list = |i: usize| [buffer(&Global::new(&case.caches[i])), buffer(&Global::new(&case.at[i])), scalar(case.rows[i] as i32), scalar(case.capacities[i] as i32)];
    let mut args = vec![buffer(&Global::new(&q))];
    args.extend(list(0).into_iter().chain(list(1)));
    args.extend([
        buffer(&Global::new(&case.lens)),
        buffer(&Global::new(&case.sinks)),
        buffer(&out),
        buffer(&lse),
        buffer(&Global::<f32>::zeroed(parts * DIM)),
        buffer(&Global::<f32>::zeroed(parts * 2)),
        scalar(heads as i32),
        scalar(case.share as i32),
        scalar(512_f32.powf(-0.5)),
        scalar(splits as i32),
    ]);
    let m = DecodeMeta { rows: RowMeta::of(&case.f).unwrap(), whole, cut };
    let tile = latent_decode::build(&m, case.f.integers().unwrap().nope).unwrap_or_else(|e| panic!("{e}"));
    for stage in stages::stages(tile) {
        let mut left = interpreted(what, &stage, [splits as u32, tokens as u32, (heads / cut.heads) as u32], args.clone());
        if !whole {
            let join = latent_join::build(&JoinMeta { heads: cut.heads }).unwrap();
            let join = stages::stages(join).into_iter().find(|s| s.0 == stage.0).unwrap();
            let args =
                vec![kernel_dsl::ir::interp::Arg::Buffer(left[9].clone()), kernel_dsl::ir::interp::Arg::Buffer(left[10].clone()), buffer(&Global::new(&case.sinks)), buffer(&out), buffer(&lse), scalar(heads as i32), scalar(splits as i32)];
            let joined = interpreted(what, &join, [tokens as u32, (heads / OWN) as u32, 1], args);
            (left[7], left[8]) = (joined[3].clone(), joined[4].clone());
        }
        assert_bytes(&format!("{what}, {} IR: lse", stage.0), &left[8], &Global::new(&want_lse).bytes);
        assert_bytes(&format!("{what}, {} IR: out", stage.0), &left[7], &Global::new(&want).bytes);
    }
}

#[test]
fn store_writes_the_formats_bytes() {
    for name in FORMATS {
        let (f, mut random, n) = (format(name).unwrap(), Random(8), 35);
        let mut x: Vec<f32> = random.gaussians(n * DIM).iter().enumerate().map(|(i, x)| x * [1.0, 0.3, 2.0, 8.0][i / 64 % 4]).collect();
        x[DIM..2 * DIM].fill(0.0);
        (x[5], x[6], x[7]) = (f32::NAN, f32::INFINITY, -1e30);
        let slots: Vec<i64> = (0..n as i64)
            .map(|i| match i {
                3 => -1,
                4 => 40,
                i => 39 - i,
            })
            .collect();
        let mut want = vec![0xee; 40 * f.row_bytes()];
        for (x, slot) in x.chunks(DIM).zip(&slots).filter(|(_, slot)| (0..40).contains(*slot)) {
            f.store(&mut want, 40, *slot as usize, x.try_into().unwrap());
        }
        let (gx, gs, mut cache, mut status) = (Global::new(&x), Global::new(&slots), Global::new(&vec![0xee_u8; 40 * f.row_bytes()]), Global::<i32>::zeroed(1));
        let (m, nope) = (StoreMeta::of(RowMeta::of(&f).unwrap(), f.integers().unwrap()), f.integers().unwrap().nope);
        let args = vec![buffer(&gx), buffer(&gs), buffer(&cache), buffer(&status), scalar(n as i32), scalar(40_i32)];
        let grid = [n.div_ceil(ROWS) as u32, 1, 1];
        launch(grid, || latent_store(m, nope, &gx, &gs, &mut cache, &mut status, n as i32, 40));
        assert_bytes(&format!("{name}: Rust"), &cache.bytes, &want);
        assert_eq!(status.at(0), 1);
        for stage in stages::stages(latent_store::build(&m, nope).unwrap_or_else(|e| panic!("{e}"))) {
            let left = interpreted(name, &stage, grid, args.clone());
            assert_bytes(&format!("{name}, {} IR", stage.0), &left[2], &want);
        }
    }
}

#[test]
fn formats_that_no_kernel_reads_are_refused() {
    for name in ["v4_fp8", "v4_e8q38_int8", "v4_int4_bf16", "v4_bf16"] {
        let why = kernels_gen::kernels::latent::decode(&format(name).unwrap(), true, Cut::TWO).err().unwrap_or_default();
        assert!(why.contains(name) && why.contains("v4_e8w4_int8"), "{why}");
    }
}
