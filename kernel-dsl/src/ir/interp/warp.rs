//! Operations that join the lanes of a warp, with the fragment layouts of the PTX manual.
//!
//! Lane l is quad row g = l / 4, quad lane t = l % 4.

use super::scalar;
use super::thread::{Machine, Mask};
use super::trap::Wrong;
use crate::dtype::DType;
use crate::ir::{Id, MmaKind, Op, verify};

pub fn stmt(m: &mut Machine, op: &Op, outs: &[Id], mask: &Mask) -> Result<(), Wrong> {
    let name = match op {
        Op::ShflXor(..) => "ShflXor",
        Op::Alike(_) => "Alike",
        Op::OfLane(..) => "OfLane",
        Op::MovMatrix(_) => "MovMatrix",
        Op::AnyLane(_) => "AnyLane",
        Op::Ballot(_) => "Ballot",
        Op::MmaRegs { .. } => "MmaRegs",
        _ => return Err(Wrong::Unsupported { op: format!("{} at thread stage", verify::name(op)) }),
    };
    m.needs(&crate::passes::simplify::operands(op))?;
    for w in m.whole_warps(mask, name)? {
        let lane = |m: &Machine, id: Id, l: usize| m.get(id, w * 32 + l);
        let results: Vec<[u64; 32]> = match op {
            Op::ShflXor(a, by) => vec![std::array::from_fn(|l| lane(m, *a, l ^ by))],
            Op::Alike(a) => {
                let first = lane(m, *a, 0);
                if (0..32).any(|l| lane(m, *a, l) != first) {
                    return Err(Wrong::Uneven { op: name.into() });
                }
                vec![[first; 32]]
            }
            Op::OfLane(a, i) => vec![std::array::from_fn(|l| lane(m, *a, lane(m, *i, l) as usize & 31))],
            Op::AnyLane(a) => {
                let any = (0..32).fold(0, |any, l| any | lane(m, *a, l) & 1);
                vec![[any; 32]]
            }
            Op::Ballot(a) => vec![[(0..32).fold(0, |all, l| all | (lane(m, *a, l) & 1) << l); 32]],
            Op::MovMatrix(a) => vec![transposed(std::array::from_fn(|l| lane(m, *a, l)))],
            Op::MmaRegs { kind, a, b, c } => {
                let regs = |ids: &[Id]| ids.iter().map(|id| std::array::from_fn(|l| lane(m, *id, l))).collect::<Vec<[u64; 32]>>();
                mma(*kind, &regs(a), &regs(b), &regs(c))
            }
            _ => vec![],
        };
        for (out, lanes) in outs.iter().zip(results) {
            (0..32).for_each(|l| m.set(*out, w * 32 + l, lanes[l]));
        }
    }
    m.defines(outs);
    Ok(())
}

/// An 8 x 8 matrix of 16-bit elements: lane l holds row l / 4, columns 2 (l % 4) and the next.
fn transposed(rows: [u64; 32]) -> [u64; 32] {
    let element = |r: usize, c: usize| rows[4 * r + c / 2] >> (16 * (c % 2)) & 0xffff;
    std::array::from_fn(|l| {
        let (r, c) = (l / 4, l % 4 * 2);
        element(c, r) | element(c + 1, r) << 16
    })
}

/// m16n8k32 on bytes, m16n8k16 on 16-bit floats; k ascending.
pub fn mma(kind: MmaKind, a: &[[u64; 32]], b: &[[u64; 32]], c: &[[u64; 32]]) -> Vec<[u64; 32]> {
    let bits = if matches!(kind, MmaKind::U8S8 | MmaKind::U8U8 | MmaKind::S8S8 | MmaKind::S8U8) { 8 } else { 16 };
    // A register holds `per` neighbours along k; the second half of k is in the later registers.
    let (per, depth) = (32 / bits, 256 / bits);
    let element = |lanes: &[u64; 32], row: usize, k: usize| lanes[row % 8 * 4 + k % (depth / 2) / per] >> (bits * (k % per)) & ((1 << bits) - 1);
    let left = |row: usize, k: usize| element(&a[k / (depth / 2) * 2 + row / 8], row, k);
    let right = |k: usize, col: usize| element(&b[k / (depth / 2)], col, k);
    let out = |reg: usize, l: usize| {
        let (row, col) = (l / 4 + reg / 2 * 8, l % 4 * 2 + reg % 2);
        (0..depth).fold(c[reg][l], |sum, k| {
            let (x, y) = (left(row, k), right(k, col));
            let float = |d| scalar::f32_bits(scalar::float(d, x).mul_add(scalar::float(d, y), scalar::float(DType::F32, sum)));
            let product = |x: i64, y: i64| scalar::truncated(DType::I32, scalar::int(DType::I32, sum).wrapping_add(x * y) as u64);
            match kind {
                MmaKind::U8S8 => product(x as i64, scalar::int(DType::I8, y)),
                MmaKind::U8U8 => product(x as i64, y as i64),
                MmaKind::S8S8 => product(scalar::int(DType::I8, x), scalar::int(DType::I8, y)),
                MmaKind::S8U8 => product(scalar::int(DType::I8, x), y as i64),
                MmaKind::Bf16 => float(DType::Bf16),
                MmaKind::F16 => float(DType::F16),
            }
        })
    };
    (0..4).map(|reg| std::array::from_fn(|l| out(reg, l))).collect()
}
