//! Operations that treat every element, or every thread, alike.

use super::scalar;
use super::trap::Wrong;
use crate::dtype::DType;
use crate::ir::{Id, Op, Program, Stmt};

/// A statement whose one result is a function of the elements of its operands.
pub struct Element<'a> {
    op: &'a Op,
    operands: [Id; 3],
    count: usize,
    types: [DType; 3],
    pub out: Id,
    out_type: DType,
}

impl Element<'_> {
    pub fn of<'a>(p: &Program, s: &'a Stmt) -> Option<Element<'a>> {
        let (count, operands) = match &s.op {
            Op::Const(_) => (0, [0; 3]),
            Op::Un(_, a) | Op::Cast(a) | Op::Bitcast(a) | Op::Full(a) => (1, [*a, 0, 0]),
            Op::Bin(_, a, b) | Op::Funnel(a, b, _) | Op::Prmt(a, b, _) => (2, [*a, *b, 0]),
            Op::Fma(a, b, c) | Op::Select(a, b, c) | Op::Pick(a, b, c) | Op::AddDot4(a, b, c) => (3, [*a, *b, *c]),
            _ => return None,
        };
        let out = *s.outs.first()?;
        let mut types = [DType::Bool; 3];
        types.iter_mut().zip(&operands[..count]).for_each(|(t, id)| *t = p.ty(*id).dtype());
        Some(Element { op: &s.op, operands, count, types, out, out_type: p.ty(out).dtype() })
    }

    pub fn operands(&self) -> &[Id] {
        &self.operands[..self.count]
    }

    /// The result for the operands' bits; unused ones are ignored.
    pub fn eval(&self, [a, b, c]: [u64; 3]) -> Result<u64, Wrong> {
        let [ta, tb, _] = self.types;
        match self.op {
            Op::Const(bits) => Ok(scalar::truncated(self.out_type, *bits)),
            Op::Un(op, _) => scalar::unary(*op, ta, a),
            Op::Bin(op, ..) => scalar::binary(*op, (ta, a), (tb, b)),
            Op::Fma(..) => scalar::fma(ta, a, b, c),
            Op::Funnel(_, _, n) => Ok(scalar::funnel(a, b, *n)),
            Op::Pick(..) => Ok(scalar::prmt(a, b, c as u32)),
            Op::AddDot4(..) => Ok(u64::from(crate::math::add_dot4(a as u32, b as u32, c as u32))),
            Op::Select(..) => Ok(if a & 1 != 0 { b } else { c }),
            Op::Cast(_) => scalar::cast(ta, self.out_type, a),
            Op::Bitcast(_) => scalar::bitcast(ta, self.out_type, a),
            Op::Prmt(_, _, selector) => Ok(scalar::prmt(a, b, *selector)),
            _ => Ok(a),
        }
    }
}
