//! Products of the tensor core: of registers, of shared memory, and what their sums start from.

use super::{B, V};
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

impl B {
    /// a b with the dims of a raised.
    pub fn mma_raised(&self, a: V, x: V, by: V) -> V {
        let by = self.shifts(&by);
        let (Some(a), Some(x)) = (self.id(&a), self.id(&x)) else { return V::Poison };
        match (self.ty(a), self.ty(x)) {
            (Ty::Tile { rows: m, cols: k, layout: Layout::MmaA, dtype: DType::U8 }, Ty::Tile { rows, cols: n, layout: Layout::MmaB, dtype: DType::I8 }) if rows == k && k % 128 == 0 => {
                self.emit(Op::MmaRaised { a, b: x, by }, Ty::Tile { dtype: DType::I32, rows: m, cols: n, layout: Layout::MmaC })
            }
            (left, right) => self.fail(Fault::Shapes { op: "mma_raised".into(), left: self.describe(left), right: self.describe(right) }),
        }
    }

    /// a b + c on the tensor core. u8 by i8 or u8, and i8 by i8, sum in i32, exactly; bf16 and f16 in f32.
    pub fn mma(&self, a: V, x: V, c: V) -> V {
        let (Some(a), Some(x)) = (self.id(&a), self.id(&x)) else { return V::Poison };
        let (ta, tx) = (self.ty(a), self.ty(x));
        let (Ty::Tile { rows: m, cols: k, layout: Layout::MmaA, dtype: da }, Ty::Tile { rows: k2, cols: n, layout: Layout::MmaB, dtype: dx }) = (ta, tx) else {
            let got = format!("{} and {}", self.describe(ta), self.describe(tx));
            return self.fail(Fault::Layout { op: "mma".into(), wants: "a left and a right operand".into(), got });
        };
        let fits = matches!((da, dx), (DType::U8, DType::U8 | DType::I8) | (DType::I8, DType::I8 | DType::U8) | (DType::Bf16, DType::Bf16) | (DType::F16, DType::F16));
        if k != k2 || !fits || m % 16 != 0 || n % 8 != 0 || k * da.size() % 32 != 0 {
            return self.fail(Fault::Shapes { op: "mma".into(), left: self.describe(ta), right: self.describe(tx) });
        }
        let dtype = if matches!(da, DType::U8 | DType::I8) { DType::I32 } else { DType::F32 };
        let ty = Ty::Tile { dtype, rows: m, cols: n, layout: Layout::MmaC };
        match self.start_of_sums("mma", ty, &c) {
            Ok(c) => self.emit(Op::Mma { a, b: x, c }, ty),
            Err(poison) => poison,
        }
    }

    /// A product with a right operand that stays in shared memory.
    pub fn mma_shared(&self, a: V, x: V, at: V, stride: V, n: V, c: V) -> V {
        let (stride, n) = (stride.size(self, "a stride"), n.size(self, "the columns of a tile"));
        let (Some(a), V::Buf(buf, dx)) = (self.id(&a), self.get(&x)) else { return V::Poison };
        let ta = self.ty(a);
        let right = Ty::Tile { dtype: dx, rows: if let Ty::Tile { cols, .. } = ta { cols } else { 0 }, cols: n, layout: Layout::MmaB };
        let Ty::Tile { rows: m, cols: k, layout: Layout::MmaA, dtype: DType::I8 | DType::U8 } = ta else {
            return self.fail(Fault::Layout { op: "mma_shared".into(), wants: "a left operand of bytes".into(), got: self.describe(ta) });
        };
        if !matches!(buf, Buf::Shared(_)) || !matches!(dx, DType::I8 | DType::U8) {
            return self.fail(Fault::Layout { op: "mma_shared".into(), wants: "a shared array of bytes".into(), got: self.describe(right) });
        }
        let warps = self.program.borrow().warps;
        if warps % 4 != 0 {
            return self.fail(Fault::Fours { op: "mma_shared", warps });
        }
        if m % 16 != 0 || k % 64 != 0 || stride % 128 != 0 || stride == 0 || !(n == 8 || n == 24 || n % 16 == 0 && (16..=256).contains(&n)) {
            return self.fail(Fault::Shapes { op: "mma_shared".into(), left: self.describe(ta), right: self.describe(right) });
        }
        let (ty, at) = (Ty::Tile { dtype: DType::I32, rows: m, cols: n, layout: Layout::MmaC }, self.byte(buf, &at, 1));
        match self.start_of_sums("mma_shared", ty, &c) {
            Ok(c) => self.emit(Op::MmaShared { a, buf, at, stride, c }, ty),
            Err(poison) => poison,
        }
    }

