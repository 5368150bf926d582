//! What the load kernel gives back of a cache: the reference's rows, bit for bit, at every stage. And the map of loaded
//! coordinates: near the reference's rows, at every stage alike.

#[path = "support/stages.rs"]
mod run;
mod support;

use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::kernels::back::{BackMeta, map_back};
use kernels_gen::kernels::{self, Elem as Memory, SEGMENT};
use kernels_gen::layout::Operand;
use kernels_gen::preset::preset;
use kernels_gen::reference::{self, CacheShape, Calibrated, Status};
use kernels_gen::registry::{CodecInfo, codec};
use run::{assert_bytes, buffer, interpreted, scalar, shuffled, stages};
use support::{Random, calibration};

const HEADS: usize = 2;
const PAGE: usize = 64;
/// What nobody stored or loaded.
const LEFT: f32 = -7.25;

/// Tokens in scattered slots, the third and the last of them nowhere.
struct Case {
    c: &'static CodecInfo,
    shape: CacheShape,
    slots: Vec<i64>,
    cache: Vec<u8>,
}

fn case(name: &str, d: usize, tokens: usize) -> Case {
    let (c, mut random) = (codec(name).unwrap(), Random(d as u64 + tokens as u64));
    let shape = CacheShape { pages: tokens.div_ceil(PAGE) + 1, page_tokens: PAGE, kv_heads: HEADS, d };
    let mut slots: Vec<i64> = shuffled(shape.pages * PAGE, &mut random).into_iter().take(tokens).map(|s| s as i64).collect();
    (slots[2], slots[tokens - 1]) = (-1, (shape.pages * PAGE) as i64);
    let (k, v) = (random.gaussians(tokens * HEADS * d), random.gaussians(tokens * HEADS * d));
    let mut cache = vec![0xa5; shape.bytes(c)];
    reference::store(c, &shape, &mut cache, &k, &v, &slots);
    Case { c, shape, slots, cache }
}

impl Case {
    /// The keys and the values that lie in the cache.
    fn wanted(&self) -> [Vec<f32>; 2] {
        let n = self.slots.len() * HEADS * self.shape.d;
        let (mut k, mut v) = (vec![LEFT; n], vec![LEFT; n]);
        let status = reference::load(self.c, &self.shape, &self.cache, &self.slots, &mut k, &mut v);
        assert_eq!(status, Status::BAD_SLOT);
        [k, v]
    }
}

fn loaded<T: Float>(name: &str, d: usize, tokens: usize, memory: Memory) {
    let case = case(name, d, tokens);
    let m = kernels::store_meta(case.c, d, PAGE, memory);
    let left: Vec<T> = vec![T::from_f32(LEFT); tokens * HEADS * d];
    let (cache, slots) = (Global::new(&case.cache), Global::new(&case.slots));
    let (mut k, mut v, mut status) = (Global::new(&left), Global::new(&left), Global::<i32>::zeroed(4));
    let grid = kernels::store_grid(tokens, HEADS);
    let mut args = vec![buffer(&cache), buffer(&slots), buffer(&k), buffer(&v), buffer(&status)];
    let count = (case.shape.pages * PAGE) as i64;
    args.extend([scalar(tokens as i32), scalar(HEADS as i32), scalar(count)]);
    launch(grid, || kernels::load::load::<T>(m, case.c.k.bands, case.c.v.bands, &cache, &slots, &mut k, &mut v, &mut status, tokens as i32, HEADS as i32, count));
    let wanted = case.wanted().map(|rows| {
        let rows: Vec<T> = rows.into_iter().map(T::from_f32).collect();
        Global::new(&rows).bytes
    });
    let what = format!("{name} d {d} {memory:?}");
    assert_eq!(status.to_vec(), [1, 0, 0, tokens as i32 - 1], "{what}");
    for (got, (half, wanted)) in [&k.bytes, &v.bytes].into_iter().zip(["keys", "values"].iter().zip(&wanted)) {
        assert_bytes(&format!("{what}: {half}, Rust"), got, wanted);
    }
    for stage in stages(kernels::load_ir(case.c, &m, memory).unwrap()) {
        let got = interpreted(&what, &stage, grid, args.clone());
        assert_bytes(&format!("{what}: keys, {} IR", stage.0), &got[2], &wanted[0]);
        assert_bytes(&format!("{what}: values, {} IR", stage.0), &got[3], &wanted[1]);
    }
}

