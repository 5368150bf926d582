//! Calibrated codecs through the interpreter, at every stage: the kernels between and around the maps give the
//! reference's cache, outputs and log-sum-exps, bit for bit, over several segments and ragged lengths.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::ir::interp::Arg;
use kernel_dsl::prelude::*;
use kernels_gen::kernels::chunk::{calibrated_chunk_meta, chunk_ir};
use kernels_gen::kernels::decode_attention::{DecodeMeta, SHARE};
use kernels_gen::kernels::join_splits::NARROW;
use kernels_gen::kernels::prefill_attention::{calibrated_prefill_meta, join_queries_ir, join_queries_meta, prefill_ir};
use kernels_gen::kernels::{self, SEGMENT};
use kernels_gen::preset::{LayerMaps, Preset, Turns, preset};
use kernels_gen::reference::{CacheShape, Calibrated, Decoded, Status};
use kernels_gen::registry::CodecInfo;
use run::{assert_bytes, buffer, global, interpreted, memory, scalar, shuffled, stages};
use support::{Random, calibration};

const KV_HEADS: usize = 2;
const PAGE: usize = 32;
/// Segments that turns are made for.
const SEGMENTS: usize = 4;

/// A preset's maps of layer 1 of a made-up model.
struct Layer {
    c: &'static CodecInfo,
    maps: LayerMaps,
    turns: Turns,
}

impl Layer {
    fn new(p: &Preset, d: usize) -> Layer {
        let fitted = calibration(d);
        Layer { c: p.codec().unwrap(), maps: fitted.maps(p, 1).unwrap(), turns: fitted.turns(SEGMENTS * SEGMENT) }
    }

    fn reference(&self) -> Calibrated<'_> {
        Calibrated { codec: self.c, maps: &self.maps, turns: &self.turns }
    }

    fn maps(&self) -> [Arg; 2] {
        [buffer(&Global::new(&self.maps.packed())), buffer(&Global::new(&self.maps.scales()))]
    }

    fn turns(&self) -> Global<f32> {
        Global::new(&self.turns.packed())
    }
}

fn floats<T: Float>(x: &Global<T>) -> Vec<f32> {
    x.to_vec().into_iter().map(T::to_f32).collect()
}

/// Tokens at random positions and what is given to the store; one of padding, one past the turns, one of another block before the start.
fn mapped<T: Float>(name: &str, d: usize, tokens: usize) {
    let layer = Layer::new(preset(name).unwrap(), d);
    let mut random = Random(d as u64 + tokens as u64);
    let mut slots: Vec<i64> = shuffled(tokens, &mut random).into_iter().map(|s| s as i64).collect();
    let mut positions: Vec<i32> = (0..tokens).map(|_| (random.bits() % (SEGMENTS * SEGMENT) as u64) as i32).collect();
    slots[2] = -1;
    (positions[2], positions[5]) = (i32::MAX, (SEGMENTS * SEGMENT) as i32);
    if tokens > 70 {
        positions[70] = -1;
    }
    let mut rows = || -> Global<T> {
        let mut x = random.gaussians(tokens * KV_HEADS * d);
        (x[0], x[1], x[d / 2], x[d]) = (f32::NAN, f32::INFINITY, -0.0, 1e30);
        global(&x)
    };
    let (k, v) = (rows(), rows());

    let good = |t: &usize| (0..(SEGMENTS * SEGMENT) as i32).contains(&positions[*t]);
    let known: Vec<i64> = (0..tokens).map(|t| if good(&t) { slots[t] } else { -1 }).collect();
    let places: Vec<usize> = (0..tokens).map(|t| if good(&t) { positions[t] as usize } else { 0 }).collect();
    let shape = CacheShape { pages: tokens.div_ceil(PAGE) + 1, page_tokens: PAGE, kv_heads: KV_HEADS, d };
    let mut want = vec![0xa7; shape.bytes(layer.c)];
    assert!(layer.reference().store(&shape, &mut want, &floats(&k), &floats(&v), &places, &known).is_ok());

    let what = format!("{name} d {d} {tokens} tokens");
    let strides = [(KV_HEADS * d) as i64, d as i64];
    let either = [Some(kernels::mapped_store_meta(layer.c, d, PAGE, memory::<T>())), kernels::walked_store_meta(layer.c, d, PAGE, memory::<T>())];
    for m in either.into_iter().flatten() {
        let mut grid = kernels::mapped_grid(&m, tokens, KV_HEADS);
        if m.walks {
            // One block has all groups of a head.
            grid[0] = 1;
        }
        for store in &stages(kernels::mapped_store_ir(layer.c, &m, memory::<T>()).unwrap()) {
            let mut args = vec![buffer(&k), buffer(&v), buffer(&Global::new(&positions)), buffer(&Global::new(&slots)), buffer(&layer.turns())];
            args.extend(layer.maps());
            args.extend([Arg::Buffer(vec![0xa7; want.len()]), buffer(&Global::<i32>::zeroed(4))]);
            args.extend([tokens as i32, KV_HEADS as i32, SEGMENTS as i32].map(scalar));
            args.extend(m.walks.then(|| scalar(grid[0] as i32)));
            args.push(scalar((shape.pages * PAGE) as i64));
            args.extend(strides.iter().chain(&strides).map(|s| scalar(*s)));
            let got = interpreted(&what, store, grid, args);
            let at = format!("{what}, {} IR", store.0);
            assert_eq!(got[8][..12], Global::new(&[0, 0, 1_i32]).bytes, "{at}, status");
            assert!([5, 70].contains(&got[8][12]), "{at}, where");
            assert_bytes(&format!("{at}, cache"), &got[7], &want);
        }
    }
}

