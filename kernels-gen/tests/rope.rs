//! Norm, RoPE and store in one kernel: every stage gives the reference's bytes, and the reference what f64 says.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::ir::interp::Arg;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels::arguments::{Rows, Stored};
use kernels_gen::kernels::rope::{Passed, Rope, Turns};
use kernels_gen::kernels::{self, SEGMENT};
use kernels_gen::preset::preset;
use kernels_gen::reference::{self, CacheShape, Calibrated, RopeTable, Status};
use kernels_gen::registry::codec;
use run::{assert_bytes, buffer, global, interpreted, memory, scalar, shuffled, stages};
use support::{Random, calibration};

const KV_HEADS: usize = 2;
const PAGE: usize = 32;
/// Positions of the table.
const TURNS: usize = 50;
const EPSILON: f32 = 1e-6;

fn floats<T: Float>(x: &Global<T>) -> Vec<f32> {
    x.to_vec().into_iter().map(T::to_f32).collect()
}

/// Cosines and sines of a table, in f64.
fn angles(dims: usize) -> Vec<f64> {
    let angle = |p: usize, i: usize| p as f64 * 1e4_f64.powf(-2.0 * i as f64 / dims as f64);
    (0..TURNS).flat_map(|p| (0..dims).map(move |i| if i < dims / 2 { angle(p, i).cos() } else { angle(p, i - dims / 2).sin() })).collect()
}

/// The table as memory has it, and the numbers there.
fn table(rope: &Rope) -> (Global<u8>, Vec<f32>) {
    let exact = angles(rope.dims);
    let mut bytes = Global::<u8>::zeroed(0);
    if rope.table_elem == 2 {
        let own: Global<bf16> = global(&exact.iter().map(|x| *x as f32).collect::<Vec<f32>>());
        bytes.bytes = own.bytes.clone();
        return (bytes, floats(&own));
    }
    let own: Vec<f32> = exact.iter().map(|x| *x as f32).collect();
    bytes.bytes = Global::new(&own).bytes;
    (bytes, own)
}

struct Problem<T> {
    rope: Rope,
    shape: CacheShape,
    rows: [Global<T>; 3],
    weights: [Global<f32>; 2],
    slots: Vec<i64>,
    positions: Vec<i32>,
    table: (Global<u8>, Vec<f32>),
}

impl<T: Float> Problem<T> {
    /// Tokens into random slots; one of padding whose position is nonsense, one past the cache, one of another block beyond the table.
    fn new(rope: Rope, d: usize, tokens: usize) -> Problem<T> {
        let mut random = Random((d + tokens + rope.dims) as u64);
        let shape = CacheShape { pages: 3, page_tokens: PAGE, kv_heads: KV_HEADS, d };
        let mut slots: Vec<i64> = shuffled(3 * PAGE, &mut random).into_iter().take(tokens).map(|s| s as i64).collect();
        let mut positions: Vec<i32> = (0..tokens).map(|_| (random.bits() % TURNS as u64) as i32).collect();
        (slots[2], positions[2]) = (-1, i32::MIN);
        slots[4] = (3 * PAGE) as i64;
        positions[6] = TURNS as i32 - 1;
        if tokens > 32 {
            positions[32] = [TURNS as i32, -1, i32::MAX, i32::MIN][(d + rope.dims / 16) % 4];
        }
        let mut rows = |heads: usize, by: f32| -> Global<T> {
            let mut x: Vec<f32> = random.gaussians(tokens * heads * d).into_iter().map(|x| x * by).collect();
            (x[0], x[d], x[2 * d + 1]) = (f32::NAN, 1e30, f32::INFINITY);
            x[3 * d..4 * d].fill(0.0);
            global(&x)
        };
        let rows = [rows(KV_HEADS, 3.0), rows(KV_HEADS, 1.0), rows(KV_HEADS * rope.group.max(1), 30.0)];
        let weights = [(); 2].map(|()| Global::new(&random.gaussians(d).into_iter().map(|w| 1.0 + 0.2 * w).collect::<Vec<f32>>()));
        Problem { rope, shape, rows, weights, slots, positions, table: table(&rope) }
    }

    fn known(&self, token: usize) -> bool {
        (0..TURNS as i32).contains(&self.positions[token])
    }

