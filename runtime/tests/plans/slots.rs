//! Slots beside tiles.

use crate::buffers::*;
use crate::device;
use crate::guarded::Guarded;
use crate::problem::Problem;
use kernels_gen::reference;
use runtime::*;

/// Rows into slots, slots into tiles, attention over the tiles, tiles back into slots.
#[test]
fn slots_go_to_tiles_and_back() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (name, d) in [("turboquant_4bit_nc", 128), ("turboquant_k8v4", 64)] {
        let p = Problem::new(name, d, 4, 32, Elem::Bf16, &[70, 33], 9);
        let info = p.codec.info();
        let shape = reference::SlotShape { pages: 40, page_tokens: 16, kv_heads: p.shape.kv_heads, d };
        let at: Vec<i64> = p.slots.iter().enumerate().map(|(i, place)| if *place < 0 { -1 } else { 5 * i as i64 % 640 }).collect();
        let mut stored = vec![0xc3; shape.bytes(info)];
        assert!(reference::store_slots(info, &shape, &mut stored, &p.k, &p.v, &at).is_ok());
        let mut brought = vec![0xc3; p.shape.bytes(info)];
        reference::import_slots(info, &shape, &stored, &at, &p.shape, &mut brought, &p.slots);
        let mut sent = vec![0xc3; stored.len()];
        reference::export_slots(info, &p.shape, &brought, &p.slots, &shape, &mut sent, &at);

        let spec = SlotsSpec { codec: p.codec, head_dim: d, slot_page_tokens: 16, page_tokens: 32, elem: Elem::Bf16 };
        let plan = SlotsPlan::prepare(&device, &spec).unwrap();
        let b = Buffers::new(&device, &stream, &p, 16);
        let near = Guarded::new(&device, &stream, &vec![0xc3_u8; stored.len()]);
        let gat = Guarded::new(&device, &stream, &at);
        let slot = (stored.len() / 640 / p.shape.kv_heads) as i64;
        let token_stride = slot * p.shape.kv_heads as i64;
        let cache = SlotCache { base: near.span(), pages: 40, page_tokens: 16, kv_heads: p.shape.kv_heads, page_stride: 16 * token_stride, token_stride, head_stride: slot };
        let Store { tokens, k, v, cache: tiles, status, .. } = b.store(&p);
        plan.store(&stream, &StoreSlots { tokens, k, v, slots: gat.span(), cache, status }).unwrap();
        assert_eq!(near.read::<u8>(&stream), stored, "{name}: slots");
        let call = MoveSlots { tokens, at: gat.span(), places: b.slots.span(), slots: cache, tiles, status };
        plan.import(&stream, &call).unwrap();
        assert_eq!(b.cache.read::<u8>(&stream), brought, "{name}: tiles");
        let back = Guarded::new(&device, &stream, &vec![0xc3_u8; stored.len()]);
        plan.export(&stream, &MoveSlots { slots: SlotCache { base: back.span(), ..cache }, ..call }).unwrap();
        assert_eq!(back.read::<u8>(&stream), sent, "{name}: slots again");
        assert_eq!(b.status.read::<i32>(&stream), [0; 4], "{name}: status");
    }
}
