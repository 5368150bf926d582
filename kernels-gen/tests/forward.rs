//! The kernels of the forward pass: the Rust function is near f64, and every stage gives its bits.

mod support;

use kernel_dsl::ir::Program;
use kernel_dsl::ir::interp::{Arg, run_seeded};
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels::forward::attention::{AttentionMeta, attention};
use kernels_gen::kernels::forward::distances::{BYTES, DistancesMeta, ROWS, SUMS, SameMeta, distances, same_bytes};
use kernels_gen::kernels::forward::gate::{GateMeta, gate, shift};
use kernels_gen::kernels::forward::heads::{HeadsMeta, split_heads};
use kernels_gen::kernels::forward::norm::{NormMeta, rms_norm};
use kernels_gen::kernels::forward::rows::{RowsMeta, gather, reorder, scatter};
use kernels_gen::kernels::forward::scores::{NUMBERS, ScoresMeta, scores};
use kernels_gen::kernels::forward::{THREADS, WARPS};
use support::Random;

/// Tile IR, pipelined and thread IR leave in the last `outputs` buffers what the Rust function did.
fn every_stage(what: &str, tile: Program, grid: [u32; 3], args: &[Arg], wanted: &[(usize, &[u8])]) {
    let piped = passes::simplify::run(passes::pipeline::run(&tile).unwrap());
    let thread = passes::run(&tile).unwrap();
    for (stage, program) in [("tile", tile), ("pipelined", piped), ("thread", thread)] {
        let mut args = args.to_vec();
        if let Err(trap) = run_seeded(&program, grid, &mut args, 7) {
            panic!("{what}, {stage} IR: {trap}");
        }
        for (at, wanted) in wanted {
            let Arg::Buffer(got) = &args[*at] else { panic!("{what}: argument {at} is no buffer") };
            let bad: Vec<usize> = (0..wanted.len()).filter(|i| got[*i] != wanted[*i]).collect();
            assert!(bad.is_empty(), "{what}, {stage} IR: {} of {} bytes of argument {at} differ, first {:?}", bad.len(), wanted.len(), bad.first());
        }
    }
}

fn buffer<T: Elem>(x: &Global<T>) -> Arg {
    Arg::Buffer(x.bytes.clone())
}

fn scalar<T: Elem>(x: T) -> Arg {
    Arg::Scalar(x.to_bits64())
}

/// Largest difference, relative to the largest wanted magnitude.
fn close(what: &str, got: &[f32], wanted: &[f64], limit: f64) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let top = wanted.iter().fold(0.0_f64, |top, w| top.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((f64::from(*g) - w).abs() <= limit * top, "{what}: number {i} is {g} and not {w}");
    }
}

#[test]
fn norm() {
    for width in [256, 96] {
        let (m, rows, mut random) = (NormMeta::of(width), 6_usize, Random(3));
        let (x, w) = (random.gaussians(rows * width), random.gaussians(width));
        let (gx, gw, mut out) = (Global::new(&x), Global::new(&w), Global::<f32>::zeroed(rows * width));
        let (grid, empty) = ([rows.div_ceil(WARPS) as u32, 1, 1], buffer(&out));
        launch(grid, || rms_norm(m, &gx, &gw, &mut out, rows as i32, 1e-6));
        let wanted: Vec<f64> = x
            .chunks(width)
            .flat_map(|row| {
                let square = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
                let scale = 1.0 / (square + 1e-6).sqrt();
                row.iter().zip(&w).map(move |(v, w)| f64::from(*v) * scale * f64::from(*w)).collect::<Vec<_>>()
            })
            .collect();
        close("norm", &out.to_vec(), &wanted, 1e-6);
        let args = [buffer(&gx), buffer(&gw), empty, scalar(rows as i32), scalar(1e-6_f32)];
        every_stage("norm", rms_norm::build(&m).unwrap(), grid, &args, &[(2, &out.bytes)]);
    }
}

