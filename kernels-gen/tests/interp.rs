//! Every stage of every kernel through the interpreter: tile IR, pipelined, thread IR give the bytes of the
//! kernel's Rust function, and the scalar reference agrees.

#[path = "support/attending.rs"]
mod attending;
#[path = "support/problem.rs"]
mod problem;
#[path = "support/stages.rs"]
mod run;
mod support;

use attending::{LEFT, Launches, attends};
use kernel_dsl::prelude::*;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::join_splits::NARROW;
use kernels_gen::kernels::{self, Elem as Memory};
use kernels_gen::reference::{self, CacheShape, Status};
use kernels_gen::registry::{FAMILIES, codec};
use problem::{AWAY, KV_HEADS, Problem, SCARCE, STRIDE};
use run::{assert_bytes, buffer, counted, global, interpreted, memory, scalar, shuffled, stages};
use support::Random;

/// Twenty tokens into random slots, or (bf16) by fours that lie side by side, one negative and one past the cache.
fn store<T: Float>(name: &str, d: usize, page_tokens: usize) {
    let c = codec(name).unwrap();
    let mut random = Random((d + c.k.bits) as u64);
    let (tokens, kv_heads, pages) = (20, 2, 3);
    let shape = CacheShape { pages, page_tokens, kv_heads, d };
    let run = if memory::<T>() == Memory::Bf16 { 4 } else { 1 };
    let runs = shuffled(pages * page_tokens / run, &mut random);
    let mut slots: Vec<i64> = runs.into_iter().flat_map(|s| (0..run).map(move |i| (s as usize * run + i) as i64)).take(tokens).collect();
    (slots[2], slots[17]) = (-1, (pages * page_tokens) as i64 + 5);
    let (k, v): (Global<T>, Global<T>) = (global(&random.gaussians(tokens * kv_heads * d)), global(&random.gaussians(tokens * kv_heads * d)));
    let floats = |x: &Global<T>| x.to_vec().into_iter().map(T::to_f32).collect::<Vec<f32>>();
    let mut want = vec![0xee; shape.bytes(c)];
    let status = reference::store(c, &shape, &mut want, &floats(&k), &floats(&v), &slots);
    let what = format!("{} store d {d} page {page_tokens}", c.name);
    assert_eq!(status, Status::BAD_SLOT, "{what}");

    let cache = Global::<u8>::new(&vec![0xee; want.len()]);
    let strides = [(kv_heads * d) as i64, d as i64].map(scalar);
    let slots = Global::new(&slots);
    let ir = kernels::store_ir(c, &kernels::store_meta(c, d, page_tokens, memory::<T>()), memory::<T>()).unwrap();
    let args = || {
        let mut args = vec![buffer(&k), buffer(&v), buffer(&slots), buffer(&cache), buffer(&Global::<i32>::zeroed(4))];
        args.extend([scalar(tokens as i32), scalar(kv_heads as i32), scalar((pages * page_tokens) as i64)]);
        args.extend(strides.iter().chain(&strides).cloned());
        args
    };
    let grid = kernels::store_grid(tokens, kv_heads);
    if d == 64 {
        let (bytes, moved) = counted(&what, &ir, grid, args());
        assert_bytes(&format!("{what}, counted"), &bytes[3], &want);
        assert_eq!(moved, [0, ((tokens - 2) * kv_heads * c.token_bytes(d)) as i64], "{what}: bytes read and written");
    }
    for stage in stages(ir) {
        let got = interpreted(&what, &stage, grid, args());
        assert_bytes(&format!("{what}, {} IR", stage.0), &got[3], &want);
        assert_bytes(&format!("{what}, {} IR, status", stage.0), &got[4], &Global::new(&[1, 0, 0, 17_i32]).bytes);
    }
}

