//! Norm, RoPE and store in one launch: a step of an engine, and every call that is refused.

use crate::buffers::*;
use crate::device;
use crate::guarded::Guarded;
use crate::problem::Problem;
use kernels_gen::reference::{self, RopeTable};
use runtime::*;

const TURNS: usize = 400;

/// A table of no angle in particular.
fn table(dims: usize) -> Vec<f32> {
    (0..TURNS * dims).map(|i| ((i * 37 % 1009) as f32 / 504.5 - 1.0) * 0.9).collect()
}

struct Given {
    positions: Guarded,
    table: Guarded,
    weight: Guarded,
    q: Guarded,
    q_out: Guarded,
}

fn given(device: &Device, stream: &Stream, p: &Problem, positions: &[i32], rope: &Rope, q: &[f32]) -> Given {
    let plain = |bytes: usize| Guarded::new(device, stream, &vec![0xc3_u8; bytes]);
    Given {
        positions: Guarded::new(device, stream, positions),
        table: Guarded::new(device, stream, &table(rope.dims)),
        weight: Guarded::new(device, stream, &vec![0.9_f32; p.shape.d]),
        q: in_elem(device, stream, q, p.elem),
        q_out: plain(4 * q.len()),
    }
}

impl Given {
    fn roped(&self, p: &Problem) -> Roped<'_> {
        let rows = Rows { base: self.q.span(), token_stride: (p.heads * p.shape.d) as i64, head_stride: p.shape.d as i64 };
        let weight = Some(self.weight.span());
        Roped { positions: self.positions.span(), table: self.table.span(), turns: TURNS, epsilon: 1e-5, k_weight: weight, q_weight: weight, q: Some(rows), q_out: Some(self.q_out.span()), k_out: None }
    }
}

const ROPE: Rope = Rope { dims: 64, pairs: true, norm: true, weights: true, table_elem: 4, group: 2, keys: false };

fn prepared(device: &Device, p: &Problem) -> RopePlan {
    let store = StoreSpec { codec: p.codec, head_dim: p.shape.d, page_tokens: p.shape.page_tokens, elem: p.elem };
    RopePlan::prepare(device, &RopeSpec { store, rope: ROPE }).unwrap()
}

/// Positions beyond the table among them: those tokens are not stored, and their queries come back as zeros.
#[test]
fn keys_are_turned_on_their_way() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let p = Problem::new("e8w4", 128, 2, 64, Elem::F32, &[300, 45], 21);
    let mut state = 3;
    let q = crate::problem::rows(p.slots.len() * p.heads * p.shape.d, &mut state);
    let positions: Vec<i32> = (0..p.slots.len() as i32).map(|i| if i % 50 == 7 { TURNS as i32 + i } else { i % TURNS as i32 }).collect();
    let (b, own) = (Buffers::new(&device, &stream, &p, 16), given(&device, &stream, &p, &positions, &ROPE, &q));
    prepared(&device, &p).launch(&stream, &b.store(&p), &own.roped(&p), None).unwrap();
    let (table, weight) = (table(ROPE.dims), vec![0.9; p.shape.d]);
    let of = RopeTable { rope: ROPE, table: &table, epsilon: 1e-5 };
    let places: Vec<usize> = positions.iter().map(|p| if of.knows(*p) { *p as usize } else { 0 }).collect();
    let slots: Vec<i64> = p.slots.iter().zip(&positions).map(|(slot, at)| if of.knows(*at) { *slot } else { -1 }).collect();
    let mut want = vec![0xc3; p.shape.bytes(p.codec.info())];
    reference::store(p.codec.info(), &p.shape, &mut want, &of.rows(&p.k, p.shape.d, &weight, &places), &p.v, &slots);
    assert!(b.cache.read::<u8>(&stream) == want, "the cache differs");
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    assert!(bits(&own.q_out.read::<f32>(&stream)) == bits(&of.given(&q, p.shape.d, &weight, &positions)), "queries differ");
    let words = b.status.read::<i32>(&stream);
    assert_eq!(words[..3], [0, 0, 1], "{words:?}");
    assert!(!of.knows(positions[words[3] as usize]), "{words:?}");
}

#[test]
fn wrong_calls_are_refused() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let p = Problem::new("int4", 128, 2, 64, Elem::F32, &[30], 22);
    let q = vec![0.5; p.slots.len() * p.heads * p.shape.d];
    let positions: Vec<i32> = (0..p.slots.len() as i32).collect();
    let (b, own) = (Buffers::new(&device, &stream, &p, 16), given(&device, &stream, &p, &positions, &ROPE, &q));
    let (plan, store, good) = (prepared(&device, &p), b.store(&p), own.roped(&p));
    let less = |span: Span<'_>| span.bytes() - 1;
    let rows = good.q.unwrap();
    for (says, roped) in [
        ("positions", Roped { positions: good.positions.part(0, less(good.positions)).unwrap(), ..good }),
        ("cos_sin", Roped { table: good.table.part(0, less(good.table)).unwrap(), ..good }),
        ("cos_sin", Roped { table: good.table.part(4, 4000).unwrap(), ..good }),
        ("the positions of cos_sin", Roped { turns: 0, ..good }),
        ("cos_sin", Roped { turns: TURNS + 1, ..good }),
        ("epsilon", Roped { epsilon: f32::NAN, ..good }),
        ("k_norm is null", Roped { k_weight: None, ..good }),
        ("q_norm is null", Roped { q_weight: None, ..good }),
        ("q_norm", Roped { q_weight: Some(own.weight.span().part(0, 508).unwrap()), ..good }),
        ("q is null", Roped { q: None, ..good }),
        ("q has", Roped { q: Some(Rows { base: rows.base.part(0, less(rows.base)).unwrap(), ..rows }), ..good }),
        ("a stride of q", Roped { q: Some(Rows { token_stride: 4, ..rows }), ..good }),
        ("q_out is null", Roped { q_out: None, ..good }),
        ("q_out", Roped { q_out: Some(own.q_out.span().part(0, 16).unwrap()), ..good }),
        ("q_out lies over q", Roped { q_out: Some(own.q.span()), ..good }),
    ] {
        let text = plan.launch(&stream, &store, &roped, None).unwrap_err().to_string();
        assert!(text.starts_with(says), "{says}: {text}");
    }
    for rope in [Rope { dims: 8, ..ROPE }, Rope { dims: 144, ..ROPE }, Rope { norm: false, ..ROPE }, Rope { table_elem: 3, ..ROPE }] {
        let spec = RopeSpec { store: StoreSpec { codec: p.codec, head_dim: 128, page_tokens: 64, elem: p.elem }, rope };
        assert!(RopePlan::prepare(&device, &spec).is_err(), "{rope:?}");
    }
    plan.launch(&stream, &Store { tokens: 0, ..store }, &good, None).unwrap();
    assert_eq!(b.status.read::<i32>(&stream), [0; 4]);
    assert!(b.cache.read::<u8>(&stream).iter().all(|b| *b == 0xc3));
}