/// Sequences in random pages of a cache, and queries of `queries` tokens each.
struct Batch<T> {
    layer: Layer,
    queries: usize,
    lens: Vec<i32>,
    stride: usize,
    shape: CacheShape,
    cache: Vec<u8>,
    table: Vec<i32>,
    q: Global<T>,
    scale: f32,
    want: Decoded,
}

impl<T: Float> Batch<T> {
    fn new(name: &str, d: usize, group: usize, queries: usize, lens: &[i32]) -> Batch<T> {
        let layer = Layer::new(preset(name).unwrap(), d);
        let (heads, batch) = (KV_HEADS * group, lens.len());
        let mut random = Random((d * 10 + group + 100 * queries) as u64);
        let stride = (*lens.iter().max().unwrap() as usize).div_ceil(PAGE) + 1;
        let shape = CacheShape { pages: batch * stride + 2, page_tokens: PAGE, kv_heads: KV_HEADS, d };
        let table: Vec<i32> = shuffled(shape.pages, &mut random).into_iter().take(batch * stride).map(|p| p as i32).collect();
        let (mut slots, mut positions) = (vec![-1], vec![0]);
        for (b, len) in lens.iter().enumerate() {
            let place = |t: usize| i64::from(table[b * stride + t / PAGE]) * PAGE as i64 + (t % PAGE) as i64;
            slots.extend((0..(*len).max(0) as usize).map(place));
            positions.extend(0..(*len).max(0) as usize);
        }
        let n = slots.len() * KV_HEADS * d;
        let mut cache = vec![0xff; shape.bytes(layer.c)];
        assert!(layer.reference().store(&shape, &mut cache, &random.gaussians(n), &random.gaussians(n), &positions, &slots).is_ok());
        let q: Global<T> = global(&random.gaussians(batch * queries * heads * d));
        let scale = 1.0 / (d as f32).sqrt();
        let rows = floats(&q);
        let want = layer.reference().prefill(&shape, &cache, &rows, queries, heads, &table, stride, lens, scale);
        // Each query token has the bits of one that comes alone, over the tokens up to its own.
        for (i, len) in lens.iter().enumerate().flat_map(|(b, len)| (0..queries).map(move |t| (b * queries + t, if *len < 0 { *len } else { (len - (queries - t) as i32 + 1).max(0) }))) {
            let row = heads * d;
            let alone = layer.reference().decode(&shape, &cache, &rows[i * row..][..row], heads, &table[i / queries * stride..][..stride], stride, &[len], scale);
            assert!(alone.out == want.out[i * row..][..row] && alone.lse == want.lse[i * heads..][..heads], "reference, token {i}");
        }
        assert_eq!(want.status, if lens.iter().any(|len| *len < 0) { Status::BAD_LENGTH } else { Status::OK });
        Batch { layer, queries, lens: lens.to_vec(), stride, shape, cache, table, q, scale, want }
    }

    fn segments(&self) -> usize {
        (self.stride * PAGE).div_ceil(SEGMENT)
    }