    /// Cache, keys given back, queries given back.
    fn wanted(&self, name: &str) -> [Vec<u8>; 3] {
        let (c, d) = (codec(name).unwrap(), self.shape.d);
        let of = RopeTable { rope: self.rope, table: &self.table.1, epsilon: EPSILON };
        let [k, v, q] = self.rows.each_ref().map(floats);
        let [kw, qw] = self.weights.each_ref().map(|w| w.to_vec());
        let slots: Vec<i64> = (0..self.slots.len()).map(|t| if self.known(t) { self.slots[t] } else { -1 }).collect();
        let places: Vec<usize> = (0..self.slots.len()).map(|t| if self.known(t) { self.positions[t] as usize } else { 0 }).collect();
        let mut cache = vec![0xee; self.shape.bytes(c)];
        let status = reference::store(c, &self.shape, &mut cache, &of.rows(&k, d, &kw, &places), &v, &slots);
        assert_eq!(status, Status::BAD_SLOT);
        let given = |x: &[f32], w: &[f32]| global::<T>(&of.given(x, d, w, &self.positions)).bytes;
        [cache, given(&k, &kw), given(&q, &qw)]
    }

    /// Arguments of the kernel; `fitted`: those of a calibrated one.
    fn args(&self, cache: usize, fitted: Vec<Arg>) -> Vec<Arg> {
        let ([k, v, q], d) = (&self.rows, self.shape.d);
        let rows = |x, heads: usize| [buffer(x), scalar((heads * d) as i64), scalar(d as i64)];
        let turns = [buffer(&Global::new(&self.positions)), buffer(&self.table.0), scalar(TURNS as i32), scalar(EPSILON)];
        let left = [k, q].map(|x| Arg::Buffer(vec![0xcc; x.bytes.len()]));
        let stored = [buffer(&Global::new(&self.slots)), Arg::Buffer(vec![0xee; cache]), buffer(&Global::<i32>::zeroed(4)), scalar((3 * PAGE) as i64), scalar(self.slots.len() as i32), scalar(KV_HEADS as i32)];
        let rows = [rows(k, KV_HEADS), rows(v, KV_HEADS), rows(q, KV_HEADS * self.rope.group)].into_iter().flatten();
        rows.chain(turns).chain(self.weights.each_ref().map(buffer)).chain(left).chain(fitted).chain(stored).collect()
    }
}

/// What a kernel leaves, of `fitted` buffers more: keys and queries given back, the cache, the status words.
fn outputs(mut got: Vec<Vec<u8>>, fitted: usize) -> [Vec<u8>; 4] {
    [7, 8, 10 + fitted, 11 + fitted].map(|i| std::mem::take(&mut got[i]))
}

fn stored<T: Float>(name: &str, d: usize, rope: Rope, tokens: usize) {
    let (c, p) = (codec(name).unwrap(), Problem::<T>::new(rope, d, tokens));
    let want = p.wanted(name);
    let what = format!("{name} d {d} {rope:?}");
    let m = kernels::rope_store_meta(c, d, PAGE, memory::<T>(), rope, false);
    let grid = kernels::rope_grid(&rope, tokens, KV_HEADS);
    let left = |bytes: &[u8], given: bool, want: &[u8], what: &str| if given { assert_bytes(what, bytes, want) } else { assert!(bytes.iter().all(|b| *b == 0xcc), "{what}: written") };
    for stage in stages(kernels::rope_store_ir(c, &m, memory::<T>()).unwrap()) {
        let [keys, queries, cache, status] = outputs(interpreted(&what, &stage, grid, p.args(want[0].len(), vec![])), 0);
        let at = |part: &str| format!("{what}, {} IR, {part}", stage.0);
        assert_bytes(&at("cache"), &cache, &want[0]);
        left(&keys, rope.keys, &want[1], &at("keys"));
        left(&queries, rope.group > 0, &want[2], &at("queries"));
        assert_eq!(status[..12], Global::new(&[1, 0, i32::from(tokens > 32)]).bytes, "{}", at("status"));
    }
    // The Rust function.
    let zeroed = |bytes: &[u8]| -> Global<T> { global(&vec![0.0; bytes.len() / T::DTYPE.size()]) };
    let ([k, v, q], [kw, qw]) = (p.rows, p.weights);
    let rows = |base, heads: usize| Rows { base, token_stride: (heads * d) as i64, head_stride: d as i64 };
    let turns = Turns { positions: Global::new(&p.positions), table: p.table.0, turns: TURNS as i32, epsilon: EPSILON };
    let mut passed = Passed { k_weight: kw, q_weight: qw, k_out: zeroed(&want[1]), q_out: zeroed(&want[2]) };
    let mut to = Stored { slots: Global::new(&p.slots), cache: Global::new(&vec![0xee; want[0].len()]), status: Global::zeroed(4), slot_count: (3 * PAGE) as i64, tokens: tokens as i32, kv_heads: KV_HEADS as i32 };
    let (k, v, q) = (rows(k, KV_HEADS), rows(v, KV_HEADS), rows(q, KV_HEADS * rope.group));
    launch(grid, || kernels::rope::store::store_rope::<T>(m, c.k.bands, c.v.bands, &k, &v, &q, &turns, &mut passed, &mut to));
    assert_bytes(&format!("{what}, Rust, cache"), &to.cache.bytes, &want[0]);
    if rope.group > 0 {
        assert_bytes(&format!("{what}, Rust, queries"), &passed.q_out.bytes, &want[2]);
    }
}

