//! vLLM's slots: what stores into them and what carries rows between slots and tiles gives the reference's bytes at every stage.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::ir::interp::Arg;
use kernel_dsl::prelude::*;
use kernels_gen::kernels::{self, Elem as Memory};
use kernels_gen::reference::{self, CacheShape, Status};
use kernels_gen::registry::codec;
use run::{assert_bytes, buffer, global, interpreted, scalar, shuffled, stages};
use support::Random;

/// Rows into slots, slots into tiles and back, at every stage.
#[test]
fn slots() {
    for (name, d) in [("turboquant_4bit_nc", 128), ("turboquant_3bit_nc", 64), ("turboquant_k8v4", 64), ("turboquant_k3v4_nc", 256), ("affine4", 64)] {
        let c = codec(name).unwrap();
        let (tokens, kv_heads) = (40, 2);
        let shape = reference::SlotShape { pages: 4, page_tokens: 16, kv_heads, d };
        let tiles = CacheShape { pages: 2, page_tokens: 32, kv_heads, d };
        let mut random = Random(d as u64);
        // One bad slot a launch: of several, any one is reported.
        let places = |random: &mut Random, padding: usize| {
            let mut at: Vec<i64> = shuffled(64, random).into_iter().take(tokens).map(|s| s as i64).collect();
            (at[padding], at[17]) = (-1, 64);
            at
        };
        let (slots, other) = (places(&mut random, 2), places(&mut random, 35));
        let (k, v): (Global<f32>, Global<f32>) = (global(&random.gaussians(tokens * kv_heads * d)), global(&random.gaussians(tokens * kv_heads * d)));
        let mut stored = vec![0xee; shape.bytes(c)];
        assert_eq!(reference::store_slots(c, &shape, &mut stored, &k.to_vec(), &v.to_vec(), &slots), Status::BAD_SLOT);
        let mut brought = vec![0xdd; tiles.bytes(c)];
        reference::import_slots(c, &shape, &stored, &slots, &tiles, &mut brought, &other);
        let mut sent = vec![0xcc; shape.bytes(c)];
        reference::export_slots(c, &tiles, &brought, &other, &shape, &mut sent, &slots);

        let m = kernels::slot_meta(c, d, 16, 32, Memory::F32).unwrap();
        let size = kernels::slots::slot_bytes(c, d);
        let strides = [16 * kv_heads * size, kv_heads * size, size].map(|s| scalar(s as i64));
        let (slots, other, status) = (buffer(&Global::new(&slots)), buffer(&Global::new(&other)), buffer(&Global::<i32>::zeroed(4)));
        let poison = |n: usize, fill: u8| Arg::Buffer(vec![fill; n]);
        let grid = kernels::store_grid(tokens, kv_heads);
        let in_slots = |bytes: Arg| [vec![bytes, slots.clone(), scalar(64_i64)], strides.to_vec()].concat();
        let in_tiles = |bytes: Arg| vec![bytes, other.clone(), scalar(64_i64), scalar(kv_heads as i32)];
        let last = [status, scalar(tokens as i32)];
        for stage in stages(kernels::store_slots_ir(c, &m, Memory::F32).unwrap()) {
            let rows = |x| vec![buffer(x), scalar((kv_heads * d) as i64), scalar(d as i64)];
            let got = interpreted(name, &stage, grid, [&rows(&k)[..], &rows(&v), &in_slots(poison(stored.len(), 0xee)), &last].concat());
            assert_bytes(&format!("{name} store_slots, {} IR", stage.0), &got[2], &stored);
            assert_bytes(&format!("{name} store_slots, {} IR, status", stage.0), &got[4], &Global::new(&[1, 0, 0, 17_i32]).bytes);
        }
        for stage in stages(kernels::import_slots_ir(c, &m).unwrap()) {
            let got = interpreted(name, &stage, grid, [&in_slots(Arg::Buffer(stored.clone()))[..], &in_tiles(poison(brought.len(), 0xdd)), &last].concat());
            assert_bytes(&format!("{name} import_slots, {} IR", stage.0), &got[2], &brought);
        }
        for stage in stages(kernels::export_slots_ir(c, &m).unwrap()) {
            let got = interpreted(name, &stage, grid, [&in_slots(poison(sent.len(), 0xcc))[..], &in_tiles(Arg::Buffer(brought.clone())), &last].concat());
            assert_bytes(&format!("{name} export_slots, {} IR", stage.0), &got[0], &sent);
        }
    }
}