#[test]
fn every_kind_of_codec_comes_back() {
    // planes of 8 to 128 bits and tails, transposed keys and values, wide and float lanes, offsets, units, bands
    let all = [
        "bf16",
        "int4",
        "int3",
        "int5",
        "int8",
        "int4_plain",
        "e8w4",
        "e8w3",
        "e8q38",
        "e8q7",
        "e8q200",
        "d4q38",
        "fp8_e4m3",
        "fp8_e4m3_token",
        "turboquant_k8v4",
        "turboquant_3bit_nc",
        "int4_per_token_head",
        "int4/bf16",
        "e8w5+e8w4+e8w4+e8w2/e8w5+e8w3",
        "intc6442/intc8521",
        "fp8_e4m3_64",
        "nvfp4",
        "mxfp4",
    ];
    for name in all {
        loaded::<f32>(name, 128, 37, Memory::F32);
    }
    for name in ["int4", "e8q38", "bf16"] {
        loaded::<f32>(name, 64, 5, Memory::F32);
        loaded::<bf16>(name, 256, 33, Memory::Bf16);
    }
    loaded::<f32>("int4", 512, 3, Memory::F32);
}

#[test]
fn loaded_coordinates_are_mapped_back() {
    for (d, tokens) in [(128, 35), (64, 9)] {
        let (fitted, p) = (calibration(d), preset("kvfuse-4").unwrap());
        let (c, maps, turns) = (p.codec().unwrap(), fitted.maps(p, 1).unwrap(), fitted.turns(4 * SEGMENT));
        let reference = Calibrated { codec: c, maps: &maps, turns: &turns };
        let mut random = Random(d as u64);
        let y = random.gaussians(2 * tokens * HEADS * d);
        let positions: Vec<i32> = (0..tokens).map(|_| (random.bits() % (4 * SEGMENT) as u64) as i32).collect();
        let mut slots = vec![0_i64; tokens];
        slots[1] = -1;
        let half = y.len() / 2;
        let wanted = [(Operand::K, &y[..half]), (Operand::V, &y[half..])].map(|(operand, y)| {
            let row = |(i, y): (usize, &[f32])| match slots[i / HEADS] {
                -1 => vec![LEFT; d],
                _ => reference.row_of(operand, y, i % HEADS, positions[i / HEADS] as usize),
            };
            y.chunks(d).enumerate().flat_map(row).collect::<Vec<f32>>()
        });
        let m = BackMeta { rows: 2, ..kernels::back_meta(d) };
        let turned: Vec<f32> = turns.pairs.iter().flat_map(|(cos, sin)| [*cos, *sin]).collect();
        let [gy, gt, gm] = [&y, &turned, &maps.backs()].map(|x| Global::new(x));
        let (gp, gs) = (Global::new(&positions), Global::new(&slots));
        let (mut k, mut v) = (Global::new(&vec![LEFT; half]), Global::new(&vec![LEFT; half]));
        let mut args = vec![buffer(&gy), buffer(&gp), buffer(&gs), buffer(&gt), buffer(&gm), buffer(&k), buffer(&v)];
        args.extend([tokens as i32, HEADS as i32, 4].map(scalar));
        let grid = kernels::back_grid(&m, tokens, HEADS);
        launch(grid, || map_back(m, &gy, &gp, &gs, &gt, &gm, &mut k, &mut v, tokens as i32, HEADS as i32, 4));
        for (got, wanted) in [&k, &v].into_iter().zip(&wanted) {
            let top = wanted.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
            let off = got.to_vec().iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
            assert!(off <= 1e-3 * top, "d {d}: off by {off} of {top}");
        }
        for stage in stages(kernels::back_ir(&m, Memory::F32).unwrap()) {
            let got = interpreted("back", &stage, grid, args.clone());
            assert_bytes(&format!("d {d}: keys, {} IR", stage.0), &got[5], &k.bytes);
            assert_bytes(&format!("d {d}: values, {} IR", stage.0), &got[6], &v.bytes);
        }
    }
}
