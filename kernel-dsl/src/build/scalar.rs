//! Arithmetic: one rule for scalars and tiles, because an element-wise operation is the same on both.

use super::{B, V};
use crate::dtype::{DType, bf16, f16};
use crate::ir::*;
use crate::report::Fault;

impl B {
    pub fn constant(&self, dtype: DType, bits: u64) -> V {
        self.emit(Op::Const(bits), Ty::Scalar(dtype))
    }

    /// `[v; n]`
    pub fn repeat(&self, v: V, n: V) -> V {
        let n = n.size(self, "the length of an array");
        let v = self.get(&v);
        V::Array(vec![v; n])
    }

    /// A literal with a suffix.
    pub fn typed(&self, v: V, dtype: DType) -> V {
        V::S(self.id_of(&v, dtype))
    }

    /// The id of a value, a literal taking the type `dtype`.
    pub(crate) fn id_of(&self, v: &V, dtype: DType) -> Id {
        let bits = match (self.get(v), dtype) {
            (V::S(id), _) => return id,
            (V::Int(n), DType::F32) => (n as f32).to_bits() as u64,
            (V::Int(n), DType::F16) => f16::from_f32(n as f32).to_bits() as u64,
            (V::Int(n), DType::Bf16) => bf16::from_f32(n as f32).to_bits() as u64,
            (V::Int(n), DType::I64) => n as u64,
            (V::Int(n), d) if d.size() == 4 => n as u32 as u64,
            (V::Int(n), d) if d.size() == 2 => n as u16 as u64,
            (V::Int(n), _) => n as u8 as u64,
            (V::Float(x), DType::F32) => (x as f32).to_bits() as u64,
            (V::Bool(x), _) => x as u64,
            (V::Poison, _) => 0,
            _ => {
                self.fail(Fault::Untyped);
                0
            }
        };
        match self.constant(dtype, bits) {
            V::S(id) => id,
            _ => 0,
        }
    }

    /// The id of a value whose type is known.
    pub(crate) fn id(&self, v: &V) -> Option<Id> {
        match self.get(v) {
            V::S(id) => Some(id),
            V::Bool(x) => Some(self.id_of(&V::Bool(x), DType::Bool)),
            V::Poison => None,
            _ => {
                self.fail(Fault::Untyped);
                None
            }
        }
    }

    pub(crate) fn describe(&self, t: Ty) -> String {
        match t {
            Ty::Scalar(d) => d.name().into(),
            Ty::Tile { dtype, rows, cols, layout } => format!("{} [{rows}, {cols}] {layout:?}", dtype.name()),
        }
    }

    /// Type of an element-wise operation: tiles of one shape, or a tile with a scalar, a `Rows` or a `Cols`.
    pub(crate) fn joined(&self, op: &str, a: Ty, c: Ty) -> Option<Ty> {
        use Layout::*;
        let shapes = || {
            self.fail(Fault::Shapes { op: op.into(), left: self.describe(a), right: self.describe(c) });
            None
        };
        match (a, c) {
            (Ty::Scalar(_), t) | (t, Ty::Scalar(_)) => Some(t),
            (Ty::Tile { rows: r0, cols: c0, layout: l0, .. }, Ty::Tile { rows: r1, cols: c1, layout: l1, .. }) => match (l0, l1) {
                _ if l0 == l1 && r0 == r1 && c0 == c1 => Some(a),
                // A column of rows and a row of columns span an accumulator.
                (Rows, Cols) => Some(Ty::Tile { dtype: a.dtype(), rows: r0, cols: c1, layout: MmaC }),
                (Cols, Rows) => Some(Ty::Tile { dtype: a.dtype(), rows: r1, cols: c0, layout: MmaC }),
                (MmaC, Rows) if r0 == r1 => Some(a),
                (MmaC, Cols) if c0 == c1 => Some(a),
                (Rows, MmaC) if r0 == r1 => Some(c),
                (Cols, MmaC) if c0 == c1 => Some(c),
                _ => shapes(),
            },
        }
    }

