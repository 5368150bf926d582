//! Operations on a warp's tiles, and the table of methods.

use super::{B, V};
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

impl B {
    /// A tile full of `v`, whose type is the tile's.
    pub fn full(&self, shape: (V, V), layout: Layout, v: V) -> V {
        let (rows, cols) = (shape.0.size(self, "the rows of a tile"), shape.1.size(self, "the columns of a tile"));
        let Some(v) = self.id(&v) else { return V::Poison };
        self.emit(Op::Full(v), Ty::Tile { dtype: self.ty(v).dtype(), rows, cols, layout })
    }

    /// Row numbers as a `Rows` tile.
    pub fn row_ids(&self, n: V) -> V {
        let rows = n.size(self, "the rows of a tile");
        self.emit(Op::RowIndex, Ty::Tile { dtype: DType::I32, rows, cols: 1, layout: Layout::Rows })
    }

    /// 0, 1, .. along a vector.
    pub fn vector_ids(&self, n: V) -> V {
        let cols = n.size(self, "the length of a vector");
        self.emit(Op::VectorIndex, Ty::Tile { dtype: DType::I32, rows: 1, cols, layout: Layout::Row })
    }

    /// Shifts of eight dims, known when the kernel is built.
    pub(super) fn shifts(&self, by: &V) -> [u8; 8] {
        let items = match self.get(by) {
            V::Array(items) if items.len() == 8 => items,
            _ => vec![V::Poison; 8],
        };
        std::array::from_fn(|i| items[i].size(self, "a shift") as u8)
    }

    /// Powers of two down the rows, eight after eight.
    pub fn raise(&self, n: V, by: V) -> V {
        let rows = n.size(self, "the rows of a tile");
        self.emit(Op::Raise(self.shifts(&by)), Ty::Tile { dtype: DType::I32, rows, cols: 1, layout: Layout::Rows })
    }

    /// Tokens of a tile of pairs.
    pub fn pair_ids(&self) -> V {
        self.emit(Op::PairIndex, Ty::Tile { dtype: DType::I32, rows: 16, cols: 8, layout: Layout::MmaC })
    }

    /// Tokens of spread columns.
    pub fn spread_ids(&self) -> V {
        self.emit(Op::SpreadIndex, Ty::Tile { dtype: DType::I32, rows: 1, cols: 32, layout: Layout::Cols })
    }

    fn reduce(&self, op: ReduceOp, axis: Axis, src: Id) -> V {
        let Ty::Tile { dtype, rows, cols, layout } = self.ty(src) else {
            return self.no_method("reduce", &V::S(src));
        };
        let wants = if axis == Axis::All { Layout::Row } else { Layout::MmaC };
        if layout != wants {
            let got = self.describe(self.ty(src));
            return self.fail(Fault::Layout { op: format!("{op:?} over {axis:?}"), wants: format!("{wants:?}"), got });
        }
        if op == ReduceOp::Add && dtype.is_float() && matches!(axis, Axis::Rows | Axis::Cols) {
            return self.fail(Fault::FloatOrder { axis: "an accumulator" });
        }
        let ty = match axis {
            Axis::Rows => Ty::Tile { dtype, rows: 1, cols, layout: Layout::Cols },
            Axis::Cols => Ty::Tile { dtype, rows, cols: 1, layout: Layout::Rows },
            Axis::Lane => Ty::Tile { dtype, rows: 8, cols, layout },
            Axis::Half if rows % 32 != 0 => return self.fail(Fault::TileSize { tile: self.describe(self.ty(src)), wants: "its rows a multiple of 32" }),
            Axis::Half => Ty::Tile { dtype, rows: 16, cols, layout },
            Axis::All => Ty::Scalar(dtype),
        };
        self.emit(Op::Reduce { op, axis, src }, ty)
    }

