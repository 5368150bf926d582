//! Statements of thread IR.

use super::{cores, expr};
use crate::dtype::DType;
use crate::ir::*;
use crate::passes::simplify::inner;
use std::fmt::{self, Write};

/// Statements, those of branches and loops inside included.
fn weight(stmts: &[Stmt]) -> usize {
    stmts.iter().map(|s| 1 + inner(&s.op).into_iter().map(|b| weight(b)).sum::<usize>()).sum()
}

/// The prelude's function for 16 rows and eight columns.
pub fn mma_name(kind: MmaKind) -> &'static str {
    match kind {
        MmaKind::U8S8 => "mma_u8s8",
        MmaKind::U8U8 => "mma_u8u8",
        MmaKind::S8S8 => "mma_s8s8",
        MmaKind::S8U8 => "mma_s8u8",
        MmaKind::Bf16 => "mma_bf16",
        MmaKind::F16 => "mma_f16",
    }
}

pub struct Printer<'a> {
    pub p: &'a Program,
    pub line: Option<Span>,
}

impl Printer<'_> {
    pub fn block(&mut self, o: &mut String, stmts: &[Stmt], depth: usize) {
        let pad = "  ".repeat(depth);
        for s in stmts {
            if self.line != Some(s.span) && s.span.line > 0 {
                let _ = writeln!(o, "#line {} \"{}\"", s.span.line, s.span.file);
                self.line = Some(s.span);
            }
            self.stmt(o, s, &pad, depth);
        }
    }

    fn d(&self, id: Id) -> DType {
        self.p.ty(id).dtype()
    }

    /// Address of a byte offset in a buffer.
    fn address(&self, buf: &Buf, at: Id) -> String {
        match buf {
            Buf::Param(i) => match &self.p.params[*i] {
                Param::Buffer { name, .. } | Param::Scalar { name, .. } => format!("{name} + v{at}"),
            },
            Buf::Shared(i) => format!("smem + {} + v{at}", self.p.shared[*i].offset),
            Buf::Own(i) => format!("own{i} + v{at}"),
            Buf::Slot(_, handle) => format!("slot{handle} + v{at}"),
        }
    }

    fn reads(&self, buf: &Buf) -> &'static str {
        match buf {
            Buf::Param(i) if matches!(self.p.params[*i], Param::Buffer { writable: false, .. }) => "const ",
            _ => "",
        }
    }

    fn stmt(&mut self, o: &mut String, s: &Stmt, pad: &str, depth: usize) {
        let _ = match &s.op {
            Op::VarNew(v) => writeln!(o, "{pad}{} v{} = v{v};", self.d(*v).cuda(), s.outs[0]),
            Op::VarSet(var, v) => writeln!(o, "{pad}v{var} = v{v};"),
            Op::Store { buf, at, value } => writeln!(o, "{pad}*({}*)({}) = v{value};", self.d(*value).cuda(), self.address(buf, *at)),
            Op::If { cond, then, other } => {
                let _ = writeln!(o, "{pad}if (v{cond}) {{");
                self.block(o, then, depth + 1);
                if !other.is_empty() {
                    let _ = writeln!(o, "{pad}}} else {{");
                    self.block(o, other, depth + 1);
                }
                writeln!(o, "{pad}}}")
            }
            Op::For { var, lo, hi, step, body, .. } => {
                // Small loops overlap their loads when unrolled; large ones only grow.
                let unroll = if body.len() < 64 && weight(body) < 400 && !body.iter().any(|s| matches!(s.op, Op::For { .. })) { 4 } else { 1 };
                let _ = writeln!(o, "{pad}#pragma unroll {unroll}\n{pad}for (i32 v{var} = v{lo}; v{var} < v{hi}; v{var} += v{step}) {{");
                self.block(o, body, depth + 1);
                writeln!(o, "{pad}}}")
            }
            Op::Call { func, args } => {
                let outs: Vec<String> = s.outs.iter().map(|i| format!("v{i}")).collect();
                let args: Vec<String> = args.iter().map(|i| format!("v{i}")).collect();
                writeln!(o, "{pad}u32 {}; {}({}, {});", outs.join(", "), self.p.funcs[*func].name, args.join(", "), outs.join(", "))
            }
            Op::MmaRegs { kind, a, b, c } => {
                let name = mma_name(*kind);
                let outs: Vec<String> = s.outs.iter().map(|i| format!("v{i}")).collect();
                let ins: Vec<String> = a.iter().chain(b).chain(c).map(|i| format!("v{i}")).collect();
                let t = self.d(s.outs[0]).cuda();
                writeln!(o, "{pad}{t} {}; {name}({}, {});", outs.join(", "), outs.join(", "), ins.join(", "))
            }
            Op::MmaCores { a, c, buf, at, stride, .. } => {
                let all = |ids: &[Id]| ids.iter().map(|i| format!("v{i}")).collect::<Vec<String>>().join(", ");
                let (name, first) = (cores::name(s), s.outs[0]);
                let start = if c.is_empty() { String::new() } else { format!(" = {{{}}}", all(c)) };
                let _ = writeln!(o, "{pad}i32 d{first}[{}]{start}; const u32 a{first}[] = {{{}}}; {name}(d{first}, a{first}, {}, {stride});", s.outs.len(), all(a), self.address(buf, *at));
                self.from_array(o, s, pad)
            }
            Op::MmaLines(x) => {
                let (name, first) = (cores::name(s), s.outs[0]);
                let _ = writeln!(o, "{pad}i32 d{first}[{}]; {name}(d{first}, {}, {}, {}, {});", s.outs.len(), self.address(&x.a, x.at), x.stride, self.address(&x.x, x.x_at), x.plane);
                self.from_array(o, s, pad)
            }
            Op::LoadVec { buf, at, words } => {
                let (t, address) = (["", "u32", "uint2", "", "uint4"][*words], self.address(buf, *at));
                let first = s.outs[0];
                let _ = match buf {
                    Buf::Own(_) => writeln!(o, "{pad}const {t} w{first} = own_get{words}({address});"),
                    _ => writeln!(o, "{pad}const {t} w{first} = *({}{t}*)({address});", self.reads(buf)),
                };
                for (i, out) in s.outs.iter().enumerate() {
                    let field = if *words == 1 { String::new() } else { format!(".{}", ["x", "y", "z", "w"][i]) };
                    let d = self.d(*out);
                    let _ = writeln!(o, "{pad}const {} v{out} = {};", d.cuda(), expr::bitcast(DType::U32, d, &format!("w{first}{field}")));
                }
                Ok(())
            }
            Op::StoreVec { buf, at, values } => {
                let words: Vec<String> = values.iter().map(|v| expr::bitcast(self.d(*v), DType::U32, &format!("v{v}"))).collect();
                let (t, n) = (["", "", "uint2", "", "uint4"][words.len()], words.len());
                match buf {
                    Buf::Own(_) => writeln!(o, "{pad}own_put{n}({}, {});", self.address(buf, *at), words.join(", ")),
                    _ => writeln!(o, "{pad}*({t}*)({}) = make_uint{n}({});", self.address(buf, *at), words.join(", ")),
                }
            }
            Op::Prefetch { buf, at, bytes: None } => writeln!(o, "{pad}prefetch({});", self.address(buf, *at)),
            Op::Prefetch { buf, at, bytes: Some(bytes) } => writeln!(o, "{pad}prefetch_some({}, v{bytes});", self.address(buf, *at)),
            Op::LoadMatrices { buf, at, turned } => {
                let outs: Vec<String> = s.outs.iter().map(|i| format!("v{i}")).collect();
                writeln!(o, "{pad}u32 {}; ldmatrix_x4{}({}, {});", outs.join(", "), if *turned { "_trans" } else { "" }, outs.join(", "), self.address(buf, *at))
            }
            Op::AtomicAdd { buf, at, value } => writeln!(o, "{pad}atomicAdd((u64*)({}), (u64)v{value});", self.address(buf, *at)),
            Op::RingFetch { ring, src, at, bytes, cond, ahead } => {
                let at = self.address(&Buf::Param(*src), *at);
                writeln!(o, "{pad}if (v{cond}) ring{ring}.fetch({at}, v{bytes}, {ahead});")
            }
            Op::RingWait { ring } => writeln!(o, "{pad}u8* slot{} = ring{ring}.wait();", s.outs[0]),
            Op::Bring { buf, at, src, from } => writeln!(o, "{pad}bring16({}, {});", self.address(buf, *at), self.address(&Buf::Param(*src), *from)),
            Op::Brought => writeln!(o, "{pad}brought();"),
            Op::Barrier => writeln!(o, "{pad}__syncthreads();"),
            Op::AfterPrevious => writeln!(o, "{pad}after_previous();"),
            Op::ReleaseNext => writeln!(o, "{pad}release_next();"),
            Op::CopyOver => writeln!(o, "{pad}copy_over();"),
            Op::SyncWarp => writeln!(o, "{pad}__syncwarp();"),
            op => {
                let out = s.outs[0];
                let _ = write!(o, "{pad}const {} v{out} = ", self.d(out).cuda());
                let _ = self.value(o, op, self.d(out));
                writeln!(o, ";")
            }
        };
    }

    /// The results of a statement out of an array of i32.
    fn from_array(&self, o: &mut String, s: &Stmt, pad: &str) -> fmt::Result {
        let outs: Vec<String> = s.outs.iter().enumerate().map(|(i, out)| format!("v{out} = d{}[{i}]", s.outs[0])).collect();
        writeln!(o, "{pad}const i32 {};", outs.join(", "))
    }

    fn value(&self, o: &mut String, op: &Op, d: DType) -> fmt::Result {
        match op {
            Op::Const(bits) => expr::constant(o, d, *bits),
            Op::BlockId(axis) => write!(o, "(i32)blockIdx.{}", ["x", "y", "z"][*axis]),
            Op::Un(u, a) => expr::unary(o, *u, self.d(*a), *a),
            Op::Bin(b, a, c) => expr::binary(o, *b, self.d(*a), *a, *c),
            Op::Funnel(a, b, n) => write!(o, "__funnelshift_r(v{a}, v{b}, {n})"),
            Op::Pick(a, b, s) => write!(o, "pick(v{a}, v{b}, v{s})"),
            Op::AddDot4(a, b, c) => write!(o, "add_dot4(v{a}, v{b}, v{c})"),
            Op::Fma(a, b, c) => write!(o, "__fmaf_rn(v{a}, v{b}, v{c})"),
            Op::Select(c, a, b) => write!(o, "v{c} ? v{a} : v{b}"),
            Op::Cast(a) => o.write_str(&expr::cast(self.d(*a), d, &format!("v{a}"))),
            Op::Bitcast(a) => o.write_str(&expr::bitcast(self.d(*a), d, &format!("v{a}"))),
            Op::VarGet(a) => write!(o, "v{a}"),
            Op::Load { buf, at } => write!(o, "*({}{}*)({})", self.reads(buf), d.cuda(), self.address(buf, *at)),
            Op::Peek { buf, at } => o.write_str(&expr::bitcast(DType::U32, d, &format!("peek({})", self.address(buf, *at)))),
            Op::LaneId => write!(o, "(i32)(threadIdx.x & 31)"),
            Op::ThreadId => write!(o, "(i32)threadIdx.x"),
            Op::ThreadAnew => write!(o, "thread_anew()"),
            Op::BlockAnew(axis) => write!(o, "block_anew_{}()", ["x", "y", "z"][*axis]),
            Op::OfLane(a, i) => write!(o, "of_lane(v{a}, v{i})"),
            Op::ShflXor(a, m) => write!(o, "shfl_xor(v{a}, {m})"),
            Op::Alike(a) => write!(o, "__shfl_sync(~0u, v{a}, 0)"),
            Op::MovMatrix(a) => write!(o, "movmatrix(v{a})"),
            Op::Prmt(a, b, s) => write!(o, "prmt(v{a}, v{b}, 0x{s:04x}u)"),
            Op::Ballot(a) => write!(o, "ballot(v{a})"),
            Op::AnyLane(a) => write!(o, "any_lane(v{a})"),
            // The verifier lets nothing else into thread IR.
            other => write!(o, "/* {other:?} */ 0"),
        }
    }
}