    pub fn binary(&self, op: BinOp, a: V, c: V) -> V {
        let (a, c) = (self.get(&a), self.get(&c));
        if let (V::Int(x), V::Int(y)) = (&a, &c) {
            return self.fold_int(op, *x, *y);
        }
        if let (V::Bool(x), V::Bool(y)) = (&a, &c) {
            return match op {
                BinOp::And => V::Bool(x & y),
                BinOp::Or => V::Bool(x | y),
                BinOp::Eq => V::Bool(x == y),
                _ => V::Bool(x != y),
            };
        }
        let (ia, ic) = match (&a, &c) {
            (V::S(x), V::S(y)) => (*x, *y),
            (V::S(x), lit) => (*x, self.id_of(lit, self.ty(*x).dtype())),
            (lit, V::S(y)) => (self.id_of(lit, self.ty(*y).dtype()), *y),
            (V::Poison, _) | (_, V::Poison) => return V::Poison,
            _ => return self.fail(Fault::Untyped),
        };
        let (ta, tc) = (self.ty(ia), self.ty(ic));
        if ta.dtype() != tc.dtype() && !matches!(op, BinOp::Shl | BinOp::Shr) {
            return self.fail(Fault::Types { op: format!("{op:?}"), left: self.describe(ta), right: self.describe(tc) });
        }
        if matches!(op, BinOp::Div | BinOp::Rem) && !ta.dtype().is_float() && !matches!(self.def(ic), Some(Op::Const(_))) {
            return self.fail(Fault::DivisorUnknown);
        }
        if matches!(op, BinOp::Shl | BinOp::Shr) && !self.below(ic, 8 * ta.dtype().size() as u64) {
            return self.fail(Fault::ShiftCount);
        }
        let Some(t) = self.joined(&format!("{op:?}"), ta, tc) else { return V::Poison };
        let dtype = if op.is_compare() { DType::Bool } else { ta.dtype() };
        self.emit(Op::Bin(op, ia, ic), t.with(dtype))
    }

    /// The operation that gives a value which is in scope.
    fn def(&self, id: Id) -> Option<Op> {
        self.regions.borrow().iter().rev().flat_map(|r| r.iter().rev()).find(|s| s.outs.first() == Some(&id)).map(|s| s.op.clone())
    }

    /// Whether an integer is sure to be at least 0 and below `limit`: a constant, or masked by one.
    fn below(&self, id: Id, limit: u64) -> bool {
        match self.def(id) {
            Some(Op::Const(n)) => n < limit,
            Some(Op::Bin(BinOp::And, a, c)) => [a, c].iter().any(|m| matches!(self.def(*m), Some(Op::Const(n)) if n < limit)),
            Some(Op::Bin(BinOp::Rem, a, c)) if matches!(self.ty(a).dtype(), DType::U8 | DType::U16 | DType::U32) => matches!(self.def(c), Some(Op::Const(n)) if n <= limit),
            Some(Op::Cast(a)) => !self.ty(a).dtype().is_float() && self.below(a, limit),
            _ => false,
        }
    }

    fn fold_int(&self, op: BinOp, x: i64, y: i64) -> V {
        V::Int(match op {
            BinOp::Add => x + y,
            BinOp::Sub => x - y,
            BinOp::Mul => x * y,
            BinOp::Div if y != 0 => x / y,
            BinOp::Rem if y != 0 => x % y,
            BinOp::And => x & y,
            BinOp::Or => x | y,
            BinOp::Xor => x ^ y,
            BinOp::Shl | BinOp::Shr if !(0..63).contains(&y) => return self.fail(Fault::ShiftCount),
            BinOp::Shl => x << y,
            BinOp::Shr => x >> y,
            BinOp::Max => x.max(y),
            BinOp::Min => x.min(y),
            BinOp::Eq => return V::Bool(x == y),
            BinOp::Ne => return V::Bool(x != y),
            BinOp::Lt => return V::Bool(x < y),
            BinOp::Le => return V::Bool(x <= y),
            BinOp::Gt => return V::Bool(x > y),
            BinOp::Ge => return V::Bool(x >= y),
            _ => return self.fail(Fault::DivisorUnknown),
        })
    }

    pub fn unary(&self, op: UnOp, a: V) -> V {
        match (op, self.get(&a)) {
            (UnOp::Neg, V::Int(n)) => V::Int(-n),
            (UnOp::Neg, V::Float(x)) => V::Float(-x),
            (UnOp::Not, V::Bool(x)) => V::Bool(!x),
            (_, v) => match self.id(&v) {
                Some(id) => self.emit(Op::Un(op, id), self.ty(id)),
                None => V::Poison,
            },
        }
    }

