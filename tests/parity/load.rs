//! The load kernel gives back the reference's rows, for every codec and head dim.

use crate::support::{Guarded, Noise, bits, cases, first_difference, gpu};
use kernels_gen::kernels::{self, Elem};
use kernels_gen::reference::{self, CacheShape};
use kernels_gen::registry::CodecInfo;
use runtime::Arg;

const HEADS: usize = 4;
const PAGE: usize = 64;
/// What nobody loads.
const LEFT: u8 = 0x55;

/// What differs of `tokens` rows of four heads, K and V.
fn run(device: &runtime::Device, stream: &runtime::Stream, c: &CodecInfo, d: usize, tokens: usize) -> Option<String> {
    let mut noise = Noise(c.k.bits as u64 * 1000 + d as u64 + tokens as u64);
    let shape = CacheShape { pages: tokens.div_ceil(PAGE), page_tokens: PAGE, kv_heads: HEADS, d };
    let mut slots: Vec<i64> = noise.shuffled(shape.pages * PAGE)[..tokens].iter().map(|x| *x as i64).collect();
    slots[tokens / 2] = -1;
    slots[tokens / 3] = (shape.pages * PAGE) as i64;
    let (k, v) = (noise.rows(tokens * HEADS, d), noise.rows(tokens * HEADS, d));
    let mut stored = vec![0x77; shape.bytes(c)];
    reference::store(c, &shape, &mut stored, &k, &v, &slots);
    let left = vec![f32::from_bits(u32::from_le_bytes([LEFT; 4])); k.len()];
    let mut want = [left.clone(), left];
    let [wanted_k, wanted_v] = &mut want;
    reference::load(c, &shape, &stored, &slots, wanted_k, wanted_v);

    let put = |b: &[u8]| {
        let g = Guarded::new(device, stream, b.len(), 0);
        g.upload(stream, b);
        g
    };
    let (cache, places) = (put(&stored), put(&slots.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>()));
    let rows = [(); 2].map(|()| Guarded::new(device, stream, 4 * k.len(), LEFT));
    let status = Guarded::new(device, stream, 16, 0);
    let mut args: Vec<Arg> = [&cache, &places, &rows[0], &rows[1], &status].map(|g| Arg::Ptr(g.span())).to_vec();
    args.extend([Arg::I32(tokens as i32), Arg::I32(HEADS as i32), Arg::I64((shape.pages * PAGE) as i64)]);
    let kernel = device.kernel(&kernels::load(c, d, PAGE, Elem::F32).expect("load builds")).expect("load compiles");
    kernel.launch(stream, kernels::store_grid(tokens, HEADS), &args).expect("launch");
    let flags: Vec<i32> = status.download(stream, 4);
    assert_eq!(flags, [1, 0, 0, (tokens / 3) as i32], "the slot past the cache is reported");
    let mut wrong = None;
    for (half, (got, want)) in ["keys", "values"].iter().zip(rows.iter().zip(&want)) {
        let found: Vec<f32> = got.download(stream, want.len());
        got.check(stream, "load");
        wrong = wrong.or(first_difference(&bits(&found), &bits(want)).map(|e| format!("{half}: {e}")));
    }
    wrong
}

#[test]
fn load_is_bit_identical() {
    let Some((device, stream)) = gpu("load_is_bit_identical") else { return };
    for (c, vectors) in crate::subjects(cases(20_000)) {
        for d in [64, 128, 256, 512].into_iter().filter(|d| c.serves(*d)) {
            let tokens = (vectors / 4 / 8).max(8);
            let wrong = run(&device, &stream, c, d, tokens);
            println!("load {} d {d}: {} vectors, {}", c.name, tokens * 8, wrong.as_deref().unwrap_or("0 differing rows"));
            assert!(wrong.is_none(), "{} d {d}: {wrong:?}", c.name);
        }
    }
}