#[test]
fn heads_are_cut_normalised_and_turned() {
    for (norm, bias) in [(true, false), (false, true)] {
        let m = HeadsMeta { half: 32, heads: 4, kv_heads: 2, norm, bias };
        let (d, tokens, start, mut random) = (64, 3, 2, Random(4));
        let (x, b, w) = (random.gaussians(tokens * 8 * d), random.gaussians(8 * d), random.gaussians(2 * d));
        let angle = |p: usize, i: usize| p as f64 * 0.7_f64.powi(i as i32);
        let turns: Vec<f32> = (0..start + tokens).flat_map(|p| (0..d).map(move |i| if i < 32 { angle(p, i).cos() as f32 } else { angle(p, i - 32).sin() as f32 })).collect();
        let (gx, gb, gw, gt) = (Global::new(&x), Global::new(&b), Global::new(&w), Global::new(&turns));
        let (mut q, mut k, mut v) = (Global::<f32>::zeroed(tokens * 4 * d), Global::<f32>::zeroed((start + tokens) * 2 * d), Global::<f32>::zeroed((start + tokens) * 2 * d));
        let empty = [buffer(&q), buffer(&k), buffer(&v)];
        let grid = [tokens as u32, 1, 1];
        launch(grid, || split_heads(m, &gx, &gb, &gw, &gt, &mut q, &mut k, &mut v, start as i32, 1e-6));
        let (mut wanted, past) = ([vec![], vec![0.0; start * 2 * d], vec![0.0; start * 2 * d]], 8 * d);
        for (i, row) in x.chunks(d).enumerate() {
            let (token, head) = (i / 8, i % 8);
            let mut y: Vec<f64> = (0..d).map(|e| f64::from(row[e]) + if bias { f64::from(b[head * d + e]) } else { 0.0 }).collect();
            if head < 6 {
                if norm {
                    let scale = 1.0 / (y.iter().map(|v| v * v).sum::<f64>() / d as f64 + 1e-6).sqrt();
                    y.iter_mut().enumerate().for_each(|(e, v)| *v *= scale * f64::from(w[usize::from(head >= 4) * d + e]));
                }
                let old = y.clone();
                for e in 0..32 {
                    let (sin, cos) = angle(start + token, e).sin_cos();
                    (y[e], y[e + 32]) = (old[e] * cos - old[e + 32] * sin, old[e + 32] * cos + old[e] * sin);
                }
            }
            wanted[if head < 4 { 0 } else { head / 2 - 1 }].extend(y);
        }
        assert_eq!(past * tokens, x.len());
        close("q", &q.to_vec(), &wanted[0], 1e-6);
        close("k", &k.to_vec(), &wanted[1], 1e-6);
        close("v", &v.to_vec(), &wanted[2], 1e-6);
        let mut args = vec![buffer(&gx), buffer(&gb), buffer(&gw), buffer(&gt)];
        args.extend(empty);
        args.extend([scalar(start as i32), scalar(1e-6_f32)]);
        every_stage("heads", split_heads::build(&m).unwrap(), grid, &args, &[(4, &q.bytes), (5, &k.bytes), (6, &v.bytes)]);
    }
}

#[test]
fn gates_and_shifts() {
    let (m, rows, mut random) = (GateMeta { width: 320 }, 2_usize, Random(5));
    let x: Vec<f32> = random.gaussians(rows * 640).iter().map(|v| v * 20.0).collect();
    let (gx, mut out) = (Global::new(&x), Global::<f32>::zeroed(rows * 320));
    let (grid, empty) = ([rows as u32, 320_usize.div_ceil(THREADS) as u32, 1], buffer(&out));
    launch(grid, || gate(m, &gx, &mut out));
    let wanted: Vec<f64> = x
        .chunks(640)
        .flat_map(|row| {
            (0..320)
                .map(|i| {
                    let g = f64::from(row[i]);
                    g / (1.0 + (-g).exp()) * f64::from(row[320 + i])
                })
                .collect::<Vec<_>>()
        })
        .collect();
    close("gate", &out.to_vec(), &wanted, 1e-6);
    every_stage("gate", gate::build(&m).unwrap(), grid, &[buffer(&gx), empty], &[(1, &out.bytes)]);

    let by = Global::new(&random.gaussians(320));
    let (before, sum): (_, Vec<f32>) = (buffer(&out), out.to_vec().iter().enumerate().map(|(i, v)| v + by.at(i % 320)).collect());
    launch(grid, || shift(m, &mut out, &by));
    assert_eq!(out.to_vec(), sum);
    every_stage("shift", shift::build(&m).unwrap(), grid, &[before, buffer(&by)], &[(0, &out.bytes)]);
}

