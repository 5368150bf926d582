//! The kernels of several query tokens a sequence: few that spill, and those little.

use kernel_dsl::Source;
use kernels_gen::kernels::Elem;
use kernels_gen::kernels::chunk::{calibrated_chunk_meta, chosen, chunk_ir, chunk_meta};
use kernels_gen::kernels::prefill_attention::{calibrated_prefill_meta, join_queries_ir, join_queries_meta, prefill_ir, prefill_meta};
use kernels_gen::preset::PRESETS;
use kernels_gen::registry::{codec, codecs};
use runtime::Arch;

use super::proven::{prove, record};

/// Bytes of spills, stores and loads, that a kernel may have on sm_90a at head dims up to 128, and elsewhere.
const GATE: u32 = 480;
const CEILING: u32 = 4096;

/// Head dim, group, query tokens.
const SHAPES: [(usize, usize, usize); 8] = [(128, 4, 2), (128, 4, 4), (128, 4, 2048), (128, 1, 4), (128, 8, 2), (128, 16, 2048), (64, 4, 4), (256, 4, 4)];

#[test]
fn kernels_of_many_queries_compile() {
    let _machine = super::beside_others();
    if let Err(why) = runtime::nvrtc::version() {
        return println!("SKIPPED kernels_of_many_queries_compile: {why}");
    }
    let mut wrong = vec![];
    for arch in [Arch::SM_90A, Arch::SM_80, Arch::new(12, 0)] {
        let shapes = if arch == Arch::SM_90A { &SHAPES[..] } else { &SHAPES[1..3] };
        let plain = codecs().iter().map(|&c| (c, false));
        let presets = PRESETS.iter().map(|p| (p.codec().expect("its bands"), true));
        for (c, calibrated) in plain.chain(presets) {
            for &(d, group, queries) in shapes {
                let name = format!("{arch} {} d{d} group{group} queries{queries}", c.name);
                if calibrated && d < 128 {
                    continue;
                }
                let of = if calibrated { calibrated_prefill_meta } else { prefill_meta };
                let m = of(c, d, group, queries, 64).within(arch.shared_bytes());
                let join = join_queries_ir(c, &join_queries_meta(&m), Elem::Bf16);
                for (kernel, program) in [("attend", prefill_ir(c, &m, Elem::Bf16)), ("join", join)] {
                    let source = program.and_then(|p| Source::of(&p)).unwrap_or_else(|e| panic!("{name}: {e}"));
                    let (proof, _) = prove("queries", &source.within(arch.shared_bytes()), arch, false).unwrap_or_else(|e| panic!("{name}: {e}"));
                    let spilt = proof.spill_bytes;
                    println!("{name} {kernel}: {} registers, {spilt} bytes spilt", proof.registers);
                    let gated = arch == Arch::SM_90A && d <= 128;
                    if spilt > if gated { GATE } else { CEILING } {
                        wrong.push(format!("{name} {kernel} spills {spilt} bytes"));
                    }
                }
            }
        }
    }
    record("queries", true);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The kernel of long chunks spills next to nothing, and that outside of its loop.
#[test]
fn kernels_of_chunks_compile() {
    let _machine = super::beside_others();
    if let Err(why) = runtime::nvrtc::version() {
        return println!("SKIPPED kernels_of_chunks_compile: {why}");
    }
    let named = ["int2", "int3", "int5", "int6", "int8", "turboquant_4bit_nc", "int4_per_token_head", "e8q38/int4"];
    let named = named.iter().map(|name| codec(name).unwrap_or_else(|e| panic!("{name}: {e}")));
    let presets = PRESETS.iter().map(|p| (p.codec().expect("its bands"), true));
    let mut wrong = vec![];
    for (c, calibrated) in codecs().iter().copied().chain(named).map(|c| (c, false)).chain(presets) {
        let of = if calibrated { calibrated_chunk_meta } else { chunk_meta };
        for (d, group, elem) in [(128, 4, Elem::Bf16), (128, 8, Elem::Bf16), (128, 1, Elem::F32), (64, 4, Elem::Bf16)].into_iter().filter(|shape| !calibrated || shape.0 == 128) {
            if !chosen(c, d, group, 2048, 227 * 1024) {
                continue;
            }
            let name = format!("{} d{d} group{group}", c.name);
            let source = chunk_ir(c, &of(c, d, group, 64), elem).and_then(|p| Source::of(&p)).unwrap_or_else(|e| panic!("{name}: {e}"));
            let (proof, _) = prove("chunks", &source, Arch::SM_90A, false).unwrap_or_else(|e| panic!("{name}: {e}"));
            let spilt = proof.spill_bytes;
            println!("{name}: {} registers, {spilt} bytes spilt", proof.registers);
            // Maps, and where a segment begins, take a word more.
            if spilt > if calibrated { 40 } else { 32 } {
                wrong.push(format!("{name} spills {spilt} bytes"));
            }
        }
    }
    record("chunks", true);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
