//! Lesson 5: a codec of one's own, and everything that comes with it.
//!
//! A codec says how eight coordinates become a code and how a code becomes eight small integers: three
//! pure functions and a handful of constants. The rest is shared by all codecs: rotation, packing, pages,
//! online softmax, the tensor core. So the twenty-five lines below are enough for a store kernel, fused
//! decode attention, a scalar reference that both equal bit for bit, and the codec's rate and distortion.
//!
//! This one keeps eight bits a coordinate: one step for each vector, its largest coordinate 127 steps.
//!
//! Cost: the cache takes 8 bits and 16 / d of side value a coordinate, half of bf16's.
//!
//!     cargo run --release --example 05_first_codec

#[path = "support/mod.rs"]
mod support;

use std::sync::LazyLock;

use kvfuse::kernel_dsl::prelude::*;
use kvfuse::kernel_dsl::tile::launch;
use kvfuse::kernels_gen::codec::{Codec, Spec};
use kvfuse::kernels_gen::kernels::{self, Elem};
use kvfuse::kernels_gen::reference::{self, CacheShape};
use kvfuse::kernels_gen::registry::CodecInfo;
use kvfuse::runtime::Arg;
use support::{Failure, gpu, numbers, same_bits, verdict};

#[derive(Debug)]
pub struct Int8;

#[codec]
impl Codec for Int8 {
    fn name(&self) -> String {
        "int8".into()
    }

    // 64 bits for eight coordinates, byte 128 stands for zero; rotated, one f16 side value a vector.
    fn spec(&self) -> Spec {
        Spec::integers(64, 256)
    }

    fn side(&self, _norm: f32, top: f32) -> [f32; 2] {
        [top / 127.0_f32, 0.0_f32]
    }