    /// Fails unless the tile has the layout.
    fn wants(&self, op: &str, id: Id, layout: Layout, dtype: DType) -> Option<(usize, usize)> {
        match self.ty(id) {
            Ty::Tile { rows, cols, layout: l, dtype: d } if l == layout && d == dtype => Some((rows, cols)),
            t => {
                let got = self.describe(t);
                self.fail(Fault::Layout { op: op.into(), wants: format!("a {} {layout:?}", dtype.name()), got });
                None
            }
        }
    }

    /// Between a tile of 8 columns in two halves and a tile of pairs.
    fn halves(&self, op: Op, src: Id, from: (usize, DType, Layout), to: (usize, DType, Layout)) -> V {
        let of = |(rows, dtype, layout)| Ty::Tile { dtype, rows, cols: 8, layout };
        if self.ty(src) != of(from) {
            let (wants, got) = (self.describe(of(from)), self.describe(self.ty(src)));
            return self.fail(Fault::Layout { op: crate::ir::verify::name(&op), wants, got });
        }
        self.emit(op, of(to))
    }

    pub(crate) fn no_method(&self, name: &str, v: &V) -> V {
        let on = match v {
            V::S(id) => self.describe(self.ty(*id)),
            V::Buf(..) => "a buffer".into(),
            V::Array(_) => "an array".into(),
            _ => "this value".into(),
        };
        self.fail(Fault::NoMethod { name: name.into(), on })
    }

    /// Methods without type arguments.
    pub fn method(&self, name: &str, recv: &V, args: Vec<V>) -> V {
        let args: Vec<V> = args.iter().map(|a| self.get(a)).collect();
        let recv = self.get(recv);
        match (&recv, name, args.as_slice()) {
            (V::Poison, ..) => V::Poison,
            (V::Buf(buf, dtype), ..) => self.buffer_method(name, *buf, *dtype, &args),
            (V::Kept(kept), ..) => self.kept_method(name, *kept, &args),
            (V::Ring(r), "start", [src, at, bytes, V::Int(ahead)]) => self.start(*r, src, at, bytes, *ahead as usize),
            (V::Ring(r), "copy", [src, at]) => self.copy(*r, src, at, None),
            (V::Ring(r), "copy_some", [src, at, bytes]) => self.copy(*r, src, at, Some(bytes)),
            (V::Int(n), "min", [V::Int(m)]) => V::Int(*n.min(m)),
            (V::Int(n), "max", [V::Int(m)]) => V::Int(*n.max(m)),
            (V::Int(n), "div_ceil", [V::Int(m)]) if *m > 0 => V::Int((n + m - 1) / m),
            (_, "clone", []) => recv,
            (_, "mul_add", [x, c]) => self.fma(recv, x.clone(), c.clone()),
            (V::S(id), ..) => self.value_method(name, *id, &args),
            _ => self.no_method(name, &recv),
        }
    }

