//! Store and decode on a GPU against the scalar reference: the cache byte for byte, the output bit for
//! bit where the codec promises it. Every buffer lies between guard zones that must not change.
//! Skipped, aloud, without a GPU or NVRTC. One file, though long: all tests run plans on the same guarded problem.

use half::bf16;
use kernels_gen::reference::{self, CacheShape, Decoded};
use runtime::*;

const GUARD: usize = 64 << 10;
const FILL: u8 = 0xa5;

fn device() -> Option<Device> {
    match (Device::open(0), nvrtc::version()) {
        (Ok(device), Ok(_)) => Some(device),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

/// Device memory with a guard zone before and after.
struct Guarded {
    memory: Memory,
    bytes: usize,
}

impl Guarded {
    fn new<T: cuda::Plain>(device: &Device, stream: &Stream, values: &[T]) -> Self {
        let bytes = size_of_val(values);
        let memory = Memory::zeroed(device, bytes.next_multiple_of(256) + 2 * GUARD).unwrap();
        memory.fill(stream, FILL).unwrap();
        memory.upload(stream, GUARD, values).unwrap();
        Guarded { memory, bytes }
    }

    fn span(&self) -> Span<'_> {
        self.memory.span().part(GUARD as u64, self.bytes as u64).unwrap()
    }

    /// The contents, after checking the zones.
    fn read<T: cuda::Plain>(&self, stream: &Stream) -> Vec<T> {
        let all: Vec<u8> = self.memory.download(stream, 0, self.memory.bytes()).unwrap();
        let (before, after) = (&all[..GUARD], &all[GUARD + self.bytes..]);
        assert!(before.iter().chain(after).all(|b| *b == FILL), "a guard zone changed");
        self.memory.download(stream, GUARD, self.bytes / size_of::<T>()).unwrap()
    }
}

fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) as u32
}

/// bf16 values of about unit size, with an outlier here and there.
fn rows(count: usize, state: &mut u64) -> Vec<f32> {
    let one = |state: &mut u64| {
        let x = random(state) as f32 / (1_u32 << 30) as f32 - 1.0;
        bf16::from_f32(if random(state).is_multiple_of(97) { 20.0 * x } else { x }).to_f32()
    };
    (0..count).map(|_| one(state)).collect()
}

/// One problem: what goes in, on the host.
struct Problem {
    codec: Codec,
    shape: CacheShape,
    elem: Elem,
    heads: usize,
    table_stride: usize,
    k: Vec<f32>,
    v: Vec<f32>,
    q: Vec<f32>,
    slots: Vec<i64>,
    table: Vec<i32>,
    lens: Vec<i32>,
}

impl Problem {
    /// Sequences of these lengths on shuffled pages; every 13th token is padding in between.
    fn new(name: &str, d: usize, group: usize, page_tokens: usize, elem: Elem, lens: &[i32], seed: u64) -> Self {
        let (mut state, kv_heads, batch) = (seed, 2, lens.len());
        let table_stride = lens.iter().map(|l| (*l as usize).div_ceil(page_tokens)).max().unwrap().max(1) + 1;
        let pages = batch * table_stride + 3;
        let mut free: Vec<i32> = (0..pages as i32).collect();
        (1..pages).rev().for_each(|i| free.swap(i, random(&mut state) as usize % (i + 1)));
        let table = free[..batch * table_stride].to_vec();
        let mut slots = Vec::new();
        for (b, len) in lens.iter().enumerate() {
            for i in 0..*len as usize {
                let page = table[b * table_stride + i / page_tokens] as usize;
                slots.push((page * page_tokens + i % page_tokens) as i64);
                if slots.len() % 13 == 0 {
                    slots.push(-1 - (random(&mut state) as i64));
                }
            }
        }
        let shape = CacheShape { pages, page_tokens, kv_heads, d };
        let (tokens, heads) = (slots.len(), kv_heads * group);
        let [k, v] = [0, 1].map(|_| rows(tokens * kv_heads * d, &mut state));
        let q = rows(batch * heads * d, &mut state);
        let codec = Codec::open(name).unwrap();
        Problem { codec, shape, elem, heads, table_stride, k, v, q, slots, table, lens: lens.to_vec() }
    }

    fn scale(&self) -> f32 {
        (self.shape.d as f32).sqrt().recip()
    }

    /// The cache (from a pattern, so that a stray write shows) and the output by the reference.
    fn reference(&self) -> (Vec<u8>, Decoded, u32) {
        let mut cache = vec![0xc3; self.shape.bytes(self.codec.info())];
        let stored = reference::store(self.codec.info(), &self.shape, &mut cache, &self.k, &self.v, &self.slots);
        let (heads, stride) = (self.heads, self.table_stride);
        let info = self.codec.info();
        let out =
            reference::decode(info, &self.shape, &cache, &self.q, heads, &self.table, stride, &self.lens, self.scale());
        let status = stored.0 | out.status.0;
        (cache, out, status)
    }
}

