//! Rows into slots, slots into tiles and back: the reference's bytes.

use crate::support::{Guarded, Noise, cases, gpu};
use kernel_dsl::Source;
use kernels_gen::kernels::{self, Elem};
use kernels_gen::reference::{self, CacheShape, SlotShape};
use kernels_gen::registry::codec;
use runtime::Arg;

const HEADS: usize = 4;

#[test]
fn slots_are_bit_identical() {
    let Some((device, stream)) = gpu("slots_are_bit_identical") else { return };
    for name in ["turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc"] {
        let c = codec(name).expect("a codec");
        for d in [64, 128, 256, 512] {
            let tokens = (cases(20_000) / 16).clamp(48, 4096) / 16 * 16;
            let mut noise = Noise(d as u64 + c.k.bits as u64);
            let shape = SlotShape { pages: tokens / 16, page_tokens: 16, kv_heads: HEADS, d };
            let tiles = CacheShape { pages: tokens.div_ceil(64), page_tokens: 64, kv_heads: HEADS, d };
            let mut at: Vec<i64> = noise.shuffled(tokens).iter().map(|x| *x as i64).collect();
            let to: Vec<i64> = noise.shuffled(tokens).iter().map(|x| *x as i64).collect();
            at[tokens / 2] = -1;
            let (k, v) = (noise.rows(tokens * HEADS, d), noise.rows(tokens * HEADS, d));
            let mut stored = vec![0x77; shape.bytes(c)];
            reference::store_slots(c, &shape, &mut stored, &k, &v, &at);
            let mut brought = vec![0x77; tiles.bytes(c)];
            reference::import_slots(c, &shape, &stored, &at, &tiles, &mut brought, &to);
            let mut sent = vec![0x77; shape.bytes(c)];
            reference::export_slots(c, &tiles, &brought, &to, &shape, &mut sent, &at);

            let m = kernels::slot_meta(c, d, 16, 64, Elem::F32).expect("a codec with slots");
            let kernel = |ir: Result<_, _>| device.kernel(&ir.and_then(|ir| Source::of(&ir)).expect("it builds")).expect("it compiles");
            let put = |b: &[u8]| {
                let g = Guarded::new(&device, &stream, b.len(), 0);
                g.upload(&stream, b);
                g
            };
            let floats = |x: &[f32]| put(&x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
            let places = |x: &[i64]| put(&x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
            let (gk, gv, gat, gto, status) = (floats(&k), floats(&v), places(&at), places(&to), Guarded::new(&device, &stream, 16, 0));
            let size = kernels::slots::slot_bytes(c, d) as i64;
            let strides = [Arg::I64(16 * HEADS as i64 * size), Arg::I64(HEADS as i64 * size), Arg::I64(size)];
            let grid = kernels::store_grid(tokens, HEADS);

            let [slots, cache, back] = [&stored, &brought, &sent].map(|want| Guarded::new(&device, &stream, want.len(), 0x77));
            let rows = |x| [Arg::Ptr(x), Arg::I64((HEADS * d) as i64), Arg::I64(d as i64)];
            let in_slots = |x| [&[Arg::Ptr(x), Arg::Ptr(gat.span()), Arg::I64(tokens as i64)][..], &strides[..]].concat();
            let in_tiles = [Arg::Ptr(cache.span()), Arg::Ptr(gto.span()), Arg::I64((tiles.pages * 64) as i64), Arg::I32(HEADS as i32)];
            let last = [Arg::Ptr(status.span()), Arg::I32(tokens as i32)];
            let run = |ir, args: [&[Arg]; 4]| kernel(ir).launch(&stream, grid, &args.concat()).expect("launch");
            run(kernels::store_slots_ir(c, &m, Elem::F32), [&rows(gk.span()), &rows(gv.span()), &in_slots(slots.span()), &last]);
            run(kernels::import_slots_ir(c, &m), [&in_slots(slots.span()), &in_tiles, &last, &[]]);
            run(kernels::export_slots_ir(c, &m), [&in_slots(back.span()), &in_tiles, &last, &[]]);
            for (what, got, want) in [("store_slots", &slots, &stored), ("import_slots", &cache, &brought), ("export_slots", &back, &sent)] {
                let bytes: Vec<u8> = got.download(&stream, want.len());
                got.check(&stream, what);
                let bad = bytes.iter().zip(want).filter(|(a, b)| a != b).count();
                println!("{what} {name} d {d}: {tokens} tokens, {bad} differing bytes");
                assert_eq!(bad, 0, "{what} {name} d {d}");
            }
        }
    }
}