    /// a * b + c, rounded once.
    pub fn fma(&self, a: V, x: V, c: V) -> V {
        let (a, x, c) = (self.id_of(&a, DType::F32), self.id_of(&x, DType::F32), self.id_of(&c, DType::F32));
        let Some(t) = self.joined("mul_add", self.ty(a), self.ty(x)) else { return V::Poison };
        let Some(t) = self.joined("mul_add", t, self.ty(c)) else { return V::Poison };
        self.emit(Op::Fma(a, x, c), t)
    }

    /// Bits n.. of the 64 bits (hi, lo).
    pub fn funnel(&self, lo: V, hi: V, n: V) -> V {
        let n = n.size(self, "the shift of a funnel");
        let (lo, hi) = (self.id_of(&lo, DType::U32), self.id_of(&hi, DType::U32));
        self.emit(Op::Funnel(lo, hi, n), self.ty(lo))
    }

    /// Four bytes of (a, c), picked by the nibbles of `s`.
    pub fn pick(&self, a: V, c: V, s: V) -> V {
        let (a, c, s) = (self.id_of(&a, DType::U32), self.id_of(&c, DType::U32), self.id_of(&s, DType::U32));
        self.emit(Op::Pick(a, c, s), Ty::Scalar(DType::U32))
    }

    /// `sum` plus the four products of the bytes of `a`, unsigned, and of `c`, signed.
    pub fn add_dot4(&self, sum: V, a: V, c: V) -> V {
        let (sum, a, c) = (self.id_of(&sum, DType::U32), self.id_of(&a, DType::U32), self.id_of(&c, DType::U32));
        self.emit(Op::AddDot4(sum, a, c), Ty::Scalar(DType::U32))
    }

    /// Rust's `as`.
    pub fn cast(&self, v: V, dtype: DType) -> V {
        match self.get(&v) {
            V::Int(_) | V::Float(_) => self.typed(v, dtype),
            v => match self.id(&v) {
                Some(id) if self.ty(id).dtype() == dtype => V::S(id),
                // Rust saturates here without a word; a narrow range deserves one.
                Some(id) if self.ty(id).dtype().is_float() && matches!(dtype, DType::I8 | DType::U8 | DType::U16) => self.fail(Fault::FloatCast { to: dtype.name() }),
                Some(id) => self.emit(Op::Cast(id), self.ty(id).with(dtype)),
                None => V::Poison,
            },
        }
    }

    pub fn bitcast(&self, v: V, dtype: DType) -> V {
        match self.id(&v) {
            Some(id) => self.emit(Op::Bitcast(id), self.ty(id).with(dtype)),
            None => V::Poison,
        }
    }

    pub(crate) fn select(&self, c: Id, a: &V, o: &V) -> V {
        match (self.get(a), self.get(o)) {
            (V::Unit, V::Unit) => V::Unit,
            (V::Array(x), V::Array(y)) if x.len() == y.len() => V::Array(x.iter().zip(&y).map(|(x, y)| self.select(c, x, y)).collect()),
            (V::Tuple(x), V::Tuple(y)) if x.len() == y.len() => V::Tuple(x.iter().zip(&y).map(|(x, y)| self.select(c, x, y)).collect()),
            (V::Struct(x), y @ V::Struct(_)) => self.joined_fields(&x, &y, |x, y| self.select(c, x, y)),
            (V::Poison, _) | (_, V::Poison) => V::Poison,
            (x, y) => {
                let like = match (&x, &y) {
                    (V::S(i), _) | (_, V::S(i)) => self.ty(*i).dtype(),
                    (V::Bool(_), _) => DType::Bool,
                    (V::Int(_) | V::Float(_), V::Int(_) | V::Float(_)) => return self.fail(Fault::Untyped),
                    _ => return self.fail(Fault::UnevenBranches),
                };
                let (x, y) = (self.id_of(&x, like), self.id_of(&y, like));
                if self.ty(x).dtype() != self.ty(y).dtype() {
                    return self.fail(Fault::UnevenBranches);
                }
                let Some(t) = self.joined("if", self.ty(x), self.ty(y)) else { return V::Poison };
                let Some(t) = self.joined("if", t, self.ty(c).with(like)) else { return V::Poison };
                self.emit(Op::Select(c, x, y), t)
            }
        }
    }
}
