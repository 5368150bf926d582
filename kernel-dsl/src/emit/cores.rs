//! Products whose operands stay in shared memory. sm_90a: `wgmma`, what lies in cores by a descriptor without a swizzle, lines by one of 128 bytes, all
//! of one product's instructions under way together. Elsewhere each warp reads the same bytes by `ldmatrix` for `mma.sync`.

use crate::ir::*;
use crate::passes::simplify::inner;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Functions of a program by their names.
pub fn functions(stmts: &[Stmt]) -> BTreeMap<String, String> {
    let own = |s: &Stmt| match &s.op {
        Op::MmaCores { .. } => Some((name(s), of_cores(s))),
        Op::MmaLines(x) => Some((name(s), of_lines(x, &name(s)))),
        _ => None,
    };
    stmts.iter().flat_map(|s| own(s).into_iter().chain(inner(&s.op).into_iter().flat_map(|b| functions(b)))).collect()
}

/// Name of a statement's function: what tells one from another.
pub fn name(s: &Stmt) -> String {
    match &s.op {
        Op::MmaCores { kind, steps, c, .. } => {
            let (tiles, n) = sizes(s);
            format!("{}_cores_{tiles}x{n}x{steps}{}", super::stmt::mma_name(*kind), if c.is_empty() { "_anew" } else { "" })
        }
        Op::MmaLines(x) => format!("{}_lines_{}x{}_{}", super::stmt::mma_name(x.kind), x.n, x.planes, x.together),
        _ => String::new(),
    }
}

/// Rows / 16 and columns.
fn sizes(s: &Stmt) -> (usize, usize) {
    let Op::MmaCores { a, steps, .. } = &s.op else { return (0, 0) };
    let tiles = a.len() / (4 * steps);
    (tiles, s.outs.len() / (4 * tiles) * 8)
}

fn types(kind: MmaKind) -> &'static str {
    match kind {
        MmaKind::U8U8 => "u8.u8",
        MmaKind::U8S8 => "u8.s8",
        MmaKind::S8U8 => "s8.u8",
        _ => "s8.s8",
    }
}

fn list(from: usize, len: usize) -> String {
    (from..from + len).map(|i| format!("%{i}")).collect::<Vec<String>>().join(",")
}

/// Cores and lines in shared memory for the tensor core: neighbouring cores along k are 128 bytes apart. From one lane, so that the compiler knows
/// that all have the same.
const CORES: &str = "(u64)(__shfl_sync(~0u, shared_addr(b), 0) >> 4) | 8ull << 16 | (u64)(stride >> 4) << 32";
const LINES: &str = "(u64)(__shfl_sync(~0u, shared_addr(x), 0) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62";

/// Left operands in registers, right ones in cores. Without sums to start from the first step makes them.
fn of_cores(s: &Stmt) -> String {
    let Op::MmaCores { kind, steps, c, .. } = &s.op else { return String::new() };
    let (mma, steps, (tiles, n), anew) = (super::stmt::mma_name(*kind), *steps, sizes(s), c.is_empty());
    let (sums, lefts, own) = (tiles * n / 2, tiles * steps * 4, n / 2);
    let mut o = String::new();
    let _ = writeln!(o, "INLINE void {}(i32 (&d)[{sums}], const u32 (&a)[{lefts}], const u8* b, u32 stride) {{\n#ifdef __CUDA_ARCH_FEAT_SM90_ALL", name(s));
    let _ = writeln!(o, "  const u64 at = {CORES};\n  asm volatile(\"{{\\n.reg .b64 at;\\nwgmma.fence.sync.aligned;\\n\"");
    for (ks, mt) in (0..steps).flat_map(|ks| (0..tiles).map(move |mt| (ks, mt))) {
        let (d, a) = (list(mt * own, own), list(sums + (mt * steps + ks) * 4, 4));
        let _ = writeln!(o, "    \"add.s64 at, %{}, {};\\nwgmma.mma_async.sync.aligned.m64n{n}k32.s32.{} {{{d}}}, {{{a}}}, at, {};\\n\"", sums + lefts, 16 * ks, types(*kind), usize::from(ks > 0 || !anew));
    }
    let outs: Vec<String> = (0..sums).map(|i| format!("\"{}r\"(d[{i}])", if anew { "=&" } else { "+" })).collect();
    let ins: Vec<String> = (0..lefts).map(|i| format!("\"r\"(a[{i}])")).collect();
    let _ = writeln!(o, "    \"wgmma.commit_group.sync.aligned;\\nwgmma.wait_group.sync.aligned 0;\\n}}\" : {} : {}, \"l\"(at));\n#else", outs.join(", "), ins.join(", "));
    if anew {
        let _ = writeln!(o, "  _Pragma(\"unroll\") for (int i = 0; i < {sums}; i++) d[i] = 0;");
    }
    let _ = writeln!(o, "  _Pragma(\"unroll\") for (int n = 0; n < {}; n++) _Pragma(\"unroll\") for (int k = 0; k < {steps}; k += 2) {{", n / 8);
    let _ = writeln!(o, "    u32 w0, w1, w2, w3; ldmatrix_x4(w0, w1, w2, w3, b + n * stride + k * 256 + (threadIdx.x & 31) * 16);");
    let _ = writeln!(o, "    _Pragma(\"unroll\") for (int m = 0; m < {tiles}; m++) {{ i32* s = d + m * {own} + n * 4; const u32* v = a + (m * {steps} + k) * 4;");
    let _ = writeln!(o, "      {mma}(s[0], s[1], s[2], s[3], v[0], v[1], v[2], v[3], w0, w1, s[0], s[1], s[2], s[3]);");
    let _ = writeln!(o, "      {mma}(s[0], s[1], s[2], s[3], v[4], v[5], v[6], v[7], w2, w3, s[0], s[1], s[2], s[3]);\n    }}\n  }}\n#endif\n}}");
    o
}

