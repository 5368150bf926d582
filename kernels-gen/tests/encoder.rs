//! What the skeleton does beside a codec's own code: it tries several side values, and corrects them afterwards.
//! The scalar reference, the kernel's Rust function and every stage of its IR store the same bytes.
#![allow(clippy::needless_range_loop)]

mod support;

use kernel_dsl::ir::interp::{Arg, run};
use kernel_dsl::math::saturate;
use kernel_dsl::passes;
use kernel_dsl::prelude::*;
use kernel_dsl::tile::launch;
use kernels_gen::codec::{Codec, Spec};
use kernels_gen::kernels::{self, Elem as Memory};
use kernels_gen::reference::{self, CacheShape};
use kernels_gen::registry::{CodecInfo, Half, codec};
use support::{Random, relative_error2};

/// Sixteen levels of a fixed grid on rows of norm 1; the stored norm makes up for what coding did to theirs.
#[derive(Debug)]
struct Corrected;

/// Half the grid over a row's standard deviation, at D = 128.
const WIDEST: f32 = 2.7 / 11.313_708;

#[codec]
impl Codec for Corrected {
    fn name(&self) -> String {
        "corrected".into()
    }

    fn spec(&self) -> Spec {
        Spec { unit: true, corrected: true, ..Spec::integers(64, 15) }
    }

    fn side(&self, norm: f32, _top: f32) -> [f32; 2] {
        [norm, 0.0_f32]
    }

    fn correct(&self, side: [f32; 2], energy: f32) -> [f32; 2] {
        [side[0] * 2.0_f32 / energy.sqrt(), 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], _side: [f32; 2]) -> [u32; 4] {
        let mut code = [0_u32; 4];
        for i in 0..8 {
            let level = saturate(y[i].mul_add(0.5_f32 / WIDEST, 0.5_f32)) * 15.0_f32;
            code[i / 4] = code[i / 4] | ((level.round_ties_even() as u32) << (8 * (i % 4)));
        }
        code
    }

    fn decode(&self, code: [u32; 4]) -> [u32; 4] {
        code
    }

    fn scale(&self, side: [f32; 2]) -> f32 {
        side[0]
    }
}

fn rows(n: usize) -> Vec<f32> {
    let mut random = Random(21);
    (0..n).flat_map(|r| random.gaussians(128).into_iter().map(move |x| x * (0.01 * 1.3_f32.powi(r as i32 % 30)))).collect()
}

fn errors(c: &Half, x: &[f32]) -> Vec<f64> {
    x.chunks(128).map(|row| relative_error2(&c.decode_row(&c.encode_row(row), 128), row)).collect()
}

#[test]
fn more_tries_lose_less() {
    let x = rows(500);
    for (one, tried) in [("int2", "int2_tried"), ("int3", "int3_tried"), ("int4", "int4_tried"), ("e8w2", "e8w2_tried"), ("e8w3", "e8w3_tried"), ("e8w4", "e8w4_tried"), ("e8w5", "e8w5_tried")] {
        let mean = |name: &str| errors(&codec(name).unwrap().k, &x).iter().sum::<f64>() / 500.0;
        let (before, after) = (mean(one), mean(tried));
        println!("{one}: mean relative squared error {before:.4e}, of three tries {after:.4e}");
        assert!(after < before, "{tried}");
    }
}

#[test]
fn a_corrected_row_has_the_norm_of_its_input() {
    let c = Half::of(&Corrected);
    for row in rows(200).chunks(128) {
        let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let ratio = norm(&c.decode_row(&c.encode_row(row), 128)) / norm(row);
        assert!((ratio - 1.0).abs() < 2e-3, "{ratio}");
    }
}

fn stored(c: &CodecInfo, d: usize) {
    let (tokens, heads, pages) = (40_usize, 2_usize, 2_usize);
    let shape = CacheShape { pages, page_tokens: 64, kv_heads: heads, d };
    let slots: Vec<i64> = (0..tokens as i64).map(|t| if t == 7 { -1 } else { (t * 37) % 128 }).collect();
    let (k, v) = (Random(31).gaussians(tokens * heads * d), Random(32).gaussians(tokens * heads * d));
    let mut want = vec![0xee; shape.bytes(c)];
    reference::store(c, &shape, &mut want, &k, &v, &slots);

    let m = kernels::store_meta(c, d, 64, Memory::F32);
    let (ts, hs) = ((heads * d) as i64, d as i64);
    let (k, v, slots) = (Global::new(&k), Global::new(&v), Global::new(&slots));
    let (mut cache, mut status) = (Global::<u8>::new(&vec![0xee; want.len()]), Global::<i32>::zeroed(4));
    let grid = kernels::store_grid(tokens, heads);
    launch(grid, || kernels::store::store::<f32>(m, c.k.bands, c.v.bands, &k, &v, &slots, &mut cache, &mut status, tokens as i32, heads as i32, 128, ts, hs, ts, hs));
    assert!(cache.bytes == want, "{} d {d}: the kernel's Rust function", c.name);

    let tile = kernels::store_ir(c, &m, Memory::F32).unwrap();
    for program in [passes::run(&tile).unwrap(), tile] {
        let scalar = |x: i64| Arg::Scalar(x as u64);
        let buffers = [&k.bytes, &v.bytes, &slots.bytes, &vec![0xee; want.len()], &vec![0; 16]].map(|b| Arg::Buffer(b.clone()));
        let mut args: Vec<Arg> = buffers.into_iter().chain([tokens as i64, heads as i64, 128, ts, hs, ts, hs].map(scalar)).collect();
        run(&program, grid, &mut args).unwrap_or_else(|trap| panic!("{} d {d}: {trap}", c.name));
        assert!(args[3] == Arg::Buffer(want.clone()), "{} d {d}: lowered {}", c.name, program.lowered);
    }
}

#[test]
fn every_side_stores_the_same_bytes() {
    let corrected = CodecInfo::pair(&Corrected, codec("e8w2_tried").unwrap().k.bands[0]);
    for d in [64, 128] {
        stored(&corrected, d);
        stored(codec("int3_tried").unwrap(), d);
    }
    stored(codec("e8w3_tried/int2_tried").unwrap(), 128);
    stored(&corrected, 512);
}
