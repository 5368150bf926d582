//! IR as text, one statement a line, for people and for snapshot tests.

use super::*;
use std::fmt::Write;

/// The whole program.
pub fn print(p: &Program) -> String {
    let mut o = String::new();
    let stage = if p.lowered { "thread" } else { "tile" };
    let _ = writeln!(o, "{stage} program {} warps {} shared {} bytes", p.name, p.warps, p.shared_bytes);
    for (i, x) in p.params.iter().enumerate() {
        let _ = match x {
            Param::Buffer { name, dtype, writable } => writeln!(o, "  param {i} {name}: &{}Global<{}>", if *writable { "mut " } else { "" }, dtype.name()),
            Param::Scalar { name, dtype, id } => writeln!(o, "  param {i} {name}: {} = %{id}", dtype.name()),
        };
    }
    for (i, s) in p.shared.iter().enumerate() {
        let _ = writeln!(o, "  shared {i}: [{}; {}] at {}{}", s.dtype.name(), s.len, s.offset, s.over.map_or(String::new(), |ring| format!(" over ring {ring}")));
    }
    for (i, r) in p.rings.iter().enumerate() {
        let _ = writeln!(o, "  ring {i}: {} x {} bytes at {}", r.stages, r.bytes, r.offset);
    }
    for (i, s) in p.own.iter().enumerate() {
        let _ = writeln!(o, "  own {i}: {} x {}", s.places, ty(s.ty));
    }
    for (i, s) in p.kept.iter().enumerate() {
        let _ = writeln!(o, "  kept {i}: {} x {} a turn", s.len, ty(s.ty));
    }
    for (i, f) in p.funcs.iter().enumerate() {
        let _ = writeln!(o, "func {i} {}{:?} -> {:?}", f.name, f.params, f.results);
        block(&mut o, p, &f.body, 1);
    }
    let _ = writeln!(o, "body");
    block(&mut o, p, &p.body, 1);
    o
}

fn block(o: &mut String, p: &Program, stmts: &[Stmt], depth: usize) {
    for s in stmts {
        let pad = "  ".repeat(depth);
        let outs: Vec<String> = s.outs.iter().map(|i| format!("%{i}: {}", ty(p.ty(*i)))).collect();
        let eq = if outs.is_empty() { "" } else { " = " };
        let file = s.span.file.rsplit('/').next().unwrap_or_default();
        let at = if s.span.line == 0 { String::new() } else { format!("  // {file}:{}", s.span.line) };
        let _ = match &s.op {
            Op::If { cond, then, other } => {
                let _ = writeln!(o, "{pad}if %{cond} {{{at}");
                block(o, p, then, depth + 1);
                if !other.is_empty() {
                    let _ = writeln!(o, "{pad}}} else {{");
                    block(o, p, other, depth + 1);
                }
                writeln!(o, "{pad}}}")
            }
            Op::For { var, lo, hi, step, stages, body } => {
                let _ = writeln!(o, "{pad}for %{var} in %{lo}..%{hi} step %{step} stages {stages} {{{at}");
                block(o, p, body, depth + 1);
                writeln!(o, "{pad}}}")
            }
            Op::ParFor { par, var, count, body } => {
                let _ = writeln!(o, "{pad}for %{var} in {par:?}(%{count}) {{{at}");
                block(o, p, body, depth + 1);
                writeln!(o, "{pad}}}")
            }
            op => writeln!(o, "{pad}{}{eq}{op:?}{at}", outs.join(", ")),
        };
    }
}

fn ty(t: Ty) -> String {
    match t {
        Ty::Scalar(d) => d.name().into(),
        Ty::Tile { dtype, rows, cols, layout } => format!("{}[{rows}, {cols}] {layout:?}", dtype.name()),
    }
}
