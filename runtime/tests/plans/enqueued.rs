//! Launches that are recorded, replayed or follow close on one another read what they should.

use crate::buffers::*;
use crate::device;
use crate::guarded::GUARD;
use crate::problem::Problem;
use runtime::*;

#[test]
fn a_captured_graph_serves_new_lengths_and_tables() {
    let Some(device) = device() else { return };
    let mut p = Problem::new("int4", 128, 4, 64, Elem::Bf16, &[700, 40, 1500], 10);
    let stream = device.stream().unwrap();
    let (store, decode, buffers) = prepare(&device, &stream, &p, 0);
    let graph = Graph::record(&stream, |s| {
        store.launch(s, &buffers.store(&p))?;
        decode.launch(s, &buffers.decode(&p))
    })
    .unwrap();
    for lens in [[700, 40, 1500], [1, 0, 1400], [699, 39, 2]] {
        p.lens = lens.to_vec();
        buffers.lens.memory.upload(&stream, GUARD, &p.lens).unwrap();
        graph.launch().unwrap();
        buffers.check(&stream, &p, &format!("replay with {lens:?}"));
    }
    let recorded = Graph::record(&stream, |s| store.launch(s, &buffers.store(&p)));
    drop((graph, recorded.unwrap()));
}

/// Hundreds of short sequences, which lie side by side in a block: from replay to replay they become long, empty, no lengths at all, or lose pages.
#[test]
fn short_sequences_come_and_go_in_a_captured_graph() {
    let Some(device) = device() else { return };
    let lens: Vec<i32> = (0..300).map(|i| if i % 100 == 7 { 2300 + i } else { i * 37 % 600 }).collect();
    for (name, splits) in [("int4", 0), ("e8q38", 5)] {
        let mut p = Problem::new(name, 64, 4, 64, Elem::Bf16, &lens, 19);
        let stream = device.stream().unwrap();
        let (store, decode, buffers) = prepare(&device, &stream, &p, splits);
        store.launch(&stream, &buffers.store(&p)).unwrap();
        let graph = Graph::record(&stream, |s| decode.launch(s, &buffers.decode(&p))).unwrap();
        let (good, stride) = (p.table.clone(), p.table_stride);
        for round in 0..5 {
            p.lens = lens
                .iter()
                .enumerate()
                .map(|(i, len)| match (round, i % 11) {
                    (0, _) => *len,
                    (1, _) => len / 9,
                    (2, 0) => 2500,
                    (2, 1..4) => 0,
                    (3, 3) => -7,
                    (3, 5) => (stride * 64) as i32 + 1,
                    _ => len / 2 + 1,
                })
                .collect();
            p.table.clone_from(&good);
            if round == 4 {
                (0..300).step_by(17).for_each(|i| p.table[i * stride] = if i % 2 == 0 { -1 } else { p.shape.pages as i32 });
            }
            buffers.lens.memory.upload(&stream, GUARD, &p.lens).unwrap();
            buffers.table.memory.upload(&stream, GUARD, &p.table).unwrap();
            buffers.status.memory.upload(&stream, GUARD, &[0_i32; 4]).unwrap();
            graph.launch().unwrap();
            buffers.check(&stream, &p, &format!("{name}, replay {round}"));
        }
    }
}

/// One recording, replayed by other threads on streams of their own.
#[test]
fn a_recorded_step_is_replayed_on_any_stream() {
    let Some(device) = device() else { return };
    let p = Problem::new("e8w4", 128, 4, 64, Elem::Bf16, &[700, 40, 1500], 16);
    let stream = device.stream().unwrap();
    let (store, decode, buffers) = prepare(&device, &stream, &p, 0);
    let replay = Replay::record(&stream, |s| {
        store.launch(s, &buffers.store(&p))?;
        decode.launch(s, &buffers.decode(&p))
    })
    .unwrap();
    stream.synchronise().unwrap();
    std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                let own = device.stream().unwrap();
                (0..5).for_each(|_| replay.launch(&own).unwrap());
                own.synchronise().unwrap();
            });
        }
    });
    buffers.check(&stream, &p, "replayed by threads");
}

/// Kernels are launched before their predecessors have ended. Two problems take turns, one workspace for both, nothing waits on the
/// host: each must find what the launches before it wrote, and leave what they still read.
#[test]
fn launches_that_begin_early_wait_for_one_another() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for lens in [[5000, 1, 3000], [300, 0, 31]] {
        let other = lens.map(|len| len / 2 + 7);
        let (p, o) = (Problem::new("int4", 128, 4, 64, Elem::Bf16, &lens, 17), Problem::new("int4", 128, 4, 64, Elem::Bf16, &other, 18));
        let (store, decode, mine) = prepare(&device, &stream, &p, 0);
        let (_, _, its) = prepare(&device, &stream, &o, 0);
        for _ in 0..20 {
            for (x, b) in [(&p, &mine), (&o, &its)] {
                b.cache.memory.fill(&stream, 0xc3).unwrap();
                store.launch(&stream, &b.store(x)).unwrap();
                decode.launch(&stream, &Decode { workspace: mine.workspace.span(), ..b.decode(x) }).unwrap();
            }
        }
        for (x, b) in [(&p, &mine), (&o, &its)] {
            b.cache.memory.fill(&stream, crate::guarded::FILL).unwrap();
            let bytes = x.shape.bytes(x.codec.info());
            b.cache.memory.upload(&stream, GUARD, &vec![0xc3_u8; bytes]).unwrap();
            store.launch(&stream, &b.store(x)).unwrap();
            b.check(&stream, x, "taking turns");
        }
    }
}
