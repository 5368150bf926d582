//! The kernels of the forward pass compile for every served arch, and none spills.

use kernel_dsl::{Report, Source};
use kernels_gen::kernels::forward::attention::AttentionMeta;
use kernels_gen::kernels::forward::heads::HeadsMeta;
use kernels_gen::kernels::forward::{self};
use runtime::Arch;

use super::configs::ARCHS;
use super::proven::{prove, record};

fn sources(arch: Arch) -> Vec<(String, Result<Source, Report>)> {
    let mut all = vec![
        ("norm 256".into(), forward::norm(256)),
        ("norm 896".into(), forward::norm(896)),
        ("gate".into(), forward::gate(1024)),
        ("shift".into(), forward::shift(256)),
        ("scatter".into(), forward::scatter(256)),
        ("gather".into(), forward::gather(256)),
        ("reorder".into(), forward::reorder(128)),
        ("scores".into(), forward::scores()),
        ("distances".into(), forward::distances(128)),
        ("same_bytes".into(), forward::same_bytes()),
    ];
    for (half, norm, bias) in [(32, false, true), (64, true, false), (128, true, true)] {
        let m = HeadsMeta { half, heads: 8, kv_heads: 2, norm, bias };
        all.push((format!("{m:?}"), forward::heads(&m)));
    }
    for (d, keys) in [(64, 64), (128, 64), (128, 16), (256, 32), (256, 16)] {
        for group in [1, 4, 7, 16] {
            let m = AttentionMeta::of(d, group, keys, arch.shared_bytes());
            all.push((format!("{m:?}"), forward::attention(&m)));
        }
    }
    all
}

#[test]
fn the_forward_pass_compiles_without_spills() {
    let _machine = super::beside_others();
    if let Err(why) = runtime::nvrtc::version() {
        return println!("SKIPPED the_forward_pass_compiles_without_spills: {why}");
    }
    let mut wrong = vec![];
    for arch in ARCHS {
        for (name, source) in sources(arch) {
            let source = source.unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(source.shared_bytes as usize <= arch.shared_bytes(), "{arch} {name}: {} bytes", source.shared_bytes);
            let (proof, _) = prove("forward", &source.within(arch.shared_bytes()), arch, false).unwrap_or_else(|why| panic!("{name}: {why}"));
            println!("{arch} {name}: {} registers, {} bytes spilt", proof.registers, proof.spill_bytes);
            if proof.spill_bytes > 0 {
                wrong.push(format!("{arch} {name} spills {} bytes", proof.spill_bytes));
            }
        }
    }
    record("forward", true);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