fn decode<T: Float>(name: &str, p: &Problem) {
    let c = codec(name).unwrap();
    let x = p.data::<T>(c);
    let what = format!("{} decode d {} group {} page {} share {:?} lens {:?}", c.name, p.d, p.group, p.page_tokens, p.share, p.lens);
    let m = kernels::decode_meta(c, p.d, p.group, p.page_tokens);
    let m = if p.share.0 & SCARCE > 0 { m.within(99 * 1024) } else { m };
    let (warps, away) = (p.share.0 & !(AWAY | SCARCE), p.share.0 & AWAY > 0);
    let m = if warps > 0 { DecodeMeta { warps: warps.min(m.warps), depth: p.share.1.max(m.depth), away: away || m.away, ..m } } else { m };
    let (heads, splits) = (KV_HEADS * m.fold, kernels::splits_of(&m, STRIDE * p.page_tokens, p.share.1));
    let join = kernels::join_after(&m);
    let join = if splits <= NARROW { join.narrow() } else { join };
    // A block for each share that there may be, or for all of a sequence's head; else fewer than parts, so that some take several and some none in
    // a turn, and each finds its shares by itself or is told.
    let (blocks, own) = match p.group.is_multiple_of(4) || p.share.0 == 2 {
        true => (p.lens.len() * heads * splits, 1),
        false => (2 + p.d % 3, if p.d == 128 { 2 } else { 0 }),
    };
    let shape = CacheShape { pages: x.pages, page_tokens: p.page_tokens, kv_heads: KV_HEADS, d: p.d };
    let launches = Launches { m, join, c, shape, group: p.group, stride: STRIDE, unit: p.share.1, blocks, own, table: &x.table, lens: &p.lens, scale: x.scale };
    let left = attends(&what, &launches, &x.q, &x.cache, &x.want);
    if p.d == 64 {
        let (bytes, moved) = counted(&what, &kernels::decode_ir(c, &m, memory::<T>()).unwrap(), left.grid, left.args);
        for (i, name) in LEFT.iter().enumerate().take(4).filter(|_| c.exact()) {
            assert_bytes(&format!("{what}, counted: {name}"), &bytes[4 + i], &left.bytes[i]);
        }
        // Whole tiles, of sequences that are not longer than their table.
        let tiles = |len: &i32| usize::try_from(*len).ok().filter(|n| *n <= STRIDE * p.page_tokens).unwrap_or(0).div_ceil(32);
        let read = p.lens.iter().map(tiles).sum::<usize>() * heads * c.tile_bytes(p.d);
        assert_eq!(moved, [read as i64, 0], "{what}: bytes read and written");
    }
}

fn stores(name: &str) {
    for (d, page_tokens) in [(64, 32), (128, 64)] {
        store::<f32>(name, d, page_tokens);
        store::<bf16>(name, d, page_tokens);
    }
    store::<f32>(name, 256, 32);
}

fn decodes(name: &str) {
    let lens = [vec![0, 1, 70], vec![33, -3, 31], vec![64, 5], vec![32, 97]];
    for (i, d) in [64, 128, 256].into_iter().enumerate() {
        for (k, group) in [1, 4, 8, 16].into_iter().enumerate() {
            let n = (i + k) % 4;
            let bad_page = (n == 2).then_some(1);
            let p = Problem { d, group, page_tokens: [32, 64][(i + k / 2) % 2], share: ([0, 1, 8][(i + k) % 3], i % 2), lens: lens[n].clone(), bad_page };
            decode::<f32>(name, &p);
        }
    }
    // Five leaves, of one block and of several, whose warps take one, two or four.
    for share in [(8, 0), (2, 0), (2, 1), (1, 1), (1, 2)] {
        decode::<f32>(name, &Problem { d: 64, group: 3, page_tokens: 32, share, lens: vec![1100], bad_page: (share.0 == 1).then_some(0).filter(|_| share.1 == 2) });
    }
    // Likewise, parts wait away from shared memory.
    for (group, lens) in [(3, vec![1100]), (8, vec![900])] {
        decode::<f32>(name, &Problem { d: 64, group, page_tokens: 32, share: (AWAY | 1, 2), lens, bad_page: None });
    }
    decode::<bf16>(name, &Problem { d: 128, group: 5, page_tokens: 64, share: (0, 0), lens: vec![40, 3], bad_page: None });
    // More rows than four, over leaves.
    decode::<bf16>(name, &Problem { d: 128, group: 6, page_tokens: 64, share: (0, 0), lens: vec![200, 330], bad_page: None });
    bundles(name);
}

