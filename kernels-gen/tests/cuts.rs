//! How decode kernels are cut for devices: registers are dealt out by blocks an SM that its shared memory lets in.

use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::{calibrated_meta, decode_meta, kivi};
use kernels_gen::registry::{codec, codecs};

/// Bytes of shared memory that a block may have: sm_90a and sm_100a, sm_80, sm_89 and sm_120a.
const DEVICES: [usize; 3] = [227 * 1024, 163 * 1024, 99 * 1024];

fn metas() -> Vec<(String, DecodeMeta)> {
    let mut all = vec![];
    for c in codecs() {
        for (d, group) in [64, 128, 256].into_iter().flat_map(|d| [1, 4, 5, 8, 16].map(|group| (d, group))) {
            all.push((format!("{} d{d} group{group}", c.name), decode_meta(c, d, group, 64)));
        }
    }
    for name in ["intc4211/intc3311", "intc6442", "intc7764"] {
        let c = codec(name).unwrap();
        all.extend([1, 4, 8, 16].map(|group| (format!("{name} group{group}"), calibrated_meta(c, 128, group, 64))));
    }
    for name in ["kivi_k2v2", "kivi_k4v4"] {
        let c = kernels_gen::kivi::open(name).unwrap();
        all.extend([1, 4, 8].map(|group| (format!("{name} group{group}"), kivi::decode_meta(c, 128, group, 64))));
    }
    all
}

#[test]
fn as_many_blocks_as_fit() {
    for (name, m) in metas() {
        for shared in DEVICES {
            let cut = m.within(shared);
            // Where a single warp does not fit, loading its kernel says so.
            assert!((cut.warps, cut.stages) == (1, 2) || cut.min_blocks * (cut.shared() + 1024) <= shared + 1024, "{name} in {shared}: {} blocks of {} bytes", cut.min_blocks, cut.shared());
            assert!(cut.warps * cut.min_blocks <= m.warps * m.min_blocks, "{name} in {shared}");
            // Cutting again changes nothing: a plan and the compile gate come to the same kernel.
            assert_eq!(cut.within(shared), cut, "{name} in {shared}");
        }
        assert_eq!(m.within(DEVICES[0]), m, "{name}");
        assert!(m.within(DEVICES[1]).warps * m.within(DEVICES[1]).min_blocks <= 12, "{name}");
    }
}
