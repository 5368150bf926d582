//! A problem's buffers on a device, and the comparison of what comes back.

use crate::guarded::Guarded;
use crate::problem::Problem;
use half::bf16;
use kernels_gen::reference::{self, CacheShape};
use runtime::*;

/// The problem's buffers on a device.
pub struct Buffers {
    pub k: Guarded,
    pub v: Guarded,
    pub q: Guarded,
    pub slots: Guarded,
    pub table: Guarded,
    pub lens: Guarded,
    pub cache: Guarded,
    pub out: Guarded,
    pub lse: Guarded,
    pub workspace: Guarded,
    pub status: Guarded,
}

pub fn in_elem(device: &Device, stream: &Stream, values: &[f32], elem: Elem) -> Guarded {
    match elem {
        Elem::F32 => Guarded::new(device, stream, values),
        Elem::Bf16 => Guarded::new(device, stream, &values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()),
    }
}

impl Buffers {
    pub fn new(device: &Device, stream: &Stream, p: &Problem, workspace: u64) -> Self {
        let plain = |bytes: usize| Guarded::new(device, stream, &vec![0xc3_u8; bytes]);
        let elem = |values: &[f32]| in_elem(device, stream, values, p.elem);
        Buffers {
            k: elem(&p.k),
            v: elem(&p.v),
            q: elem(&p.q),
            slots: Guarded::new(device, stream, &p.slots),
            table: Guarded::new(device, stream, &p.table),
            lens: Guarded::new(device, stream, &p.lens),
            cache: plain(p.shape.bytes(p.codec.info())),
            out: elem(&vec![f32::NAN; p.q.len()]),
            lse: Guarded::new(device, stream, &vec![f32::NAN; p.lens.len() * p.heads]),
            workspace: plain(workspace as usize),
            status: Guarded::new(device, stream, &[0_i32; 4]),
        }
    }

    pub fn cache(&self, p: &Problem) -> PagedCache<'_> {
        let CacheShape { pages, page_tokens, kv_heads, d } = p.shape;
        PagedCache { base: self.cache.span(), pages, page_tokens, kv_heads, head_dim: d }
    }

    pub fn store(&self, p: &Problem) -> Store<'_> {
        let (head_stride, token_stride) = (p.shape.d as i64, (p.shape.d * p.shape.kv_heads) as i64);
        let rows = |base| Rows { base, token_stride, head_stride };
        let (k, v, slots) = (rows(self.k.span()), rows(self.v.span()), self.slots.span());
        Store { tokens: p.slots.len(), k, v, slots, cache: self.cache(p), status: self.status.span() }
    }

    pub fn decode(&self, p: &Problem) -> Decode<'_> {
        Decode {
            batch: p.lens.len(),
            q: self.q.span(),
            cache: self.cache(p),
            table: self.table.span(),
            table_stride: p.table_stride,
            lens: self.lens.span(),
            out: self.out.span(),
            lse: Some(self.lse.span()),
            scale: p.scale(),
            workspace: self.workspace.span(),
            status: self.status.span(),
        }
    }

    /// All but the results is as it was; the results are the reference's.
    pub fn check(&self, stream: &Stream, p: &Problem, what: &str) {
        let (cache, want, sticky) = p.reference();
        let found: Vec<u8> = self.cache.read(stream);
        if let Some(at) = (0..cache.len()).find(|&i| cache[i] != found[i]) {
            let (block, d) = (p.shape.block_bytes(p.codec.info()), p.shape.d);
            panic!("{what}: cache differs first at byte {at} (block {}, byte {} of it, d {d}): {:#x} and not {:#x}", at / block, at % block, found[at], cache[at]);
        }
        let out: Vec<f32> = match p.elem {
            Elem::F32 => self.out.read(stream),
            Elem::Bf16 => self.out.read::<bf16>(stream).into_iter().map(bf16::to_f32).collect(),
        };
        let rounded = |x: f32| if p.elem == Elem::Bf16 { bf16::from_f32(x).to_f32() } else { x };
        compare(what, "out", &out, &want.out.iter().map(|x| rounded(*x)).collect::<Vec<_>>(), p);
        compare(what, "lse", &self.lse.read::<f32>(stream), &want.lse, p);
        let words = self.status.read::<i32>(stream);
        let raised = |word: usize, kind: reference::Status| (words[word] != 0) == (sticky & kind.0 != 0);
        assert!(raised(status::BAD_SLOT, reference::Status::BAD_SLOT), "{what}: {words:?}");
        assert!(raised(status::BAD_PAGE, reference::Status::BAD_PAGE), "{what}: {words:?}");
        assert!(raised(status::BAD_LENGTH, reference::Status::BAD_LENGTH), "{what}: {words:?}");
        assert_eq!(self.lens.read::<i32>(stream), p.lens, "{what}: lens changed");
        assert_eq!(self.table.read::<i32>(stream), p.table, "{what}: table changed");
        self.workspace.read::<u8>(stream);
    }
}

pub fn compare(what: &str, name: &str, found: &[f32], want: &[f32], p: &Problem) {
    assert!(found.iter().any(|x| *x != 0.0) || name == "lse" || p.lens.iter().all(|l| *l <= 0), "{what}: MISTRUSTED, {name} is all zeros");
    let close = |a: f32, b: f32| (a - b).abs() <= 2e-2 * b.abs().max(0.1);
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (!p.codec.info().exact() && close(a, b));
    if let Some(i) = (0..want.len()).find(|&i| !same(found[i], want[i])) {
        let count = (0..want.len()).filter(|&i| !same(found[i], want[i])).count();
        panic!("{what}: {count} of {} of {name} differ, first at {i}: {} ({:#x}) and not {} ({:#x})", want.len(), found[i], found[i].to_bits(), want[i], want[i].to_bits());
    }
}

/// Plans for `p`, with its buffers.
pub fn prepare(device: &Device, stream: &Stream, p: &Problem, splits: usize) -> (StorePlan, DecodePlan, Buffers) {
    let CacheShape { page_tokens, kv_heads, d: head_dim, .. } = p.shape;
    let (codec, elem) = (p.codec, p.elem);
    let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim, page_tokens, elem }).unwrap();
    let spec = DecodeSpec { codec, head_dim, group: p.heads / kv_heads, page_tokens, elem, splits };
    let decode = DecodePlan::prepare(device, &spec).unwrap();
    let need = decode.workspace_bytes(p.lens.len(), p.heads, p.table_stride).unwrap();
    let buffers = Buffers::new(device, stream, p, need);
    (store, decode, buffers)
}

pub fn run(device: &Device, p: &Problem, splits: usize, what: &str) {
    let stream = device.stream().unwrap();
    let (store, decode, buffers) = prepare(device, &stream, p, splits);
    store.launch(&stream, &buffers.store(p)).unwrap();
    decode.launch(&stream, &buffers.decode(p)).unwrap();
    buffers.check(&stream, p, what);
}