    fn encode(&self, y: [f32; 8], side: [f32; 2]) -> [u32; 4] {
        let mut code = [0_u32; 4];
        for i in 0..8 {
            let z = if side[0] > 0.0_f32 { y[i] / side[0] } else { 0.0_f32 };
            let byte = fmin(fmax(z.round_ties_even() + 128.0_f32, 0.0_f32), 255.0_f32) as u32;
            code[i / 4] = code[i / 4] | (byte << (8 * (i % 4)));
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

/// The codec as hosts know it, for keys and values.
static INT8: LazyLock<CodecInfo> = LazyLock::new(|| CodecInfo::of(&Int8));

/// One sequence, one kv head, four query heads that share it.
const TOKENS: usize = 700;
const D: usize = 64;
const GROUP: usize = 4;
const PAGE: usize = 64;

fn lesson() -> Result<(), Failure> {
    let pages = TOKENS.div_ceil(PAGE);
    let shape = CacheShape { pages, page_tokens: PAGE, kv_heads: 1, d: D };
    let (k, v, q) = (numbers(TOKENS * D, 8), numbers(TOKENS * D, 9), numbers(GROUP * D, 10));
    // The sequence takes the pages in reverse order; a token's slot is its page's number times PAGE, plus its place.
    let table: Vec<i32> = (0..pages as i32).rev().collect();
    let slots: Vec<i64> = (0..TOKENS).map(|t| (table[t / PAGE] as usize * PAGE + t % PAGE) as i64).collect();
    let (lens, scale) = ([TOKENS as i32], 1.0 / (D as f32).sqrt());

    // Rate and distortion: what a coordinate takes, and how far decoded rows are from rows.
    let rows = numbers(1000 * D, 11);
    let decoded = rows.chunks(D).flat_map(|row| INT8.k.decode_row(&INT8.k.encode_row(row), D));
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error = rows.iter().zip(decoded).map(|(a, b)| square(a - b)).sum::<f64>() / rows.iter().map(|x| square(*x)).sum::<f64>();
    println!("{}: {:.3} bits a coordinate, squared error {error:.1e} of the rows' square", INT8.name, INT8.stored_bits_per_element(D));

    // The scalar reference, made from the codec's own functions.
    let mut cache = vec![0; shape.bytes(&INT8)];
    reference::store(&INT8, &shape, &mut cache, &k, &v, &slots);
    let want = reference::decode(&INT8, &shape, &cache, &q, GROUP, &table, pages, &lens, scale);
    println!("{}: {} bytes of cache for {TOKENS} tokens, bf16 takes {}", INT8.name, cache.len(), pages * PAGE * D * 4);

    // The kernels, on the CPU.
    let (gk, gv, gs, gq) = (Global::new(&k), Global::new(&v), Global::new(&slots), Global::new(&q));
    let (mut gc, mut status) = (Global::<u8>::zeroed(cache.len()), Global::<i32>::zeroed(4));
    let (m, d) = (kernels::store_meta(&INT8, D, PAGE, Elem::F32), D as i64);
    let (n, slot_count) = (TOKENS as i32, (pages * PAGE) as i64);
    let grid = kernels::store_grid(TOKENS, 1);
    launch(grid, || kernels::store::store::<f32>(m, &[&Int8], &[&Int8], &gk, &gv, &gs, &mut gc, &mut status, n, 1, slot_count, d, d, d, d));
    same_bits("store: CPU kernel = reference", &gc.bytes, &cache)?;

    // One block takes up to 2048 tokens and more, and then writes the output itself: no parts, no join.
    let (mut part, mut stat) = (Global::<f32>::zeroed(0), Global::<f32>::zeroed(0));
    let mut chosen = Global::<i32>::zeroed(1);
    let (mut out, mut lse) = (Global::<f32>::zeroed(GROUP * D), Global::<f32>::zeroed(GROUP));
    let (gt, gl) = (Global::new(&table), Global::new(&lens));
    let (m, stride) = (kernels::decode_meta(&INT8, D, GROUP, PAGE), pages as i32);
    launch([1, 1, 1], || {
        kernels::decode_attention::decode_attention::<f32>(
            m,
            &[&Int8],
            &[&Int8],
            &gq,
            &Global::zeroed(0),
            &Global::zeroed(0),
            &gc,
            &gt,
            &gl,
            &mut out,
            &mut lse,
            &mut part,
            &mut stat,
            &mut chosen,
            &mut status,
            1,
            1,
            stride,
            stride,
            0,
            1,
            1,
            0,
            0,
            scale,
        )
    });
    same_bits("attention: CPU kernel = reference", &out.bytes, &Global::new(&want.out).bytes)?;

    // The kernels, on the GPU: store there, attend to what was stored.
    let source = kernels::store(&INT8, D, PAGE, Elem::F32)?;
    let (blank, flags) = (vec![0; cache.len()], vec![0; 16]);
    let scalars = [Arg::I32(n), Arg::I32(1), Arg::I64(slot_count), Arg::I64(d), Arg::I64(d), Arg::I64(d), Arg::I64(d)];
    let stored = gpu(&source, grid, &[&gk.bytes, &gv.bytes, &gs.bytes, &blank, &flags], &scalars)?;
    let source = kernels::decode_attention(&INT8, D, GROUP, PAGE, Elem::F32)?;
    let on_gpu = stored.as_ref().map_or(&cache, |back| &back[3]);
    let scalars = [1, 1, stride, stride, 0, 1, 1, 0].map(Arg::I32).into_iter().chain([Arg::F32(scale)]).collect::<Vec<_>>();
    let (outs, lses, none) = (vec![0xff; out.bytes.len()], vec![0xff; lse.bytes.len()], vec![0; 4]);
    let attended = gpu(&source, [1, 1, 1], &[&gq.bytes, on_gpu, &gt.bytes, &gl.bytes, &outs, &lses, &none, &none, &none, &flags], &scalars)?;
    if let (Some(stored), Some(attended)) = (stored, attended) {
        same_bits("store: GPU = reference", &stored[3], &cache)?;
        same_bits("attention: GPU = reference", &attended[4], &Global::new(&want.out).bytes)?;
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    verdict(lesson())
}