/// What Qwen3 has: all coordinates turn, half a row apart, after a norm with weights.
const QWEN3: Rope = Rope { dims: 128, pairs: false, norm: true, weights: true, table_elem: 4, group: 2, keys: true };

#[test]
fn every_shape_of_rope() {
    for d in [64, 128, 256] {
        for dims in [16, 32, 64, 96, 128, 256].into_iter().filter(|dims| *dims <= d) {
            for pairs in [false, true].into_iter().filter(|pairs| d < 256 || *pairs == (dims < 96)) {
                let some = dims / 16 + d / 64 + usize::from(pairs);
                let rope = Rope { dims, pairs, norm: some % 3 > 0, weights: some % 3 > 1, table_elem: [2, 4][some % 2], group: [0, 1, 3][some % 3], keys: some.is_multiple_of(2) };
                if some.is_multiple_of(2) { stored::<f32>("int4", d, rope, 40) } else { stored::<bf16>("e8w4", d, rope, 33) }
            }
        }
    }
    stored::<bf16>("int4", 128, QWEN3, 40);
    stored::<bf16>("int4", 512, Rope { dims: 64, ..QWEN3 }, 7);
}

/// Every kind of codec, with rows as they come, offsets, groups, tries, tails, bands.
#[test]
fn every_kind_of_codec() {
    for name in ["bf16", "fp8_e4m3", "e8q38", "d4q38", "int3_tried", "turboquant_4bit_nc", "turboquant_k8v4", "nvfp4", "mxfp4", "e8q38/int4", "int4/bf16", "e8w5+e8w4+e8w4+e8w2/e8w5+e8w3"] {
        stored::<bf16>(name, 128, QWEN3, 40);
    }
    stored::<f32>("e8q38", 64, Rope { dims: 64, ..QWEN3 }, 40);
}