    fn table(&self) -> Arg {
        buffer(&Global::new(&self.table))
    }

    fn lens(&self) -> Arg {
        buffer(&Global::new(&self.lens))
    }

    /// What a kernel of `m` takes as queries, by stage, and the buffers of its maps.
    fn mapped(&self, what: &str, m: &DecodeMeta, stage: usize, blocks: usize) -> Vec<Arg> {
        let [maps, scales] = self.layer.maps();
        let to = kernels::queries_meta(m, memory::<T>());
        let kernel = stages(kernels::queries_ir(self.layer.c, &to).unwrap());
        let records = Global::<u8>::new(&vec![0xcc; self.lens.len() * KV_HEADS * m.fold * blocks * self.segments() * m.record]);
        let mut args = vec![buffer(&self.q), buffer(&self.layer.turns()), maps.clone(), scales.clone(), self.lens(), buffer(&records)];
        args.extend([(KV_HEADS * m.fold) as i32, self.stride as i32, self.segments() as i32].map(scalar));
        args.push(scalar(self.scale));
        let log_parts = kernels::query_parts(&to, self.segments()).ilog2() as i32;
        args.extend([self.queries as i32, 0, blocks as i32, log_parts].map(scalar));
        let grid = kernels::queries_grid(&to, self.segments(), KV_HEADS * m.fold, self.lens.len(), blocks);
        let got = interpreted(what, &kernel[stage], grid, args);
        vec![Arg::Buffer(got[5].clone()), maps, scales]
    }

    fn check(&self, at: &str, out: &[u8], lse: &[u8]) {
        assert_bytes(&format!("{at}: lse"), lse, &Global::new(&self.want.lse).bytes);
        assert_bytes(&format!("{at}: out"), out, &global::<T>(&self.want.out).bytes);
    }
}

fn bytes(x: &[u8]) -> Arg {
    Arg::Buffer(x.to_vec())
}

fn nan(n: usize) -> Arg {
    buffer(&Global::<f32>::new(&vec![f32::NAN; n]))
}

/// One query token a sequence. `unit`: log2 of the leaves of a warp.
fn attended<T: Float>(name: &str, d: usize, group: usize, warps: usize, unit: usize, away: bool, lens: &[i32]) {
    let x = Batch::<T>::new(name, d, group, 1, lens);
    let (c, batch, rows) = (x.layer.c, lens.len(), lens.len() * KV_HEADS * group);
    let m = kernels::calibrated_meta(c, d, group, PAGE);
    let m = DecodeMeta { warps, depth: m.depth.min((SHARE / warps).ilog2() as usize), away: away || m.away, ..m };
    let j = kernels::join_after(&m);
    let splits = kernels::splits_of(&m, x.stride * PAGE, unit);
    let parts = batch * KV_HEADS * m.fold * m.group * splits;
    let j = if splits <= NARROW { j.narrow() } else { j };
    let what = format!("{name} d {d} group {group} warps {warps} unit {unit} lens {lens:?}");
    let decode = stages(kernels::decode_ir(c, &m, memory::<T>()).unwrap());
    let join = stages(kernels::join_ir(c, &j, memory::<T>()).unwrap());
    for i in 0..decode.len() {
        let at = format!("{what}, {} IR", decode[i].0);
        let mut args = x.mapped(&what, &m, i, 1);
        args.extend([Arg::Buffer(x.cache.clone()), x.table(), x.lens(), buffer(&global::<T>(&vec![f32::NAN; rows * d])), nan(rows), nan(parts * d), nan(parts * 2), buffer(&Global::<i32>::zeroed(1)), buffer(&Global::<i32>::zeroed(4))]);
        args.extend([batch as i32, (KV_HEADS * m.fold) as i32, x.shape.pages as i32, x.stride as i32, x.segments() as i32, splits as i32, 2, unit as i32, 0].map(scalar));
        args.push(scalar(x.scale));
        let got = interpreted(&what, &decode[i], [2, 1, 1], args);

        let mut args = x.layer.maps().to_vec();
        args.extend([bytes(&got[8]), bytes(&got[9]), bytes(&got[10]), x.table(), x.lens(), bytes(&got[6]), bytes(&got[7]), bytes(&got[11])]);
        args.extend([(KV_HEADS * m.fold) as i32, m.group as i32, splits as i32, x.shape.pages as i32, x.stride as i32, -1, 0].map(scalar));
        let got = interpreted(&what, &join[i], [m.group as u32, (KV_HEADS * m.fold) as u32, batch as u32], args);
        x.check(&at, &got[7], &got[8]);
    }
}