/// Short sequences side by side, a warp each: empty ones, a bad length, a bad page, longer ones among them.
fn bundles(name: &str) {
    let short = vec![300, 0, 65, 1, -3, 256, 40, 0, 3, 33];
    decode::<f32>(name, &Problem { d: 64, group: 3, page_tokens: 32, share: (8, 0), lens: short.clone(), bad_page: Some(2) });
    decode::<bf16>(name, &Problem { d: 128, group: 3, page_tokens: 96, share: (4, 1), lens: vec![1100, 20, 257, 130, 0, 7, 64], bad_page: Some(3) });
    decode::<f32>(name, &Problem { d: 64, group: 7, page_tokens: 32, share: (AWAY | 8, 1), lens: vec![600, 31, 64, 3, 200], bad_page: None });
    decode::<f32>(name, &Problem { d: 64, group: 16, page_tokens: 64, share: (2, 1), lens: short, bad_page: None });
}

macro_rules! codecs {
    ($($store:ident, $decode:ident: $codec:literal;)*) => { $(
        #[test]
        fn $store() {
            stores($codec);
        }
        #[test]
        fn $decode() {
            decodes($codec);
        }
    )* };
}
codecs! {
    stores_bf16, decodes_bf16: "bf16";
    stores_int4, decodes_int4: "int4";
    stores_e8w4, decodes_e8w4: "e8w4";
    stores_e8q38, decodes_e8q38: "e8q38";
    stores_mixed, decodes_mixed: "e8q38/int4";
    stores_half_exact, decodes_half_exact: "int4/bf16";
}

/// Bands of different widths under one scale.
#[test]
fn bands() {
    for (name, d) in [
        ("e8w5+e8w4+e8w4+e8w2/e8w5+e8w3", 128),
        ("e8w6+e8w3/e8w4", 64),
        ("int6+int4+int3+int2/int5+int3", 256),
        ("e8w3/e8w7+e8w2", 128),
        ("e8c4+e8c2+e8c1+e8c1/e8c3+e8c1", 128),
        ("e8c7+e8c6+e8c6+e8c5/e8c7+e8c5", 128),
        ("intc6442/intc7531", 128),
        ("intc5331/intc7764", 64),
        ("intc4211/intc8844", 256),
    ] {
        store::<f32>(name, d, 32);
        store::<bf16>(name, d, 64);
        decode::<f32>(name, &Problem { d, group: 4, page_tokens: 32, share: (0, 0), lens: vec![70, 0, 31], bad_page: None });
        decode::<bf16>(name, &Problem { d, group: 8, page_tokens: 64, share: (0, 0), lens: vec![33], bad_page: None });
    }
}

/// Parts of a kv head's query heads that overlap: both write the head they share, whole or by the join kernel.
#[test]
fn parts_of_a_kv_head_overlap() {
    decode::<f32>("int4", &Problem { d: 256, group: 5, page_tokens: 32, share: (0, 0), lens: vec![40, 0, -1, 31], bad_page: Some(1) });
    decode::<bf16>("turboquant_k8v4", &Problem { d: 256, group: 7, page_tokens: 32, share: (1, 0), lens: vec![300, 2], bad_page: None });
}

/// Queries read anew for each tile, for want of registers: of two bytes a lane, and where blocks have little shared memory of floats too.
#[test]
fn queries_are_read_anew() {
    decode::<f32>("e8q152", &Problem { d: 256, group: 3, page_tokens: 32, share: (0, 0), lens: vec![70, 0], bad_page: None });
    decode::<bf16>("d4q152", &Problem { d: 128, group: 4, page_tokens: 32, share: (SCARCE, 0), lens: vec![300, 33], bad_page: None });
    decode::<bf16>("bf16", &Problem { d: 256, group: 4, page_tokens: 32, share: (SCARCE, 0), lens: vec![70, 1], bad_page: None });
}

/// Side values for parts of a vector: groups narrower and wider than what a lane holds, beside other codecs.
#[test]
fn groups() {
    for name in ["nvfp4", "mxfp4", "fp8_e4m3_64", "fp8_e4m3_64_e8m0"] {
        for (d, group) in [(64, 4), (128, 8), (128, 3), (256, 16)] {
            store::<f32>(name, d, 32);
            decode::<f32>(name, &Problem { d, group, page_tokens: 32, share: (0, 0), lens: vec![70, 0, 31], bad_page: None });
        }
        store::<bf16>(name, 512, 64);
    }
    for name in ["int4/nvfp4", "mxfp4/int4", "fp8_e4m3_64/nvfp4", "nvfp4_t6/fp8_e4m3_64_e8m0", "nvfp4/affine4"] {
        store::<bf16>(name, 128, 32);
        decode::<bf16>(name, &Problem { d: 128, group: 4, page_tokens: 32, share: (0, 0), lens: vec![70], bad_page: None });
    }
}