    fn value_method(&self, name: &str, id: Id, args: &[V]) -> V {
        let v = V::S(id);
        let float = self.ty(id).dtype().is_float();
        match (name, args) {
            ("sqrt", []) => self.unary(UnOp::Sqrt, v),
            ("abs", []) => self.unary(UnOp::Abs, v),
            ("floor", []) => self.unary(UnOp::Floor, v),
            ("ceil", []) => self.unary(UnOp::Ceil, v),
            ("round_ties_even", []) => self.unary(UnOp::Round, v),
            ("count_ones", []) => self.unary(UnOp::Popc, v),
            ("to_bits", []) => self.bitcast(v, if self.ty(id).dtype().size() == 2 { DType::U16 } else { DType::U32 }),
            ("to_f32", []) => self.cast(v, DType::F32),
            ("wrapping_add", [x]) => self.binary(BinOp::Add, v, x.clone()),
            ("wrapping_sub", [x]) => self.binary(BinOp::Sub, v, x.clone()),
            ("wrapping_mul", [x]) => self.binary(BinOp::Mul, v, x.clone()),
            ("min", [x]) if !float => self.binary(BinOp::Min, v, x.clone()),
            ("max", [x]) if !float => self.binary(BinOp::Max, v, x.clone()),
            ("min" | "max", [_]) => self.fail(Fault::FloatMinMax { name: name.into() }),
            ("of_lane", [index]) => match self.ty(id) {
                Ty::Tile { dtype, cols: 32, layout: Layout::Row, .. } => {
                    let index = self.id_of(index, DType::I32);
                    self.emit(Op::OfLane(id, index), Ty::Scalar(dtype))
                }
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "a vector of 32" }),
            },
            ("any", []) => self.emit(Op::Any(id), Ty::Scalar(DType::Bool)),
            ("any_rows", [parts]) => match self.ty(id) {
                Ty::Tile { dtype: DType::Bool, cols, layout: Layout::MmaC, .. } => {
                    let pairs = parts.size(self, "the number of parts") == 2;
                    self.emit(Op::AnyRows { src: id, pairs }, Ty::Tile { dtype: DType::Bool, rows: 1, cols, layout: Layout::Cols })
                }
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "bools, an accumulator" }),
            },
            ("or_cols" | "lane_ors", []) => match self.ty(id) {
                Ty::Tile { dtype: DType::I32, .. } => self.reduce(ReduceOp::Or, if name == "or_cols" { Axis::Cols } else { Axis::Lane }, id),
                _ => self.no_method(name, &v),
            },
            ("fold_rows", [weight]) => match self.ty(id) {
                Ty::Tile { dtype: dtype @ (DType::I32 | DType::F32), rows: 16, cols, layout: Layout::MmaC } => {
                    let weight = weight.size(self, "the weight of even rows");
                    self.emit(Op::FoldRows { src: id, weight }, Ty::Tile { dtype, rows: 8, cols, layout: Layout::MmaC })
                }
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "its rows 16" }),
            },
            ("fold_cols", [weight]) => match self.ty(id) {
                Ty::Tile { dtype: DType::I32, rows, cols, layout: Layout::MmaC } if cols % 16 == 0 => {
                    let weight = weight.size(self, "the weight of the left half");
                    self.emit(Op::FoldCols { src: id, weight }, Ty::Tile { dtype: DType::I32, rows, cols: cols / 2, layout: Layout::MmaC })
                }
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "i32, its columns a multiple of 16" }),
            },
            ("split_rows", []) => match self.ty(id) {
                Ty::Tile { dtype: DType::I32, rows: 8, cols: 32, layout: Layout::MmaC } => self.emit(Op::SplitRows(id), Ty::Tile { dtype: DType::U8, rows: 16, cols: 32, layout: Layout::MmaA }),
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "eight rows of 32 columns" }),
            },
            ("swap_rows", []) => match self.ty(id) {
                t @ Ty::Tile { rows: 16.., layout: Layout::MmaC, .. } => self.emit(Op::SwapRows(id), t),
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "its rows a multiple of 16" }),
            },
            ("twice_rows", []) => match self.ty(id) {
                Ty::Tile { dtype, rows: 8, layout: Layout::Rows, .. } => self.emit(Op::TwiceRows(id), Ty::Tile { dtype, rows: 16, cols: 1, layout: Layout::Rows }),
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "eight rows" }),
            },
            ("pair_sums", []) => match self.ty(id) {
                Ty::Tile { dtype: DType::F32, rows: 8, cols: 32, layout: Layout::MmaC } => {
                    let ty = Ty::Tile { dtype: DType::F32, rows: 8, cols: 8, layout: Layout::MmaC };
                    let (even, odd) = {
                        let mut p = self.program.borrow_mut();
                        (p.fresh(ty), p.fresh(ty))
                    };
                    self.push(Op::PairSums(id), vec![even, odd]);
                    V::Tuple(vec![V::S(even), V::S(odd)])
                }
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "eight rows of 32 columns" }),
            },
            ("bytes_beside", [b]) => match (self.ty(id), self.id(b).map(|b| (b, self.ty(b)))) {
                (t @ Ty::Tile { dtype: DType::I32, rows: rows @ 16.., cols: 16, layout: Layout::MmaC }, Some((b, other))) if t == other => {
                    let of = |dtype| Ty::Tile { dtype, rows, cols: 32, layout: Layout::MmaA };
                    let (low, next) = {
                        let mut p = self.program.borrow_mut();
                        (p.fresh(of(DType::U8)), p.fresh(of(DType::I8)))
                    };
                    self.push(Op::BytesBeside(id, b), vec![low, next]);
                    V::Tuple(vec![V::S(low), V::S(next)])
                }
                (t, _) => self.fail(Fault::TileSize { tile: self.describe(t), wants: "i32, 16 columns, beside another one of its shape" }),
            },
            ("max_rows", []) => self.reduce(ReduceOp::Max, Axis::Rows, id),
            ("sum_rows", []) => self.reduce(ReduceOp::Add, Axis::Rows, id),
            ("max_cols", []) => self.reduce(ReduceOp::Max, Axis::Cols, id),
            ("sum_cols", []) => self.reduce(ReduceOp::Add, Axis::Cols, id),
            ("lane_sums", []) => self.reduce(ReduceOp::Add, Axis::Lane, id),
            ("half_sums", []) => self.reduce(ReduceOp::Add, Axis::Half, id),
            ("max", []) => self.reduce(ReduceOp::Max, Axis::All, id),
            ("sum", []) => self.reduce(ReduceOp::Add, Axis::All, id),
            ("hadamard", []) => match self.wants(name, id, Layout::Row, DType::F32) {
                Some((_, cols)) if !cols.is_power_of_two() => self.fail(Fault::TileSize { tile: self.describe(self.ty(id)), wants: "its length a power of two" }),
                Some(_) => self.emit(Op::Hadamard(id), self.ty(id)),
                None => V::Poison,
            },
            ("sum_k", []) => match self.wants(name, id, Layout::MmaB, DType::U8) {
                Some((_, cols)) => self.emit(Op::SumK(id), Ty::Tile { dtype: DType::I32, rows: 1, cols, layout: Layout::Cols }),
                None => V::Poison,
            },
            ("lane_totals", []) => match self.ty(id) {
                Ty::Tile { dtype: DType::U8, cols, layout: Layout::MmaB, .. } => self.emit(Op::LaneTotals(id), Ty::Tile { dtype: DType::I32, rows: 1, cols: 4 * cols, layout: Layout::Row }),
                t => self.fail(Fault::Layout { op: name.into(), wants: "a right operand of u8".into(), got: self.describe(t) }),
            },
            ("fold_fours", []) => match self.ty(id) {
                Ty::Tile { dtype: DType::I32, cols, layout: Layout::Row, .. } => self.emit(Op::FoldFours(id), Ty::Tile { dtype: DType::I32, rows: 1, cols: cols / 4, layout: Layout::Cols }),
                t => self.fail(Fault::Layout { op: name.into(), wants: "a vector of i32".into(), got: self.describe(t) }),
            },
            ("in_fours", []) => match self.ty(id) {
                Ty::Tile { dtype: DType::I32, cols, layout: Layout::Cols, .. } => self.emit(Op::InFours(id), Ty::Tile { dtype: DType::I32, rows: 1, cols: 4 * cols, layout: Layout::Row }),
                t => self.fail(Fault::Layout { op: name.into(), wants: "a row of columns of i32".into(), got: self.describe(t) }),
            },
            ("split_bytes" | "to_operand", []) if !matches!(self.ty(id), Ty::Tile { rows: 32, .. }) => self.fail(Fault::TileSize { tile: self.describe(self.ty(id)), wants: "its rows 32" }),
            ("split_bytes", []) => match self.wants(name, id, Layout::MmaC, DType::I32) {
                Some((rows, cols)) => {
                    let ty = Ty::Tile { dtype: DType::U8, rows, cols, layout: Layout::MmaB };
                    let (lo, hi) = {
                        let mut p = self.program.borrow_mut();
                        (p.fresh(ty), p.fresh(ty))
                    };
                    self.push(Op::SplitBytes(id), vec![lo, hi]);
                    V::Tuple(vec![V::S(lo), V::S(hi)])
                }
                None => V::Poison,
            },
            ("fold_halves", [weight]) => {
                let weight = weight.size(self, "the weight of the left half");
                match self.ty(id) {
                    t @ Ty::Tile { dtype: DType::F32, cols: 8, layout: Layout::Cols, .. } => self.emit(Op::FoldHalves { src: id, weight }, t),
                    Ty::Tile { dtype: DType::F32, rows, cols: 8, layout: Layout::MmaC } if rows % 32 == 0 => self.emit(Op::FoldHalves { src: id, weight }, Ty::Tile { dtype: DType::F32, rows: rows / 2, cols: 8, layout: Layout::MmaC }),
                    _ => self.halves(Op::FoldHalves { src: id, weight }, id, (32, DType::I32, Layout::MmaC), (16, DType::I32, Layout::MmaC)),
                }
            }
            ("fold_onto", [left, right, start]) => {
                let (left, right) = (left.size(self, "the weight of the left half"), right.size(self, "the weight of the right half"));
                let Some(start) = self.id(start) else { return V::Poison };
                match self.wants(name, start, Layout::Cols, DType::I32) {
                    Some((1, 8)) => self.halves(Op::FoldOnto { src: id, left, right, start }, id, (32, DType::I32, Layout::MmaC), (16, DType::I32, Layout::MmaC)),
                    Some(_) => self.fail(Fault::TileSize { tile: self.describe(self.ty(start)), wants: "its columns 8" }),
                    None => V::Poison,
                }
            }
            ("own_halves", []) => self.halves(Op::OwnHalves(id), id, (32, DType::F32, Layout::MmaC), (16, DType::F32, Layout::MmaC)),
            ("split_halves", []) => self.halves(Op::SplitHalves(id), id, (16, DType::I32, Layout::MmaC), (32, DType::U8, Layout::MmaB)),
            ("quad_order", []) => match self.ty(id) {
                t @ Ty::Tile { dtype: DType::I8 | DType::U8, layout: Layout::MmaA | Layout::MmaB, .. } => self.emit(Op::QuadOrder(id), t),
                _ => self.no_method(name, &V::S(id)),
            },
            ("twos_order", []) => match self.ty(id) {
                t @ Ty::Tile { dtype: DType::I8 | DType::U8, layout: Layout::MmaB, .. } => self.emit(Op::TwosOrder(id), t),
                _ => self.no_method(name, &V::S(id)),
            },
            ("band", [index, of]) => {
                let (index, of) = (index.size(self, "the number of a band"), of.size(self, "the number of bands"));
                match self.ty(id) {
                    Ty::Tile { dtype, rows, cols, layout: Layout::MmaA } if index < of && rows % (16 * of) == 0 => self.emit(Op::Band { src: id, index, of }, Ty::Tile { dtype, rows: rows / of, cols, layout: Layout::MmaA }),
                    t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "a left operand, 16 rows for each of its bands" }),
                }
            }
            ("swap_halves", []) => match self.ty(id) {
                t @ Ty::Tile { cols: 8, layout: Layout::Cols | Layout::MmaC, .. } => self.emit(Op::SwapHalves(id), t),
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "its columns 8" }),
            },
            ("left_halves", []) => match self.ty(id) {
                t @ Ty::Tile { cols: 8, layout: Layout::Cols, .. } => self.emit(Op::LeftHalves(id), t),
                t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "a row of 8 columns" }),
            },
            ("to_operand", []) => match self.wants(name, id, Layout::MmaC, DType::F32) {
                Some((rows, cols)) => self.emit(Op::ToOperand(id), Ty::Tile { dtype: DType::Bf16, rows, cols, layout: Layout::MmaB }),
                None => V::Poison,
            },
            _ => self.no_method(name, &v),
        }
    }
}
