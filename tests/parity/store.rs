//! The store kernel writes the reference's bytes, for every codec and head dim.

use crate::support::{Guarded, Noise, cases, gpu};
use kernels_gen::kernels::{self, Elem};
use kernels_gen::reference::{self, CacheShape};
use kernels_gen::registry::CodecInfo;
use runtime::Arg;

const HEADS: usize = 4;
const PAGE: usize = 64;

/// Stores `tokens` rows of four heads, K and V: 8 vectors a token. Gives the number of differing bytes.
fn run(device: &runtime::Device, stream: &runtime::Stream, c: &CodecInfo, d: usize, tokens: usize, elem: Elem) -> usize {
    let mut noise = Noise(c.k.bits as u64 * 1000 + d as u64 + tokens as u64);
    let shape = CacheShape { pages: tokens.div_ceil(PAGE), page_tokens: PAGE, kv_heads: HEADS, d };
    // One by one, or (bf16) by fours that lie side by side.
    let run = if elem == Elem::Bf16 { 4 } else { 1 };
    let runs = noise.shuffled(shape.pages * PAGE / run);
    let mut slots: Vec<i64> = runs.iter().flat_map(|x| (0..run).map(move |i| (*x as usize * run + i) as i64)).take(tokens).collect();
    slots[tokens / 2] = -1;
    slots[tokens / 3] = (shape.pages * PAGE) as i64;
    let round = |x: Vec<f32>| if elem == Elem::Bf16 { x.into_iter().map(|v| half::bf16::from_f32(v).to_f32()).collect() } else { x };
    let (k, v): (Vec<f32>, Vec<f32>) = (round(noise.rows(tokens * HEADS, d)), round(noise.rows(tokens * HEADS, d)));
    let mut want = vec![0x77; shape.bytes(c)];
    reference::store(c, &shape, &mut want, &k, &v, &slots);

    let kernel = device.kernel(&kernels::store(c, d, PAGE, elem).expect("store builds")).expect("store compiles");
    let bytes = |x: &[f32]| -> Vec<u8> {
        match elem {
            Elem::F32 => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Elem::Bf16 => x.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        }
    };
    let put = |b: &[u8]| {
        let g = Guarded::new(device, stream, b.len(), 0);
        g.upload(stream, b);
        g
    };
    let (gk, gv, gs) = (put(&bytes(&k)), put(&bytes(&v)), put(&slots.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>()));
    let cache = Guarded::new(device, stream, want.len(), 0x77);
    let status = Guarded::new(device, stream, 16, 0);
    let (ts, hs) = ((HEADS * d) as i64, d as i64);
    let args = [
        Arg::Ptr(gk.span()),
        Arg::Ptr(gv.span()),
        Arg::Ptr(gs.span()),
        Arg::Ptr(cache.span()),
        Arg::Ptr(status.span()),
        Arg::I32(tokens as i32),
        Arg::I32(HEADS as i32),
        Arg::I64((shape.pages * PAGE) as i64),
        Arg::I64(ts),
        Arg::I64(hs),
        Arg::I64(ts),
        Arg::I64(hs),
    ];
    kernel.launch(stream, kernels::store_grid(tokens, HEADS), &args).expect("launch");
    let got: Vec<u8> = cache.download(stream, want.len());
    cache.check(stream, "store");
    let flags: Vec<i32> = status.download(stream, 4);
    assert_eq!(flags[0], 1, "the slot past the cache is reported");
    got.iter().zip(&want).filter(|(a, b)| a != b).count()
}

#[test]
fn store_is_bit_identical() {
    let Some((device, _)) = gpu("store_is_bit_identical") else { return };
    let total = crate::side_by_side(&device, &crate::subjects(cases(20_000)), |stream, &(c, vectors)| {
        let mut total = 0;
        for d in [64, 128, 256, 512].into_iter().filter(|d| c.serves(*d)) {
            let per = (vectors / 4 / 8).max(8);
            let mut bad = 0;
            for (elem, n) in [(Elem::F32, per / 2), (Elem::Bf16, per - per / 2)] {
                bad += run(&device, stream, c, d, n.max(4), elem);
            }
            println!("store {} d {d}: {} vectors, {bad} differing bytes", c.name, per * 8);
            total += bad;
        }
        total
    });
    assert_eq!(total, 0, "differing bytes");
}