#[test]
fn rows_go_to_their_places_and_back() {
    let (m, mut random) = (RowsMeta { width: 96 }, Random(6));
    let (x, places) = (Global::new(&random.gaussians(3 * 96)), Global::new(&[4_i64, 0, 2]));
    let (mut cache, mut back) = (Global::<f32>::zeroed(5 * 96), Global::<f32>::zeroed(3 * 96));
    let empty = buffer(&cache);
    launch([3, 1, 1], || scatter(m, &x, &places, &mut cache));
    launch([3, 1, 1], || gather(m, &cache, &places, &mut back));
    assert_eq!((back.to_vec(), cache.at(4 * 96 + 5)), (x.to_vec(), x.at(5_usize)));
    every_stage("scatter", scatter::build(&m).unwrap(), [3, 1, 1], &[buffer(&x), buffer(&places), empty], &[(2, &cache.bytes)]);
    let zero = buffer(&Global::<f32>::zeroed(3 * 96));
    every_stage("gather", gather::build(&m).unwrap(), [3, 1, 1], &[buffer(&cache), buffer(&places), zero.clone()], &[(2, &back.bytes)]);
    let from: Vec<i32> = (0..96).map(|i| (37 * i + 11) % 96).collect();
    let from = Global::new(&from);
    launch([3, 1, 1], || reorder(m, &x, &from, &mut back));
    assert_eq!(back.at(96 + 1_usize), x.at(96 + 48_usize));
    every_stage("reorder", reorder::build(&m).unwrap(), [3, 1, 1], &[buffer(&x), buffer(&from), zero], &[(2, &back.bytes)]);
}

/// Queries at `positions` in f64.
fn exact(m: &AttentionMeta, q: &[f32], k: &[f32], v: &[f32], positions: &[i32], kv_heads: usize, scale: f64) -> Vec<f64> {
    let (d, width) = (m.d, kv_heads * m.d);
    let mut out = vec![];
    for (i, row) in q.chunks(d).enumerate() {
        let (query, head) = (i / (kv_heads * m.group), i / m.group % kv_heads);
        let at = |t: usize| t * width + head * d..t * width + head * d + d;
        let dot = |t: usize| k[at(t)].iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * scale;
        let seen = positions[query] as usize + 1;
        let top = (0..seen).map(dot).fold(f64::NEG_INFINITY, f64::max);
        let p: Vec<f64> = (0..seen).map(|t| (dot(t) - top).exp()).collect();
        let sum: f64 = p.iter().sum();
        out.extend((0..d).map(|e| (0..seen).map(|t| p[t] * f64::from(v[at(t)][e])).sum::<f64>() / sum));
    }
    out
}

