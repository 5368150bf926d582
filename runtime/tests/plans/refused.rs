//! Bad tables, lengths, slots and calls: nothing leaves its memory, and everything is said.

use crate::buffers::*;
use crate::device;
use crate::problem::Problem;
use runtime::*;

#[test]
fn bad_tables_lengths_and_slots_are_skipped_and_reported() {
    let Some(device) = device() else { return };
    let worst = [-1, i32::MIN, i32::MAX];
    for (case, bad) in worst.into_iter().chain([0x7fff_0000]).enumerate() {
        let mut p = Problem::new("int4", 128, 4, 64, Elem::Bf16, &[300, 300, 300, 300], 9);
        p.table[p.table_stride + 2] = bad;
        p.table[3 * p.table_stride] = if case == 0 { p.shape.pages as i32 } else { bad };
        p.lens[2] = if bad == 0x7fff_0000 { (p.table_stride * 64) as i32 + 1 } else { bad };
        p.slots[5] = [i64::MAX, 1 << 40, 1 << 32, i64::from(i32::MAX)][case];
        p.slots[6] = (p.shape.pages * p.shape.page_tokens) as i64;
        run(&device, &p, 0, &format!("bad {bad}"));
    }
}

#[test]
fn wrong_calls_are_refused_before_anything_runs() {
    let Some(device) = device() else { return };
    let p = Problem::new("int4", 128, 4, 64, Elem::Bf16, &[100], 12);
    let stream = device.stream().unwrap();
    let (store, decode, buffers) = prepare(&device, &stream, &p, 0);
    let (good_store, good) = (buffers.store(&p), buffers.decode(&p));
    let less = |span: Span<'_>| span.bytes() - 1;
    let refused = |call: &Decode| decode.launch(&stream, call).unwrap_err().to_string();
    for (name, call) in [
        ("q", Decode { q: good.q.part(0, less(good.q)).unwrap(), ..good }),
        ("out", Decode { out: good.out.part(0, less(good.out)).unwrap(), ..good }),
        ("table", Decode { table: good.table.part(0, less(good.table)).unwrap(), ..good }),
        ("lens", Decode { lens: good.lens.part(0, less(good.lens)).unwrap(), ..good }),
        ("workspace", Decode { workspace: good.workspace.part(0, less(good.workspace)).unwrap(), ..good }),
        ("status", Decode { status: good.status.part(0, 15).unwrap(), ..good }),
        ("the cache", Decode { cache: PagedCache { pages: p.shape.pages + 1, ..good.cache }, ..good }),
        ("page_tokens", Decode { cache: PagedCache { page_tokens: 32, ..good.cache }, ..good }),
        ("scale", Decode { scale: f32::NAN, ..good }),
        ("batch", Decode { batch: 70000, ..good }),
        ("table_stride", Decode { table_stride: usize::MAX, ..good }),
    ] {
        assert!(refused(&call).starts_with(name), "{name}: {}", refused(&call));
    }
    assert!(store.launch(&stream, &Store { tokens: p.slots.len() + 1, ..good_store }).is_err());
    decode.launch(&stream, &Decode { batch: 0, ..good }).unwrap();
    store.launch(&stream, &Store { tokens: 0, ..good_store }).unwrap();
    assert_eq!(buffers.status.read::<i32>(&stream), [0; 4]);
}