/// Calibrated codecs: beyond the table, and beyond what the calibration was loaded for.
fn mapped<T: Float>(name: &str, d: usize, rope: Rope) {
    let p = preset(name).unwrap();
    let (c, fitted) = (p.codec().unwrap(), calibration(d));
    let (maps, back) = (fitted.maps(p, 1).unwrap(), fitted.turns(SEGMENT));
    let mut x = Problem::<T>::new(rope, d, 40);
    x.slots[4] = 7 + 64;
    x.slots.iter_mut().enumerate().filter(|(i, slot)| *i != 4 && **slot == 7 + 64).for_each(|(_, slot)| *slot = -1);
    let of = RopeTable { rope, table: &x.table.1, epsilon: EPSILON };
    let ([k, v, q], [kw, qw]) = (x.rows.each_ref().map(floats), x.weights.each_ref().map(|w| w.to_vec()));
    let slots: Vec<i64> = (0..40).map(|t| if x.known(t) { x.slots[t] } else { -1 }).collect();
    let places: Vec<usize> = (0..40).map(|t| if x.known(t) { x.positions[t] as usize } else { 0 }).collect();
    let mut want = vec![0xee; x.shape.bytes(c)];
    let layer = Calibrated { codec: c, maps: &maps, turns: &back };
    assert!(layer.store(&x.shape, &mut want, &of.rows(&k, d, &kw, &places), &v, &places, &slots).is_ok());
    let args = x.args(want.len(), vec![buffer(&Global::new(&back.packed())), buffer(&Global::new(&maps.packed())), buffer(&Global::new(&maps.scales())), scalar(1_i32)]);
    let what = format!("{name} d {d} {rope:?}");
    let m = kernels::rope_store_meta(c, d, PAGE, memory::<T>(), rope, true);
    for stage in stages(kernels::mapped_rope_store_ir(c, &m, memory::<T>()).unwrap()) {
        let [keys, queries, cache, status] = outputs(interpreted(&what, &stage, kernels::rope_grid(&rope, 40, KV_HEADS), args.clone()), 3);
        let at = |part: &str| format!("{what}, {} IR, {part}", stage.0);
        assert_bytes(&at("cache"), &cache, &want);
        assert_bytes(&at("keys"), &keys, &global::<T>(&of.given(&k, d, &kw, &x.positions)).bytes);
        assert_bytes(&at("queries"), &queries, &global::<T>(&of.given(&q, d, &qw, &x.positions)).bytes);
        assert_eq!(status, Global::new(&[0, 0, 1, 32_i32]).bytes, "{}", at("status"));
    }
}

#[test]
fn calibrated_codecs() {
    mapped::<bf16>("kvfuse-4", 128, QWEN3);
    mapped::<f32>("kvfuse-2", 64, Rope { dims: 32, pairs: true, table_elem: 2, ..QWEN3 });
}

/// A row in f64, written down anew: no order of sums, no fused steps.
fn exact(x: &[f32], weight: &[f32], rope: &Rope, position: usize) -> Vec<f64> {
    let mut y: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    if rope.norm {
        let rms = (y.iter().map(|y| y * y).sum::<f64>() / y.len() as f64 + f64::from(EPSILON)).sqrt();
        y.iter_mut().for_each(|y| *y /= rms);
    }
    if rope.weights {
        y.iter_mut().zip(weight).for_each(|(y, w)| *y *= f64::from(*w));
    }
    let turned = y.clone();
    for i in 0..rope.dims {
        // Its partner, whether it is the pair's first, and the pair's number.
        let (other, first, pair) = if rope.pairs { (i ^ 1, i % 2 == 0, i / 2) } else { ((i + rope.dims / 2) % rope.dims, i < rope.dims / 2, i % (rope.dims / 2)) };
        let angle = position as f64 * 1e4_f64.powf(-2.0 * pair as f64 / rope.dims as f64);
        y[i] = turned[i] * angle.cos() + turned[other] * if first { -angle.sin() } else { angle.sin() };
    }
    y
}

#[test]
fn the_reference_is_what_f64_says() {
    let mut random = Random(5);
    for (d, dims, pairs) in [(128, 128, false), (128, 128, true), (128, 64, false), (64, 32, true), (256, 96, false), (64, 16, false)] {
        let rope = Rope { dims, pairs, ..QWEN3 };
        let (_, table) = table(&rope);
        let of = RopeTable { rope, table: &table, epsilon: EPSILON };
        for _ in 0..40 {
            let size = [1e-3, 1.0, 50.0][random.bits() as usize % 3];
            let x: Vec<f32> = random.gaussians(d).into_iter().map(|x| x * size).collect();
            let weight = random.gaussians(d);
            let position = random.bits() as usize % TURNS;
            let (got, want) = (of.rows(&x, d, &weight, &[position]), exact(&x, &weight, &rope, position));
            let top = want.iter().fold(0.0_f64, |top, y| top.max(y.abs()));
            for i in 0..d {
                // Six roundings to 2^-24, of numbers no larger than the row's largest.
                let off = (f64::from(got[i]) - want[i]).abs() / top;
                assert!(off < 6.0 / f64::from(1 << 24), "d {d} dims {dims} pairs {pairs} position {position} i {i}: {} for {}", got[i], want[i]);
            }
        }
    }
}