#[test]
fn attention_is_exact() {
    let shapes = [
        (AttentionMeta { d: 64, group: 4, rows: 32, keys: 32 }, vec![0, 1, 2, 30, 31, 32, 33, 63, 64, 65]),
        (AttentionMeta { d: 64, group: 3, rows: 16, keys: 64 }, (60..71).collect()),
        (AttentionMeta { d: 128, group: 1, rows: 16, keys: 16 }, vec![17]),
    ];
    for (m, positions) in shapes {
        let (kv_heads, mut random) = (2, Random(m.rows as u64));
        let (queries, tokens) = (positions.len(), positions[positions.len() - 1] as usize + 1);
        let (q, k, v) = (random.gaussians(queries * kv_heads * m.group * m.d), random.gaussians(tokens * kv_heads * m.d), random.gaussians(tokens * kv_heads * m.d));
        let (gq, gk, gv, at) = (Global::new(&q), Global::new(&k), Global::new(&v), Global::new(&positions));
        let mut out = Global::<f32>::zeroed(q.len());
        let (empty, scale) = (buffer(&out), 1.0 / (m.d as f64).sqrt());
        let factor = (scale * std::f64::consts::LOG2_E) as f32;
        let grid = [m.blocks(queries) as u32, kv_heads as u32, 1];
        launch(grid, || attention(m, &gq, &gk, &gv, &at, &mut out, queries as i32, kv_heads as i32, factor));
        close(&format!("{m:?}"), &out.to_vec(), &exact(&m, &q, &k, &v, &positions, kv_heads, scale), 3e-6);
        let args = [buffer(&gq), buffer(&gk), buffer(&gv), buffer(&at), empty, scalar(queries as i32), scalar(kv_heads as i32), scalar(factor)];
        every_stage(&format!("{m:?}"), attention::build(&m).unwrap(), grid, &args, &[(4, &out.bytes)]);
    }
}

#[test]
fn rows_of_a_block_change_no_bit() {
    let (mut random, positions) = (Random(9), (0..40).collect::<Vec<i32>>());
    let (q, k, v) = (random.gaussians(40 * 4 * 64), random.gaussians(40 * 64), random.gaussians(40 * 64));
    let (gq, gk, gv, at) = (Global::new(&q), Global::new(&k), Global::new(&v), Global::new(&positions));
    let of = |rows| {
        let m = AttentionMeta { d: 64, group: 4, rows, keys: 16 };
        let mut out = Global::<f32>::zeroed(q.len());
        launch([m.blocks(40) as u32, 1, 1], || attention(m, &gq, &gk, &gv, &at, &mut out, 40, 1, 0.125));
        out.to_vec()
    };
    assert_eq!(of(16), of(128));
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let top = row.iter().fold(f64::NEG_INFINITY, |a, b| a.max(f64::from(*b)));
    let sum: f64 = row.iter().map(|v| (f64::from(*v) - top).exp()).sum();
    row.iter().map(|v| f64::from(*v) - top - sum.ln()).collect()
}

#[test]
fn scores_of_logits() {
    let (vocab, mut random) = (777, Random(11));
    let base: Vec<f32> = random.gaussians(4 * vocab).iter().map(|v| v * 5.0).collect();
    let mut coded = base.clone();
    // a far row, an equal one, one that differs by rounding, one with no number in it
    random.gaussians(vocab).iter().zip(&mut coded).for_each(|(e, v)| *v += e);
    coded[2 * vocab..3 * vocab].iter_mut().for_each(|v| *v += 1e-5 * *v);
    coded[3 * vocab + 700] = f32::NAN;
    let gold = [5, 6, 7, 8_i32];
    let (gb, gc, gg, mut out) = (Global::new(&base), Global::new(&coded), Global::new(&gold), Global::<f32>::zeroed(4 * NUMBERS));
    let empty = buffer(&out);
    launch([4, 1, 1], || scores(ScoresMeta, &gb, &gc, &gg, &mut out, vocab as i32));
    let out_rows = out.to_vec();
    for row in 0..3 {
        let got = &out_rows[row * NUMBERS..][..NUMBERS];
        let (b, c) = (log_softmax(&base[row * vocab..][..vocab]), log_softmax(&coded[row * vocab..][..vocab]));
        let kl = |least: f64| b.iter().zip(&c).filter(|(b, _)| **b > least).map(|(b, c)| b.exp() * (b - c)).sum::<f64>();
        let g = gold[row] as usize;
        let wanted = [-b[g], b[g] - c[g], kl(f64::NEG_INFINITY), kl(-16.0), c[g].exp() - b[g].exp()];
        let limits = [2e-6, 2e-6, 1e-6 * wanted[2].abs() + 1e-12, 1e-6 * wanted[3].abs() + 1e-12, 1e-6];
        for (i, (wanted, limit)) in wanted.iter().zip(limits).enumerate() {
            assert!((f64::from(got[i]) - wanted).abs() <= limit, "row {row}, number {i}: {} and not {wanted}", got[i]);
        }
        let best = |x: &[f64]| (0..vocab).fold(0, |top, i| if x[i] > x[top] { i } else { top });
        let mut sorted = b.clone();
        sorted.sort_by(|x, y| y.total_cmp(x));
        assert_eq!(got[5] == 1.0, best(&b) == best(&c), "row {row}");
        assert!((f64::from(got[6]) - (sorted[0].exp() - sorted[1].exp())).abs() < 1e-6 && got[7] == 0.0, "row {row}: {got:?}");
    }
    assert_eq!(out_rows[NUMBERS + 1..NUMBERS + 6], [0.0, 0.0, 0.0, 0.0, 1.0]);
    assert!(out_rows[2 * NUMBERS + 2] > 0.0 && out_rows[3 * NUMBERS + 7] == 1.0);
    let args = [buffer(&gb), buffer(&gc), buffer(&gg), empty, scalar(vocab as i32)];
    // a NaN has no bits that every stage shares: only rows of numbers are compared
    let ends = 3 * NUMBERS * 4;
    every_stage("scores", scores::build(&ScoresMeta).unwrap(), [3, 1, 1], &args, &[(3, &out.bytes[..ends])]);
}