/// Several query tokens a sequence, in blocks of a kernel compiled for `block`.
fn many<T: Float>(name: &str, d: usize, group: usize, queries: usize, block: usize, lens: &[i32]) {
    let x = Batch::<T>::new(name, d, group, queries, lens);
    let (c, batch) = (x.layer.c, lens.len());
    let m = calibrated_prefill_meta(c, d, group, block, PAGE);
    let j = join_queries_meta(&m);
    let splits = kernels::splits_of(&m, x.stride * PAGE, 0);
    let (shift, log_share, blocks) = (splits.next_power_of_two().ilog2(), kernels::log_share(&m, 0) as i32, queries.div_ceil(m.queries));
    let what = format!("{name} d {d} group {group} queries {queries} in blocks of {} ({} parts, apart {}) lens {lens:?}", m.queries, m.parts, m.apart);
    let (rows, outs) = (batch * KV_HEADS * m.fold * blocks * splits * m.rows(), batch * queries * KV_HEADS * group);
    let attend = stages(prefill_ir(c, &m, memory::<T>()).unwrap());
    let join = stages(join_queries_ir(c, &j, memory::<T>()).unwrap());
    for i in 0..attend.len() {
        let at = format!("{what}, {} IR", attend[i].0);
        let mut args = x.mapped(&what, &m, i, blocks);
        args.extend([Arg::Buffer(x.cache.clone()), x.table(), x.lens(), buffer(&global::<T>(&vec![f32::NAN; outs * d])), nan(outs), nan(rows * d), nan(rows * 2), buffer(&Global::<i32>::zeroed(4))]);
        args.extend([(KV_HEADS * m.fold) as i32, x.shape.pages as i32, x.stride as i32, x.segments() as i32, splits as i32, 0].map(scalar));
        args.push(scalar(x.scale));
        args.extend([queries as i32, 0, blocks as i32, shift as i32].map(scalar));
        let got = interpreted(&what, &attend[i], [(blocks << shift) as u32, (KV_HEADS * m.fold) as u32, batch as u32], args);

        let mut args = x.layer.maps().to_vec();
        args.extend([bytes(&got[8]), bytes(&got[9]), x.table(), x.lens(), bytes(&got[6]), bytes(&got[7]), bytes(&got[10])]);
        args.extend([(KV_HEADS * m.fold) as i32, splits as i32, log_share, x.shape.pages as i32, x.stride as i32, queries as i32, 0, blocks as i32].map(scalar));
        let got = interpreted(&what, &join[i], [(queries * m.group) as u32, (KV_HEADS * m.fold) as u32, batch as u32], args);
        x.check(&at, &got[6], &got[7]);
    }
}

/// A long chunk, in blocks of `warps` warps that take 2^unit leaves of a row.
fn chunked<T: Float>(name: &str, group: usize, queries: usize, warps: usize, unit: usize, lens: &[i32]) {
    let (d, x) = (128, Batch::<T>::new(name, 128, group, queries, lens));
    let (c, batch) = (x.layer.c, lens.len());
    let m = calibrated_chunk_meta(c, d, group, PAGE);
    let m = DecodeMeta { warps, queries: 8 * warps / group, record: kernels::maps::record(d, 8 * warps, m.parts), ..m };
    let j = join_queries_meta(&m);
    let splits = kernels::splits_of(&m, x.stride * PAGE, unit);
    let (shift, blocks) = (splits.next_power_of_two().ilog2(), queries.div_ceil(m.queries));
    let what = format!("{name} group {group} queries {queries} in chunks of {}, 2^{unit} leaves, lens {lens:?}", m.queries);
    let (rows, outs) = (batch * KV_HEADS * blocks * splits * m.rows(), batch * queries * KV_HEADS * group);
    let attend = stages(chunk_ir(c, &m, memory::<T>()).unwrap());
    let join = stages(join_queries_ir(c, &j, memory::<T>()).unwrap());
    for i in 0..attend.len() {
        let at = format!("{what}, {} IR", attend[i].0);
        let mut args = x.mapped(&what, &m, i, blocks);
        args.extend([Arg::Buffer(x.cache.clone()), x.table(), x.lens(), buffer(&global::<T>(&vec![f32::NAN; outs * d])), nan(outs), nan(rows * d), nan(rows * 2), buffer(&Global::<i32>::zeroed(4))]);
        args.extend([KV_HEADS as i32, x.shape.pages as i32, x.stride as i32, splits as i32, unit as i32].map(scalar));
        args.push(scalar(x.scale));
        args.extend([queries as i32, 0, blocks as i32, shift as i32].map(scalar));
        let got = interpreted(&what, &attend[i], [(blocks << shift) as u32, KV_HEADS as u32, batch as u32], args);

        let mut args = x.layer.maps().to_vec();
        args.extend([bytes(&got[8]), bytes(&got[9]), x.table(), x.lens(), bytes(&got[6]), bytes(&got[7]), bytes(&got[10])]);
        args.extend([KV_HEADS as i32, splits as i32, unit as i32, x.shape.pages as i32, x.stride as i32, queries as i32, 0, blocks as i32].map(scalar));
        let got = interpreted(&what, &join[i], [(queries * group) as u32, KV_HEADS as u32, batch as u32], args);
        x.check(&at, &got[6], &got[7]);
    }
}

