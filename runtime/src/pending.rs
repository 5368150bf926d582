//! Stand-ins until kernel_dsl::Source and kernels_gen::kernels exist. To be deleted.
#![allow(missing_docs, clippy::missing_errors_doc)]
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub cuda: String,
    pub threads: u32,
    pub shared_bytes: u32,
    pub min_blocks: u32,
}
pub mod kernels {
    use super::Source;
    use kernels_gen::registry::CodecInfo;
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Elem {
        Bf16,
        F32,
    }
    pub const SEGMENT: usize = 1024;
    #[derive(Debug)]
    pub struct Report;
    impl std::fmt::Display for Report {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("pending")
        }
    }
    fn stub(name: &str, args: &str) -> Source {
        Source {
            name: name.into(),
            cuda: format!("extern \"C\" __global__ void {name}({args}) {{}}\n"),
            threads: 32,
            shared_bytes: 0,
            min_blocks: 1,
        }
    }
    pub fn store(_c: &CodecInfo, _d: usize, _page: usize, _e: Elem) -> Result<Source, Report> {
        Ok(stub("store", "unsigned long long k, unsigned long long v, unsigned long long slots, unsigned long long cache, unsigned long long status, int tokens, int kv_heads, long long n, long long a, long long b, long long c, long long d"))
    }
    pub fn store_grid(tokens: usize, kv_heads: usize) -> [u32; 3] {
        [tokens as u32, kv_heads as u32, 1]
    }
    pub fn decode_attention(_c: &CodecInfo, _d: usize, _g: usize, _page: usize, _e: Elem) -> Result<Source, Report> {
        Ok(stub("decode", "unsigned long long q, unsigned long long cache, unsigned long long table, unsigned long long lens, unsigned long long part, unsigned long long stat, unsigned long long status, int a, int b, int c, int d, int e, float f"))
    }
    pub fn join_splits(_c: &CodecInfo, _d: usize, _e: Elem) -> Result<Source, Report> {
        Ok(stub("join", "unsigned long long part, unsigned long long stat, unsigned long long lens, unsigned long long out, unsigned long long lse, int a, int b, int c"))
    }
}
