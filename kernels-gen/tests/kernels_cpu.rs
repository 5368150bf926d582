//! The kernels' own Rust functions, block after block on the CPU, against the scalar reference: the same bits.

use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels;
use kernels_gen::reference::{self, CacheShape};
use kernels_gen::registry::{CodecInfo, codec};

/// splitmix64, centred sums of four: close enough to a Gaussian.
struct Noise(u64);
impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
    fn gauss(&mut self) -> f32 {
        (0..4).map(|_| (self.next() >> 40) as f32 / 16_777_216.0 - 0.5).sum::<f32>() * 1.7
    }
    fn row(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.gauss()).collect()
    }
}

struct Case {
    info: &'static CodecInfo,
    shape: CacheShape,
    slots: Vec<i64>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// What the reference stores.
    cache: Vec<u8>,
}

/// `fill` is what slots hold that nobody writes: two of the tokens are skipped.
fn case(name: &str, d: usize, pages: usize, tokens: usize, fill: u8, noise: &mut Noise) -> Case {
    let info = codec(name).unwrap();
    let shape = CacheShape { pages, page_tokens: 64, kv_heads: 2, d };
    let mut slots: Vec<i64> = (0..(pages * 64) as i64).collect();
    for i in (1..slots.len()).rev() {
        slots.swap(i, noise.below(i + 1));
    }
    slots.truncate(tokens);
    slots[0] = -1;
    if tokens > 3 {
        slots[3] = (pages * 64) as i64 + 5;
    }
    let (k, v) = (noise.row(tokens * 2 * d), noise.row(tokens * 2 * d));
    let mut cache = vec![fill; shape.bytes(info)];
    reference::store(info, &shape, &mut cache, &k, &v, &slots);
    Case { info, shape, slots, k, v, cache }
}

fn stored(name: &str, d: usize) {
    let mut noise = Noise(d as u64 * 77 + name.len() as u64);
    let c = case(name, d, 2, 50, 0xee, &mut noise);
    let (tokens, heads) = (c.slots.len(), 2_usize);
    let mut cache = Global::<u8>::new(&vec![0xee; c.cache.len()]);
    let mut status = Global::<i32>::zeroed(4);
    let (k, v, slots) = (Global::new(&c.k), Global::new(&c.v), Global::new(&c.slots));
    let m = kernels::store_meta(c.info, d, 64, kernels::Elem::F32);
    let (ts, hs) = ((heads * d) as i64, d as i64);
    launch(kernels::store_grid(tokens, heads), || kernels::store::store::<f32>(m, c.info.k.bands, c.info.v.bands, &k, &v, &slots, &mut cache, &mut status, tokens as i32, heads as i32, 128, ts, hs, ts, hs));
    let bad = cache.bytes.iter().zip(&c.cache).position(|(a, b)| a != b);
    assert_eq!(bad, None, "{} d {d}: first differing byte of {}", name, c.cache.len());
    assert_eq!(status.to_vec()[0], 1, "the slot past the cache is reported");
}

#[test]
fn store_equals_the_reference() {
    for d in [64, 128, 256, 512] {
        stored("bf16", d);
        stored("int4", d);
        stored("e8w4", d);
        stored("e8q38", d);
    }
}

