//! Which kernels a codec's numbers belong to: the hash of the CUDA text that the GPU would run.

use serde::{Deserialize, Serialize};

use crate::attention::{Geometry, PAGE_TOKENS};
use crate::emit::{self, Kernel, Number, Stage};
use crate::ppl::Subject;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KernelId {
    pub codec: String,
    /// sha256 of the text of `store`; None where no kernel takes this shape
    pub store: Option<String>,
    pub decode_attention: Option<String>,
}

/// One entry for each codec of a run that has kernels.
pub fn kernels(subjects: &[Subject], geometry: &Geometry) -> Vec<KernelId> {
    let mut ids: Vec<KernelId> = Vec::new();
    for codec in subjects.iter().filter_map(Subject::codec) {
        if ids.iter().any(|id| id.codec == codec) {
            continue;
        }
        let hash = |kernel| {
            let options = emit::Options { kernel, codec: codec.into(), stage: Stage::Cuda, d: geometry.d, group: geometry.heads / geometry.kv_heads, page_tokens: PAGE_TOKENS, elem: Number::F32, arch: "sm_90a".into(), out: None };
            emit::run(&options).ok().map(|text| crate::model::sha256(text.as_bytes()))
        };
        let (store, decode_attention) = (hash(Kernel::Store), hash(Kernel::DecodeAttention));
        if store.is_some() || decode_attention.is_some() {
            ids.push(KernelId { codec: codec.into(), store, decode_attention });
        }
    }
    ids
}
