//! Tunings choose who computes, never what.

use crate::buffers::*;
use crate::device;
use crate::problem::Problem;
use runtime::*;

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