    /// A product of rows in cores and rows of lines.
    pub fn mma_lines(&self, [a, at, stride]: [V; 3], [x, x_at, plane]: [V; 3], sizes: [V; 3]) -> V {
        let (stride, plane) = (stride.size(self, "a stride"), plane.size(self, "the bytes of a plane"));
        let [planes, n, together] = sizes.map(|v| v.size(self, "the size of a product"));
        let (V::Buf(a, da), V::Buf(x, dx)) = (self.get(&a), self.get(&x)) else { return V::Poison };
        let right = Ty::Tile { dtype: dx, rows: 128 * planes, cols: n, layout: Layout::MmaB };
        let bytes = |d| matches!(d, DType::I8 | DType::U8);
        if !matches!((a, x), (Buf::Shared(_), Buf::Shared(_))) || !bytes(da) || !bytes(dx) {
            return self.fail(Fault::Layout { op: "mma_lines".into(), wants: "two shared arrays of bytes".into(), got: self.describe(right) });
        }
        if stride % 128 != 0 || plane % 1024 != 0 || n % 16 != 0 || !(16..=256).contains(&n) || planes == 0 || !matches!(together, 1 | 4) {
            let left = Ty::Tile { dtype: da, rows: 16, cols: 128 * planes, layout: Layout::MmaA };
            return self.fail(Fault::Shapes { op: "mma_lines".into(), left: self.describe(left), right: self.describe(right) });
        }
        let warps = self.program.borrow().warps;
        if warps % together != 0 {
            return self.fail(Fault::Fours { op: "mma_lines", warps });
        }
        let kind = crate::passes::kind_of(da, dx).0;
        let (at, x_at) = (self.byte(a, &at, 1), self.byte(x, &x_at, 1));
        self.emit(Op::MmaLines(Lines { kind, a, at, stride, x, x_at, plane, planes, n, together }), Ty::Tile { dtype: DType::I32, rows: 16, cols: n, layout: Layout::MmaC })
    }

    /// What a product's sums start from, as an accumulator of type `ty`.
    fn start_of_sums(&self, op: &str, ty: Ty, c: &V) -> Result<Id, V> {
        let dtype = ty.dtype();
        Ok(match self.get(c) {
            V::S(id) if self.ty(id) == ty => id,
            V::S(id) if self.joined(op, ty, self.ty(id)) == Some(ty) && self.ty(id).dtype() == dtype => {
                // A row or column vector starts every sum: broadcast it.
                let zero = self.id_of(&V::Int(0), dtype);
                let zeros = self.emit(Op::Full(zero), ty);
                let sum = self.binary(BinOp::Add, zeros, V::S(id));
                self.id_of(&sum, dtype)
            }
            V::Int(0) | V::Float(_) => {
                let zero = self.id_of(&V::Int(0), dtype);
                let zeros = self.emit(Op::Full(zero), ty);
                self.id_of(&zeros, dtype)
            }
            V::S(id) => {
                let right = self.describe(self.ty(id));
                return Err(self.fail(Fault::Shapes { op: op.into(), left: self.describe(ty), right }));
            }
            _ => return Err(self.fail(Fault::Untyped)),
        })
    }
}