/// Left operands in cores, right ones in lines.
fn of_lines(x: &Lines, name: &str) -> String {
    let (mma, sums, steps) = (super::stmt::mma_name(x.kind), x.n / 2, 4 * x.planes);
    let mut o = String::new();
    let _ = writeln!(o, "INLINE void {name}(i32 (&d)[{sums}], const u8* b, u32 stride, const u8* x, u32 plane) {{");
    if x.together == 4 {
        // All four warps name the first one's rows.
        let _ = writeln!(o, "#ifdef __CUDA_ARCH_FEAT_SM90_ALL\n  b -= (threadIdx.x >> 5 & 3) * 2 * stride;\n  const u64 at = {CORES}, lines = {LINES};");
        let _ = writeln!(o, "  asm volatile(\"{{\\n.reg .b64 at, lines;\\nwgmma.fence.sync.aligned;\\n\"");
        for ks in 0..steps {
            let _ = writeln!(
                o,
                "    \"add.s64 at, %{sums}, {};\\nadd.s64 lines, %{}, {};\\nwgmma.mma_async.sync.aligned.m64n{}k32.s32.{} {{{}}}, at, lines, {};\\n\"",
                16 * ks,
                sums + 1,
                ks / 4 * (x.plane / 16) + ks % 4 * 2,
                x.n,
                types(x.kind),
                list(0, sums),
                usize::from(ks > 0)
            );
        }
        let outs: Vec<String> = (0..sums).map(|i| format!("\"=r\"(d[{i}])")).collect();
        let _ = writeln!(o, "    \"wgmma.commit_group.sync.aligned;\\nwgmma.wait_group.sync.aligned 0;\\n}}\" : {} : \"l\"(at), \"l\"(lines));\n  return;\n#endif", outs.join(", "));
    }
    let _ = writeln!(o, "  const u32 l = threadIdx.x & 31, row = l & 7, q = l >> 3;\n  _Pragma(\"unroll\") for (int i = 0; i < {sums}; i++) d[i] = 0;");
    let _ = writeln!(o, "  for (int j = 0; j < {}; j++) {{\n    u32 a0, a1, a2, a3, a4, a5, a6, a7; const u8* left = b + (q & 1) * stride + (q >> 1) * 128 + row * 16 + j * 512;", 2 * x.planes);
    let _ = writeln!(o, "    ldmatrix_x4(a0, a1, a2, a3, left); ldmatrix_x4(a4, a5, a6, a7, left + 256);");
    let _ = writeln!(o, "    _Pragma(\"unroll\") for (int n = 0; n < {}; n++) {{ i32* s = d + n * 4; u32 w0, w1, w2, w3;", x.n / 8);
    let _ = writeln!(o, "      ldmatrix_x4(w0, w1, w2, w3, x + (j >> 1) * plane + (8 * n + row) * 128 + (((j & 1) * 4 + q ^ row) << 4));");
    let _ = writeln!(o, "      {mma}(s[0], s[1], s[2], s[3], a0, a1, a2, a3, w0, w1, s[0], s[1], s[2], s[3]);");
    let _ = writeln!(o, "      {mma}(s[0], s[1], s[2], s[3], a4, a5, a6, a7, w2, w3, s[0], s[1], s[2], s[3]);\n    }}\n  }}\n}}");
    o
}
