//! Calibrated codecs through the interpreter, at every stage: the kernels between and around the maps give the
//! reference's cache, outputs and log-sum-exps, bit for bit, over several segments and ragged lengths.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::ir::interp::Arg;
use kernel_dsl::prelude::*;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::{self, Elem as Memory, Mapping, SEGMENT};
use kernels_gen::preset::{LayerMaps, Preset, Turns, preset};
use kernels_gen::reference::{CacheShape, Calibrated, Status};
use kernels_gen::registry::CodecInfo;
use run::{assert_bytes, buffer, global, interpreted, scalar, shuffled, stages};
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

fn memory<T: Float>() -> Memory {
    if T::DTYPE == DType::F32 { Memory::F32 } else { Memory::Bf16 }
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
    if tokens > 34 {
        positions[34] = -1;
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
    let m = kernels::mapped_store_meta(layer.c, d, PAGE, memory::<T>());
    let store = stages(kernels::mapped_store_ir(layer.c, &m, memory::<T>()).unwrap());
    let strides = [(KV_HEADS * d) as i64, d as i64];
    for store in &store {
        let mut args = vec![buffer(&k), buffer(&v), buffer(&Global::new(&positions)), buffer(&Global::new(&slots)), buffer(&layer.turns())];
        args.extend(layer.maps());
        args.extend([Arg::Buffer(vec![0xa7; want.len()]), buffer(&Global::<i32>::zeroed(4))]);
        args.extend([tokens as i32, KV_HEADS as i32, SEGMENTS as i32].map(scalar));
        args.push(scalar((shape.pages * PAGE) as i64));
        args.extend(strides.iter().chain(&strides).map(|s| scalar(*s)));
        let got = interpreted(&what, store, kernels::store_grid(tokens, KV_HEADS), args);
        let at = format!("{what}, {} IR", store.0);
        assert_eq!(got[8][..12], Global::new(&[0, 0, 1_i32]).bytes, "{at}, status");
        assert!([5, 34].contains(&got[8][12]), "{at}, where");
        assert_bytes(&format!("{at}, cache"), &got[7], &want);
    }
}

/// Attention of a batch over sequences in random pages.
fn attended<T: Float>(name: &str, d: usize, group: usize, warps: usize, lens: &[i32]) {
    let layer = Layer::new(preset(name).unwrap(), d);
    let (c, heads, batch) = (layer.c, KV_HEADS * group, lens.len());
    let mut random = Random((d * 10 + group) as u64);
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
    let mut cache = vec![0xff; shape.bytes(c)];
    assert!(layer.reference().store(&shape, &mut cache, &random.gaussians(n), &random.gaussians(n), &positions, &slots).is_ok());
    let q: Global<T> = global(&random.gaussians(batch * heads * d));
    let scale = 1.0 / (d as f32).sqrt();
    let want = layer.reference().decode(&shape, &cache, &floats(&q), heads, &table, stride, lens, scale);
    assert_eq!(want.status, if lens.iter().any(|len| *len < 0) { Status::BAD_LENGTH } else { Status::OK });

    let what = format!("{name} d {d} group {group} warps {warps} lens {lens:?}");
    let segments = (stride * PAGE).div_ceil(SEGMENT);
    let (m, j) = (DecodeMeta { warps, ..kernels::calibrated_meta(c, d, group, PAGE) }, kernels::join_meta(d, PAGE));
    let splits = kernels::splits_of(&m, stride * PAGE, 0);
    let [to, from] = [Mapping::Queries, Mapping::Outputs].map(|mapping| kernels::map_meta(c, d, group, PAGE, mapping));
    let queries = stages(kernels::map_ir(c, &to, Mapping::Queries, memory::<T>()).unwrap());
    let decode = stages(kernels::decode_ir(c, &m, Memory::F32).unwrap());
    let join = stages(kernels::join_ir(c, &j, Memory::F32).unwrap());
    let outputs = stages(kernels::map_ir(c, &from, Mapping::Outputs, memory::<T>()).unwrap());
    let (table, lens) = (Global::new(&table), Global::new(lens));
    let bytes = |x: &Vec<u8>| Arg::Buffer(x.clone());
    let nan = |n: usize| buffer(&Global::<f32>::new(&vec![f32::NAN; n]));
    let rows = batch * heads;
    for i in 0..queries.len() {
        let at = format!("{what}, {} IR", queries[i].0);
        let records = Global::<u8>::new(&vec![0xcc; batch * KV_HEADS * segments * m.record]);
        let mut args = vec![buffer(&q), buffer(&layer.turns())];
        args.extend(layer.maps());
        args.extend([buffer(&lens), buffer(&records)]);
        args.extend([scalar(KV_HEADS as i32), scalar(stride as i32), scalar(segments as i32), scalar(scale)]);
        let got = interpreted(&what, &queries[i], kernels::queries_grid(&to, segments, KV_HEADS, batch), args);

        let mut args = vec![bytes(&got[5]), Arg::Buffer(cache.clone()), buffer(&table), buffer(&lens), nan(rows * d), nan(rows), nan(rows * splits * d), nan(rows * splits * 2), buffer(&Global::<i32>::zeroed(1)), buffer(&Global::<i32>::zeroed(4))];
        args.extend([batch as i32, KV_HEADS as i32, shape.pages as i32, stride as i32, segments as i32, splits as i32, 2, 0, 0].map(scalar));
        args.push(scalar(scale));
        let got = interpreted(&what, &decode[i], [KV_HEADS as u32, 2, 1], args);

        let mut args = vec![bytes(&got[6]), bytes(&got[7]), bytes(&got[8]), buffer(&table), buffer(&lens), bytes(&got[4]), bytes(&got[5]), bytes(&got[9])];
        args.extend([KV_HEADS as i32, group as i32, splits as i32, shape.pages as i32, stride as i32].map(scalar));
        let got = interpreted(&what, &join[i], [group as u32, KV_HEADS as u32, batch as u32], args);
        assert_bytes(&format!("{at}: lse"), &got[6], &Global::new(&want.lse).bytes);

        let [maps, scales] = layer.maps();
        let args = vec![bytes(&got[5]), bytes(&got[6]), maps, scales, buffer(&global::<T>(&vec![f32::NAN; rows * d])), scalar(batch as i32), scalar(KV_HEADS as i32)];
        let got = interpreted(&what, &outputs[i], kernels::outputs_grid(&from, KV_HEADS, batch), args);
        assert_bytes(&format!("{at}: out"), &got[4], &global::<T>(&want.out).bytes);
    }
}

#[test]
fn rows_are_mapped() {
    mapped::<bf16>("kvfuse-2", 128, 9);
    mapped::<f32>("kvfuse-4", 128, 35);
    mapped::<bf16>("kvfuse-3", 256, 7);
}

#[test]
fn queries_are_mapped_once_a_segment_and_outputs_back() {
    attended::<f32>("kvfuse-4", 128, 4, 8, &[SEGMENT as i32 + 40, 0, 300, -3, 33]);
    attended::<f32>("kvfuse-4", 128, 4, 2, &[600, 1]);
}

#[test]
fn every_preset_and_group() {
    attended::<bf16>("kvfuse-2", 128, 1, 8, &[20, 0]);
    attended::<f32>("kvfuse-3", 128, 3, 8, &[40]);
    attended::<f32>("kvfuse-6", 128, 8, 4, &[530]);
    attended::<bf16>("kvfuse-2", 256, 16, 4, &[33, 2]);
    attended::<f32>("kvfuse-4", 256, 5, 4, &[64]);
}
