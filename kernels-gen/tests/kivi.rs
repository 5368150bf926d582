//! KIVI's cache: the tiles hold what the format says, attention over them is attention over those numbers, and every stage of
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
use kernels_gen::kernels::{self, kivi as fused};
use kernels_gen::kivi::{GROUP, Kivi, KiviLayout, codec};
use kernels_gen::reference::{self, CacheShape, KiviHead, Status};
use run::{assert_bytes, buffer, global, interpreted, memory, scalar, shuffled, stages};
use support::Random;

const KV_HEADS: usize = 2;
const STRIDE: usize = 36;

/// Slots of the tokens of tiles that begin at these; only a tile's first one counts.
fn spread(tiles: &[i64]) -> Vec<i64> {
    tiles.iter().flat_map(|first| (0..32).map(move |t| if t == 0 { *first } else { -7 })).collect()
}

fn bytes_of(c: &Kivi, s: &CacheShape) -> usize {
    s.pages * s.kv_heads * s.page_tokens / 32 * KiviLayout::of(c, s.d).tile_bytes()
}

/// Rows with a channel that is large in every token, as keys have them, one that is constant, and one of zeros of both signs.
fn rows(random: &mut Random, n: usize, d: usize) -> Vec<f32> {
    let mut x = random.gaussians(n * d);
    for row in x.chunks_mut(d) {
        row[5] = 20.0 + 0.1 * row[5];
        row[7] = 0.3;
        row[9] = if row[9] > 0.0 { 0.0 } else { -0.0 };
    }
    x
}

/// What tiles stand for is what the simulated cache reads back, bit for bit.
#[test]
fn tiles_hold_the_simulated_numbers() {
    for (name, d) in [("kivi_k2v2", 128), ("kivi_k4v4", 64), ("kivi_k3v2", 128), ("kivi_k1v8", 64), ("kivi_k2v4", 256), ("kivi_k5v6", 128)] {
        let (c, mut random) = (codec(name).unwrap(), Random(d as u64));
        let s = CacheShape { pages: 1, page_tokens: 64, kv_heads: 1, d };
        let (k, v) = (rows(&mut random, 64, d), rows(&mut random, 64, d));
        let mut cache = vec![0xa5; bytes_of(&c, &s)];
        assert_eq!(reference::store_groups(&c, &s, &mut cache, &k, &v, &spread(&[32, 0])), Status::OK);
        let mut head = KiviHead::new(&c, d);
        cache.chunks(KiviLayout::of(&c, d).tile_bytes()).rev().for_each(|tile| head.push(tile));
        let [keys, values] = head.numbers();
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let wanted: Vec<f32> = k.chunks(32 * d).flat_map(|rows| c.keys(rows)).collect();
        assert_eq!(bits(&keys), bits(&wanted), "{name}: keys");
        assert_eq!(bits(&values), bits(&c.values(&v)), "{name}: values");
        // Not a byte is left over.
        assert_eq!(8 * cache.len(), 64 * (d * (c.key_bits + c.value_bits) + d + 32 * d / GROUP), "{name}: bits");
    }
}