/// Small tiles come two a copy: odd and even counts of them, over several leaves.
#[test]
fn pairs() {
    for name in ["int2", "e8w2"] {
        assert_eq!(kernels::decode_meta(codec(name).unwrap(), 128, 4, 64).pair, 2, "{name}");
        decode::<bf16>(name, &Problem { d: 128, group: 4, page_tokens: 64, share: (0, 0), lens: vec![545, 0, 64, 97], bad_page: None });
    }
}

/// Three whole sequences of two heads on five blocks: four of them take two side by side, the last one beside nothing; a page of one does not exist.
#[test]
fn two_sequences_lie_side_by_side() {
    let c = codec("int4").unwrap();
    let p = Problem { d: 64, group: 3, page_tokens: 32, share: (4, 1), lens: vec![1100, 1056, 1152], bad_page: Some(1) };
    let x = p.data::<f32>(c);
    let m = DecodeMeta { warps: 4, depth: 2, ..kernels::decode_meta(c, p.d, p.group, p.page_tokens) };
    assert!(m.pairs() && KV_HEADS * m.fold == 2);
    let join = kernels::join_after(&m).narrow();
    let shape = CacheShape { pages: x.pages, page_tokens: p.page_tokens, kv_heads: KV_HEADS, d: p.d };
    let launches = Launches { m, join, c, shape, group: p.group, stride: STRIDE, unit: 1, blocks: 5, own: 0, table: &x.table, lens: &p.lens, scale: x.scale };
    attends("two side by side", &launches, &x.q, &x.cache, &x.want);
}

/// Every other family in a few shapes.
#[test]
fn families() {
    for name in FAMILIES.iter().filter(|n| !["bf16", "int4", "e8w4", "e8q38"].contains(*n)) {
        store::<f32>(name, 64, 32);
        store::<bf16>(name, 128, 64);
        decode::<f32>(name, &Problem { d: 64, group: 4, page_tokens: 32, share: (0, 0), lens: vec![70, 0, 31], bad_page: None });
        decode::<bf16>(name, &Problem { d: 128, group: 1, page_tokens: 64, share: (0, 0), lens: vec![33], bad_page: None });
    }
    for name in ["int3", "e8w5", "d4q10", "e8q152", "e8q1", "d4q1"] {
        store::<f32>(name, 256, 32);
        decode::<f32>(name, &Problem { d: 256, group: 8, page_tokens: 32, share: (0, 0), lens: vec![40], bad_page: None });
    }
}

/// Values with an offset under every way to sum weights, beside keys of every kind of lane.
#[test]
fn offsets() {
    for (name, group) in [
        ("turboquant_4bit_nc", 4),
        ("turboquant_3bit_nc", 8),
        ("turboquant_k3v4_nc", 1),
        ("turboquant_k8v4", 4),
        ("e8q152/affine4", 2),
        ("int4/affine3", 16),
        ("int4_per_token_head", 4),
        ("affine3/int4_per_token_head", 8),
        ("bf16/affine8", 3),
    ] {
        store::<f32>(name, 64, 32);
        store::<bf16>(name, 128, 64);
        decode::<f32>(name, &Problem { d: 64, group, page_tokens: 32, share: (0, 0), lens: vec![70, 0, 31], bad_page: None });
        decode::<bf16>(name, &Problem { d: 128, group, page_tokens: 64, share: (0, 0), lens: vec![33], bad_page: None });
    }
    store::<f32>("turboquant_4bit_nc", 256, 32);
    decode::<f32>("turboquant_4bit_nc", &Problem { d: 256, group: 8, page_tokens: 32, share: (0, 0), lens: vec![40], bad_page: None });
    // Several leaves, split and whole.
    for share in [(0, 0), (1, 1)] {
        decode::<f32>("turboquant_4bit_nc", &Problem { d: 64, group: 3, page_tokens: 32, share, lens: vec![1100], bad_page: None });
    }
}