#[test]
fn rows_are_mapped() {
    mapped::<bf16>("kvfuse-2", 128, 9);
    mapped::<f32>("kvfuse-4", 128, 35);
    mapped::<bf16>("kvfuse-6", 128, 140);
    mapped::<bf16>("kvfuse-4", 128, 64);
    mapped::<bf16>("kvfuse-3", 256, 7);
}

#[test]
fn queries_are_mapped_once_a_segment_and_outputs_back() {
    attended::<f32>("kvfuse-4", 128, 4, 8, 0, false, &[SEGMENT as i32 + 40, 0, 300, -3, 33]);
    attended::<bf16>("kvfuse-4", 128, 4, 8, 2, false, &[SEGMENT as i32 + 40, 700]);
    attended::<f32>("kvfuse-6", 128, 4, 8, 1, true, &[600, 3]);
}

#[test]
fn a_walk_through_several_segments_changes_its_query() {
    attended::<f32>("kvfuse-4", 128, 4, 2, 0, false, &[600, 1]);
    attended::<f32>("kvfuse-6", 128, 8, 4, 0, false, &[530]);
}

#[test]
fn every_preset_and_group() {
    attended::<bf16>("kvfuse-2", 128, 1, 8, 0, false, &[20, 0]);
    attended::<f32>("kvfuse-3", 128, 3, 8, 0, false, &[40]);
    attended::<f32>("kvfuse-2", 128, 6, 8, 0, false, &[40]);
    attended::<bf16>("kvfuse-2", 256, 16, 4, 0, false, &[33, 2]);
    attended::<f32>("kvfuse-4", 256, 5, 4, 0, false, &[64]);
    attended::<bf16>("kvfuse-3", 256, 2, 8, 0, false, &[70]);
    attended::<f32>("kvfuse-2", 64, 4, 8, 0, false, &[45]);
}

#[test]
fn several_query_tokens_a_sequence() {
    many::<f32>("kvfuse-4", 128, 4, 3, 4, &[40, 2, 0, -1, 300]);
    many::<bf16>("kvfuse-2", 128, 1, 4, 4, &[33]);
    many::<f32>("kvfuse-6", 128, 8, 2, 2, &[70]);
    many::<bf16>("kvfuse-3", 128, 5, 5, 100, &[45, 7]);
    many::<f32>("kvfuse-4", 128, 4, 2, 2, &[SEGMENT as i32 + 1]);
    many::<f32>("kvfuse-3", 256, 2, 3, 3, &[37]);
}

/// Whole rows and parts of them, segments that change within a part, blocks that are not full, rows that see nothing.
#[test]
fn long_chunks() {
    chunked::<f32>("kvfuse-4", 4, 5, 2, 9, &[SEGMENT as i32 + 3, 2, -1]);
    chunked::<bf16>("kvfuse-2", 3, 3, 1, 0, &[300]);
    chunked::<bf16>("kvfuse-6", 8, 2, 2, 0, &[70, 0]);
    chunked::<f32>("kvfuse-3", 1, 9, 2, 9, &[40]);
}
