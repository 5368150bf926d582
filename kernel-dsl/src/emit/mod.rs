//! Thread IR to CUDA C++. The printer is plain: one statement an operation, `#line` back to Rust.
//!
//! The prelude is header-free, so NVRTC needs no CUDA include directory.

mod cores;
mod expr;
mod stmt;

use crate::ir::*;
use std::fmt::Write;

/// The prelude, in the order the parts need each other.
pub const PRELUDE: [(&str, &str); 5] = [
    ("num", include_str!("../../prelude/num.cuh")),
    ("warp", include_str!("../../prelude/warp.cuh")),
    ("mma", include_str!("../../prelude/mma.cuh")),
    ("own", include_str!("../../prelude/own.cuh")),
    ("ring", include_str!("../../prelude/ring.cuh")),
];

/// What few kernels call, in the texts of those alone.
const BYTES: (&str, [&str; 2]) = (include_str!("../../prelude/bytes.cuh"), ["add_dot4(", "shifted_out("]);

/// The text NVRTC compiles.
pub fn cuda(p: &Program) -> String {
    let mut own = String::new();
    for f in &p.funcs {
        function(&mut own, p, f);
    }
    cores::functions(&p.body).values().for_each(|text| own.push_str(text));
    kernel(&mut own, p);
    let mut o = String::from("#define INLINE_MEMBER __device__ __forceinline__\n");
    for (_, text) in PRELUDE {
        o.push_str(text);
    }
    if BYTES.1.iter().any(|call| own.contains(call)) {
        o.push_str(BYTES.0);
    }
    o + &own
}

fn function(o: &mut String, p: &Program, f: &Func) {
    let params: Vec<String> = f.params.iter().map(|i| format!("{} v{i}", p.ty(*i).reg_dtype().cuda())).collect();
    let outs: Vec<String> = (0..f.results.len()).map(|i| format!("u32& r{i}")).collect();
    let _ = writeln!(o, "INLINE void {}({}, {}) {{", f.name, params.join(", "), outs.join(", "));
    stmt::Printer { p, line: None }.block(o, &f.body, 1);
    for (i, r) in f.results.iter().enumerate() {
        let _ = writeln!(o, "  r{i} = v{r};");
    }
    o.push_str("}\n");
}

/// What bounds a thread's registers.
pub(crate) fn bounds(threads: usize, blocks: usize) -> String {
    format!("__launch_bounds__({threads}, {blocks})")
}

fn kernel(o: &mut String, p: &Program) {
    let params: Vec<String> = p
        .params
        .iter()
        .map(|x| match x {
            Param::Buffer { name, writable: true, .. } => format!("u8* __restrict__ {name}"),
            Param::Buffer { name, .. } => format!("const u8* __restrict__ {name}"),
            Param::Scalar { dtype, id, .. } => format!("{} v{id}", dtype.cuda()),
        })
        .collect();
    let _ = writeln!(o, "extern \"C\" __global__ void {} {}({}) {{", bounds(p.threads(), p.min_blocks.max(1)), p.name, params.join(", "));
    for (i, r) in p.rings.iter().enumerate() {
        let _ = writeln!(o, "  Ring<{}, {}> ring{i}; ring{i}.init({}, {});", r.stages, r.bytes, r.offset, r.barriers);
    }
    for (i, own) in p.own.iter().enumerate().filter(|(_, own)| own.places > 0) {
        let _ = writeln!(o, "  __align__(16) u8 memory{i}[{}]; const u64 own{i} = own_at(memory{i});", own.places * own.bytes());
    }
    stmt::Printer { p, line: None }.block(o, &p.body, 1);
    o.push_str("}\n");
}