fn attended(name: &str, d: usize, group: usize, lens: &[i32], warps: usize, unit: usize) {
    let mut noise = Noise(d as u64 * 1000 + group as u64);
    let pages = 40;
    let c = case(name, d, pages, pages * 64, 0, &mut noise);
    let (batch, heads, stride) = (lens.len(), 2 * group, 20);
    let mut table: Vec<i32> = (0..batch * stride).map(|_| noise.below(pages) as i32).collect();
    table[stride] = pages as i32;
    let q = noise.row(batch * heads * d);
    let scale = 1.0 / (d as f32).sqrt();
    let want = reference::decode(c.info, &c.shape, &c.cache, &q, heads, &table, stride, lens, scale);

    let m = kernels::decode_attention::DecodeMeta { warps, ..kernels::decode_meta(c.info, d, group, 64) };
    // What the kernels take for kv heads.
    let (kv_heads, splits) = (2 * m.fold, kernels::splits_of(&m, stride * 64, unit));
    let rows = batch * kv_heads * m.group * splits;
    let (mut part, mut stat) = (Global::<f32>::new(&vec![f32::NAN; rows * d]), Global::<f32>::new(&vec![f32::NAN; rows * 2]));
    let (mut out, mut lse) = (Global::<f32>::new(&vec![f32::NAN; batch * heads * d]), Global::<f32>::zeroed(batch * heads));
    let mut status = Global::<i32>::zeroed(4);
    let (gq, gc, gt, gl) = (Global::new(&q), Global::new(&c.cache), Global::new(&table), Global::new(lens));
    let mut chosen = Global::<i32>::zeroed(1);
    launch([3, 1, 1], || {
        kernels::decode_attention::decode_attention::<f32>(
            m,
            c.info.k.bands,
            c.info.v.bands,
            &gq,
            &Global::zeroed(0),
            &Global::zeroed(0),
            &gc,
            &gt,
            &gl,
            &mut out,
            &mut lse,
            &mut part,
            &mut stat,
            &mut chosen,
            &mut status,
            batch as i32,
            kv_heads as i32,
            pages as i32,
            stride as i32,
            0,
            splits as i32,
            3,
            unit as i32,
            0,
            scale,
        )
    });
    let j = kernels::join_after(&m);
    launch([m.group as u32, kv_heads as u32, batch as u32], || {
        kernels::join_splits::join_splits::<f32>(
            j,
            c.info.v.bands[0],
            &Global::zeroed(0),
            &Global::zeroed(0),
            &part,
            &stat,
            &chosen,
            &gt,
            &gl,
            &mut out,
            &mut lse,
            &mut status,
            kv_heads as i32,
            m.group as i32,
            splits as i32,
            pages as i32,
            stride as i32,
            -1,
            1,
        )
    });
    let (out, lse) = (out.to_vec(), lse.to_vec());
    for i in 0..out.len() {
        let same = if c.info.exact() { out[i].to_bits() == want.out[i].to_bits() } else { (out[i] - want.out[i]).abs() < 2e-2 };
        assert!(
            same,
            "{} d {d} group {group} warps {warps} unit {unit}: out[{i}] (sequence {}, len {}) is {} ({:08x}), wanted {} ({:08x})",
            name,
            i / heads / d,
            lens[i / heads / d],
            out[i],
            out[i].to_bits(),
            want.out[i],
            want.out[i].to_bits()
        );
    }
    for i in 0..lse.len() {
        let same = if c.info.exact() { lse[i].to_bits() == want.lse[i].to_bits() } else { lse[i] == want.lse[i] || (lse[i] - want.lse[i]).abs() < 1e-3 };
        assert!(same, "{} lse[{i}] is {}, wanted {}", name, lse[i], want.lse[i]);
    }
}

#[test]
fn decode_equals_the_reference() {
    let lens = [0, 70, 1, 255, 256, 257, 1280, -3, 1281, 1025];
    for (warps, unit) in [(8, 0), (1, 0), (2, 1), (1, 2)] {
        attended("int4", 64, 4, &lens, warps, unit);
        attended("e8w4", 64, 1, &lens, warps, unit);
        attended("e8q38", 64, 5, &lens, warps, unit);
    }
    attended("bf16", 64, 2, &lens, 2, 0);
    // More sequences than lanes count at once.
    attended("int4", 64, 1, &std::array::from_fn::<i32, 70, _>(|i| 37 * i as i32 % 301), 1, 0);
    attended("e8q38", 128, 8, &[0, 5, 1100], 4, 1);
    attended("int4", 128, 16, &[0, 5, 300], 1, 0);
}