/// The problem's buffers on a device.
struct Buffers {
    k: Guarded,
    v: Guarded,
    q: Guarded,
    slots: Guarded,
    table: Guarded,
    lens: Guarded,
    cache: Guarded,
    out: Guarded,
    lse: Guarded,
    workspace: Guarded,
    status: Guarded,
}

fn in_elem(device: &Device, stream: &Stream, values: &[f32], elem: Elem) -> Guarded {
    match elem {
        Elem::F32 => Guarded::new(device, stream, values),
        Elem::Bf16 => Guarded::new(device, stream, &values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()),
    }
}

impl Buffers {
    fn new(device: &Device, stream: &Stream, p: &Problem, workspace: u64) -> Self {
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

    fn cache(&self, p: &Problem) -> PagedCache<'_> {
        let CacheShape { pages, page_tokens, kv_heads, d } = p.shape;
        PagedCache { base: self.cache.span(), pages, page_tokens, kv_heads, head_dim: d }
    }

    fn store(&self, p: &Problem) -> Store<'_> {
        let (head_stride, token_stride) = (p.shape.d as i64, (p.shape.d * p.shape.kv_heads) as i64);
        let rows = |base| Rows { base, token_stride, head_stride };
        let (k, v, slots) = (rows(self.k.span()), rows(self.v.span()), self.slots.span());
        Store { tokens: p.slots.len(), k, v, slots, cache: self.cache(p), status: self.status.span() }
    }

    fn decode(&self, p: &Problem) -> Decode<'_> {
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
    fn check(&self, stream: &Stream, p: &Problem, what: &str) {
        let (cache, want, sticky) = p.reference();
        let found: Vec<u8> = self.cache.read(stream);
        if let Some(at) = (0..cache.len()).find(|&i| cache[i] != found[i]) {
            let (block, d) = (p.shape.block_bytes(p.codec.info()), p.shape.d);
            panic!(
                "{what}: cache differs first at byte {at} (block {}, byte {} of it, d {d}): {:#x} and not {:#x}",
                at / block,
                at % block,
                found[at],
                cache[at]
            );
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

fn compare(what: &str, name: &str, found: &[f32], want: &[f32], p: &Problem) {
    assert!(
        found.iter().any(|x| *x != 0.0) || name == "lse" || p.lens.iter().all(|l| *l <= 0),
        "{what}: MISTRUSTED, {name} is all zeros"
    );
    let close = |a: f32, b: f32| (a - b).abs() <= 2e-2 * b.abs().max(0.1);
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (!p.codec.info().exact() && close(a, b));
    if let Some(i) = (0..want.len()).find(|&i| !same(found[i], want[i])) {
        let count = (0..want.len()).filter(|&i| !same(found[i], want[i])).count();
        panic!(
            "{what}: {count} of {} of {name} differ, first at {i}: {} ({:#x}) and not {} ({:#x})",
            want.len(),
            found[i],
            found[i].to_bits(),
            want[i],
            want[i].to_bits()
        );
    }
}

/// Plans for `p`, with its buffers.
fn prepare(device: &Device, stream: &Stream, p: &Problem, splits: usize) -> (StorePlan, DecodePlan, Buffers) {
    let CacheShape { page_tokens, kv_heads, d: head_dim, .. } = p.shape;
    let (codec, elem) = (p.codec, p.elem);
    let store = StorePlan::prepare(device, &StoreSpec { codec, head_dim, page_tokens, elem }).unwrap();
    let spec = DecodeSpec { codec, head_dim, group: p.heads / kv_heads, page_tokens, elem, splits };
    let decode = DecodePlan::prepare(device, &spec).unwrap();
    let need = decode.workspace_bytes(p.lens.len(), p.heads, p.table_stride).unwrap();
    let buffers = Buffers::new(device, stream, p, need);
    (store, decode, buffers)
}

fn run(device: &Device, p: &Problem, splits: usize, what: &str) {
    let stream = device.stream().unwrap();
    let (store, decode, buffers) = prepare(device, &stream, p, splits);
    store.launch(&stream, &buffers.store(p)).unwrap();
    decode.launch(&stream, &buffers.decode(p)).unwrap();
    buffers.check(&stream, p, what);
}

const LENS: [i32; 7] = [0, 1, 31, 33, 97, 1025, 2500];

#[test]
fn every_codec_equals_the_reference() {
    let Some(device) = device() else { return };
    for codec in kernels_gen::registry::codecs() {
        for (d, group, page, elem) in
            [(128, 4, 64, Elem::Bf16), (64, 1, 32, Elem::F32), (256, 8, 128, Elem::Bf16), (128, 7, 32, Elem::F32)]
        {
            let p = Problem::new(codec.name, d, group, page, elem, &LENS, 7);
            run(&device, &p, 0, &format!("{} d {d} group {group} page {page} {elem:?}", codec.name));
        }
    }
}

#[test]
fn the_number_of_splits_changes_no_bit() {
    let Some(device) = device() else { return };
    let p = Problem::new("int4", 128, 4, 64, Elem::Bf16, &[5000, 1, 3000], 8);
    for splits in [1, 2, 3, 5, 64] {
        run(&device, &p, splits, &format!("{splits} splits"));
    }
}

/// Cuts that a tuning may choose, each for every size: the plan that takes it still equals the reference.
#[test]
fn a_tuning_changes_no_bit() {
    use runtime::tuning::{self, Choice, Entry, Point, Tuning};
    let Some(device) = device() else { return };
    let path = std::env::temp_dir().join(format!("kvf-plans-{}.tuning", std::process::id()));
    for (name, lens) in [("int4", [5000, 1, 3000]), ("e8q38", [700, 2049, 0])] {
        let p = Problem::new(name, 128, 4, 64, Elem::Bf16, &lens, 14);
        let spec = DecodeSpec { codec: p.codec, head_dim: 128, group: 4, page_tokens: 64, elem: Elem::Bf16, splits: 0 };
        let (kernel, hash) = tuning::kernel_of(&device, &spec).unwrap();
        let at = Point { rows: lens.len() * p.shape.kv_heads, tokens: p.table_stride * 64 };
        for (warps, stages, min_blocks, tokens) in [(4, 2, 2, 512), (8, 2, 1, 1024), (2, 3, 2, 2048), (1, 2, 4, 256), (4, 2, 16, 512)] {
            let entry = Entry { kernel: kernel.clone(), hash: hash.clone(), at, choice: Choice { warps, stages, min_blocks, tokens }, us: 1.0, own_us: 2.0 };
            let text = Tuning { device: device.name().to_string(), entries: vec![entry] }.to_string();
            std::fs::write(&path, text).unwrap();
            tuning::load(&path).unwrap();
            let plan = DecodePlan::prepare(&device, &spec).unwrap();
            // Sixteen blocks do not fit: the plan says so and goes by its own rules.
            let fits = min_blocks < 16;
            assert!(plan.tuning().starts_with("sizes tuned: 1, from the loaded tuning") && plan.tuning().contains("left out") != fits, "{}", plan.tuning());
            run(&device, &p, 0, &format!("{name} with {warps} warps, {stages} stages, {min_blocks} blocks, {tokens} tokens"));
        }
    }
    tuning::forget();
    std::fs::remove_file(&path).unwrap();
}

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

#[test]
fn transposed_views_and_no_lse_are_served() {
    let Some(device) = device() else { return };
    let p = Problem::new("e8w4", 128, 4, 64, Elem::Bf16, &[130], 11);
    let stream = device.stream().unwrap();
    let (store, decode, buffers) = prepare(&device, &stream, &p, 0);
    let (tokens, heads, d) = (p.slots.len(), p.shape.kv_heads, p.shape.d);
    let transposed = |x: &[f32]| -> Vec<f32> {
        let row = |head: usize, token: usize| x[(token * heads + head) * d..][..d].to_vec();
        (0..heads).flat_map(|h| (0..tokens).flat_map(move |t| row(h, t))).collect()
    };
    let (k, v) =
        (in_elem(&device, &stream, &transposed(&p.k), p.elem), in_elem(&device, &stream, &transposed(&p.v), p.elem));
    let rows = |base| Rows { base, token_stride: d as i64, head_stride: (tokens * d) as i64 };
    store.launch(&stream, &Store { k: rows(k.span()), v: rows(v.span()), ..buffers.store(&p) }).unwrap();
    decode.launch(&stream, &Decode { lse: None, ..buffers.decode(&p) }).unwrap();
    assert!(buffers.lse.read::<f32>(&stream).iter().all(|x| x.is_nan()), "lse was not asked for");
    decode.launch(&stream, &buffers.decode(&p)).unwrap();
    buffers.check(&stream, &p, "transposed");
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
        let cache = SlotCache {
            base: near.span(),
            pages: 40,
            page_tokens: 16,
            kv_heads: p.shape.kv_heads,
            page_stride: 16 * token_stride,
            token_stride,
            head_stride: slot,
        };
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