#[test]
fn distances_of_rows_and_equal_bytes() {
    let (d, rows, mut random) = (128, ROWS + 3, Random(9));
    let x = random.gaussians(rows * d);
    let mut y: Vec<f32> = x.iter().map(|v| v + 0.1 * random.gaussian()).collect();
    y[..2 * d].copy_from_slice(&x[..2 * d]);
    let (gx, gy) = (Global::new(&x), Global::new(&y));
    let mut out = Global::<f32>::new(&[f32::NAN; 2 * SUMS]);
    let (m, grid, empty) = (DistancesMeta { d }, [rows.div_ceil(ROWS) as u32, 1, 1], buffer(&out));
    launch(grid, || distances(m, &gx, &gy, &mut out, rows as i32));
    let mut wanted = [[0.0_f64; SUMS]; 2];
    for (i, (a, b)) in x.chunks(d).zip(y.chunks(d)).enumerate() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let own = &mut wanted[i / ROWS];
        own[0] += a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
        own[1] += dot(a, a);
        own[2] += if i < 2 { 1.0 } else { dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() };
    }
    for (got, wanted) in out.to_vec().iter().zip(wanted.iter().flatten()) {
        assert!((f64::from(*got) / wanted - 1.0).abs() < 2e-6, "{got} and not {wanted}");
    }
    let args = [buffer(&gx), buffer(&gy), empty, scalar(rows as i32)];
    every_stage("distances", distances::build(&m).unwrap(), grid, &args, &[(2, &out.bytes)]);

    let words = BYTES / 4 + 300;
    let a: Vec<u32> = (0..words).map(|_| random.bits() as u32).collect();
    let b: Vec<u32> = a.iter().enumerate().map(|(i, a)| if i % 3 == 0 { *a } else { a ^ 0x0001_8000 }).collect();
    let (ga, gb, mut out) = (Global::new(&a), Global::new(&b), Global::<i32>::zeroed(2));
    let (grid, empty) = ([2, 1, 1], buffer(&out));
    launch(grid, || same_bytes(SameMeta, &ga, &gb, &mut out, words as i32));
    let same: usize = a.iter().zip(&b).map(|(a, b)| a.to_le_bytes().iter().zip(b.to_le_bytes()).filter(|(a, b)| **a == *b).count()).sum();
    assert_eq!(out.to_vec().iter().sum::<i32>() as usize, same);
    let args = [buffer(&ga), buffer(&gb), empty, scalar(words as i32)];
    every_stage("same bytes", same_bytes::build(&SameMeta).unwrap(), grid, &args, &[(2, &out.bytes)]);
}