/// f64 attention over the numbers that tiles stand for.
fn exact(q: &[f32], keys: &[f32], values: &[f32], d: usize, len: usize, scale: f32) -> (Vec<f64>, f64) {
    let dot = |t: usize| q.iter().zip(&keys[t * d..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * f64::from(scale);
    let scores: Vec<f64> = (0..len).map(dot).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
    let out = (0..d).map(|c| (0..len).map(|t| (scores[t] - top).exp() / total * f64::from(values[t * d + c])).sum());
    (out.collect(), top + total.ln())
}

#[test]
fn attention_is_that_of_the_numbers() {
    for (name, d) in [("kivi_k2v2", 128), ("kivi_k4v4", 64), ("kivi_k4v4", 128), ("kivi_k8v8", 64)] {
        let (c, mut random) = (codec(name).unwrap(), Random(3 + d as u64));
        let (tokens, scale) = (640, 1.0 / (d as f32).sqrt());
        let s = CacheShape { pages: 20, page_tokens: 32, kv_heads: 1, d };
        let (k, v) = (rows(&mut random, tokens, d), rows(&mut random, tokens, d));
        let mut cache = vec![0; bytes_of(&c, &s)];
        reference::store_groups(&c, &s, &mut cache, &k, &v, &spread(&(0..20).map(|i| 32 * i).collect::<Vec<i64>>()));
        let mut head = KiviHead::new(&c, d);
        cache.chunks(KiviLayout::of(&c, d).tile_bytes()).for_each(|tile| head.push(tile));
        let [keys, values] = head.numbers();
        for (len, loud) in [(1, 1.0_f64), (33, 1.0), (640, 1.0), (600, 8.0)] {
            let q: Vec<f32> = random.gaussians(d).iter().map(|q| q * loud as f32).collect();
            let (out, lse) = head.attend(&q, len, scale);
            let (wanted, total) = exact(&q, &keys, &values, d, len, scale);
            let size = wanted.iter().map(|x| x.abs()).fold(0.0, f64::max);
            let off = out.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(off < 4e-4 * size * loud, "{name} d {d} len {len}: off by {off}, outputs up to {size}");
            assert!((f64::from(lse) - total).abs() < 1e-3 * loud, "{name} d {d} len {len}: lse {lse}, wanted {total}");
        }
    }
}

fn store<T: Float>(name: &str, d: usize, page_tokens: usize) {
    let (c, mut random) = (codec(name).unwrap(), Random(d as u64 + 1));
    let s = CacheShape { pages: 3, page_tokens, kv_heads: KV_HEADS, d };
    // One for nobody, one that begins no tile.
    let (slots, tokens) = (spread(&[32, -1, 0, 17]), 4 * 32);
    let (k, v): (Global<T>, Global<T>) = (global(&rows(&mut random, tokens * KV_HEADS, d)), global(&rows(&mut random, tokens * KV_HEADS, d)));
    let floats = |x: &Global<T>| x.to_vec().into_iter().map(T::to_f32).collect::<Vec<f32>>();
    let mut want = vec![0xee; bytes_of(&c, &s)];
    let status = reference::store_groups(&c, &s, &mut want, &floats(&k), &floats(&v), &slots);
    let what = format!("{name} store d {d} page {page_tokens}");
    assert_eq!(status, Status::BAD_SLOT, "{what}");
    let m = fused::store_meta(&c, d, page_tokens, memory::<T>());
    let (slots, mut cache, mut flags) = (Global::new(&slots), Global::<u8>::new(&vec![0xee; want.len()]), Global::<i32>::zeroed(4));
    let (grid, token, head, count) = ([4, KV_HEADS as u32, 2], (KV_HEADS * d) as i64, d as i64, (3 * page_tokens) as i64);
    let args = vec![buffer(&k), buffer(&v), buffer(&slots), buffer(&cache), buffer(&flags), scalar(tokens as i32), scalar(KV_HEADS as i32), scalar(count), scalar(token), scalar(head), scalar(token), scalar(head)];
    let halves = c.halves();
    launch(grid, || fused::store::store_groups::<T>(m, halves.k.bands[0], halves.v.bands[0], &k, &v, &slots, &mut cache, &mut flags, tokens as i32, KV_HEADS as i32, count, token, head, token, head));
    assert_bytes(&format!("{what}, Rust"), &cache.bytes, &want);
    assert_eq!(flags.to_vec(), [1, 0, 0, 96], "{what}");
    for stage in stages(fused::store_ir(&c, &m, memory::<T>()).unwrap()) {
        let got = interpreted(&what, &stage, grid, args.clone());
        assert_bytes(&format!("{what}, {} IR", stage.0), &got[3], &want);
        assert_bytes(&format!("{what}, {} IR, status", stage.0), &got[4], &flags.bytes);
    }
}

#[test]
fn stores() {
    for name in ["kivi_k2v2", "kivi_k4v4", "kivi_k3v8", "kivi_k1v3"] {
        store::<f32>(name, 64, 32);
        store::<bf16>(name, 128, 64);
    }
}

struct Problem {
    d: usize,
    group: usize,
    page_tokens: usize,
    /// Warps of a block and log2 of the leaves of a warp.
    share: (usize, usize),
    lens: Vec<i32>,
    bad_page: bool,
}

fn decode<T: Float>(name: &str, p: &Problem) {
    let (c, mut random) = (codec(name).unwrap(), Random((p.d * 100 + p.group) as u64));
    let (batch, d) = (p.lens.len(), p.d);
    let pages = batch * STRIDE + 3;
    let s = CacheShape { pages, page_tokens: p.page_tokens, kv_heads: KV_HEADS, d };
    let mut table: Vec<i32> = shuffled(pages, &mut random).into_iter().take(batch * STRIDE).map(|p| p as i32).collect();
    let mut slots = vec![];
    for (b, len) in p.lens.iter().enumerate() {
        let used = (*len).clamp(0, (STRIDE * p.page_tokens) as i32) as usize;
        slots.extend((0..used).step_by(32).map(|t| i64::from(table[b * STRIDE + t / p.page_tokens]) * p.page_tokens as i64 + (t % p.page_tokens) as i64));
    }
    let mut cache = vec![0xff; bytes_of(&c, &s)];
    let n = slots.len() * 32 * KV_HEADS;
    assert!(reference::store_groups(&c, &s, &mut cache, &rows(&mut random, n, d), &rows(&mut random, n, d), &spread(&slots)).is_ok());
    if p.bad_page {
        table[0] = pages as i32;
    }
    let heads = KV_HEADS * p.group;
    let q: Global<T> = global(&random.gaussians(batch * heads * d));
    let scale = 1.0 / (d as f32).sqrt();
    let floats: Vec<f32> = q.to_vec().into_iter().map(T::to_f32).collect();
    let want = reference::decode_kivi(&c, &s, &cache, &floats, heads, &table, STRIDE, &p.lens, scale);

    let m = fused::decode_meta(&c, d, p.group, p.page_tokens);
    let m = DecodeMeta { warps: p.share.0, depth: p.share.1.max(1), ..m };
    let (what, join) = (format!("{name} decode d {d} group {} share {:?} lens {:?}", p.group, p.share, p.lens), kernels::join_meta(d, p.page_tokens));
    // The bits of the reference, not only near it.
    let halves = c.halves();
    assert!(halves.exact());
    attends(&what, &Launches { m, join, c: halves, shape: s, group: p.group, stride: STRIDE, unit: p.share.1, blocks: 2 + p.group % 2, own: 0, table: &table, lens: &p.lens, scale }, &q, &Global::new(&cache), &want);
}

#[test]
fn decodes() {
    for name in ["kivi_k2v2", "kivi_k4v4"] {
        decode::<f32>(name, &Problem { d: 64, group: 4, page_tokens: 32, share: (4, 1), lens: vec![0, 32, 64], bad_page: false });
        decode::<bf16>(name, &Problem { d: 128, group: 4, page_tokens: 64, share: (4, 1), lens: vec![96, -3, 70], bad_page: true });
        decode::<f32>(name, &Problem { d: 128, group: 1, page_tokens: 32, share: (4, 1), lens: vec![300], bad_page: false });
    }
    decode::<f32>("kivi_k3v8", &Problem { d: 64, group: 3, page_tokens: 32, share: (4, 1), lens: vec![64], bad_page: false });
    decode::<f32>("kivi_k8v2", &Problem { d: 128, group: 8, page_tokens: 32, share: (4, 1), lens: vec![96], bad_page: false });
    decode::<bf16>("kivi_k2v2", &Problem { d: 64, group: 7, page_tokens: 64, share: (2, 1), lens: vec![40, 33], bad_page: false });
}

/// Leaves of one block and of several, whose warps take one, two or four.
#[test]
fn decodes_leaves() {
    for (share, group) in [((4, 0), 4), ((2, 1), 3), ((1, 1), 4), ((1, 2), 2), ((1, 2), 8)] {
        decode::<f32>("kivi_k2v2", &Problem { d: 64, group, page_tokens: 32, share, lens: vec![1056], bad_page: share.0 == 4 });
    }
}
