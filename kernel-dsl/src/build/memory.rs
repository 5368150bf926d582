//! Buffers, shared arrays and packed pages.

use super::{B, V};
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

impl B {
    /// `shared::<T>(len)`: an array of the block, its contents undefined at first.
    pub fn shared(&self, dtype: DType, len: V) -> V {
        let len = len.size(self, "the length of a shared array");
        let at = {
            let mut p = self.program.borrow_mut();
            p.shared.push(SharedArray { dtype, len, over: None, offset: 0 });
            p.shared.len() - 1
        };
        self.fits();
        V::Buf(Buf::Shared(at), dtype)
    }

    /// The array that does not fit is the one to blame.
    pub(super) fn fits(&self) {
        let placed = crate::passes::alloc_shared::place(&mut self.program.borrow().clone());
        if let Err(what) = placed {
            self.fail(what);
        }
    }

    /// Rows of an operand are read 8 or 16 bytes at a time, a quarter a lane.
    fn aligned(&self, stride: usize, k: usize, dtype: DType) -> bool {
        let step = (k * dtype.size() / 4).clamp(8, 16);
        if stride % step != 0 {
            self.fail(Fault::OperandStride { stride, step });
        }
        stride % step == 0
    }

    /// Byte offset of element `i`.
    pub(super) fn byte(&self, buf: Buf, i: &V, size: usize) -> Id {
        let wide = matches!(buf, Buf::Param(_));
        let to = if wide { DType::I64 } else { DType::I32 };
        let i = match self.get(i) {
            V::S(id) => self.cast(V::S(id), to),
            v => V::S(self.id_of(&v, to)),
        };
        let at = if size == 1 { i } else { self.binary(BinOp::Mul, i, V::Int(size as i64)) };
        self.id_of(&at, to)
    }

    pub(super) fn load(&self, buf: Buf, at: Id, dtype: DType) -> V {
        self.emit(Op::Load { buf, at }, Ty::Scalar(dtype))
    }

    fn store(&self, buf: Buf, at: Id, value: &V, dtype: DType) -> V {
        let value = self.id_of(value, dtype);
        if self.ty(value) != Ty::Scalar(dtype) {
            let (left, right) = (dtype.name().into(), self.describe(self.ty(value)));
            return self.fail(Fault::Types { op: "put".into(), left, right });
        }
        self.push(Op::Store { buf, at, value }, vec![]);
        V::Unit
    }

    /// 16 bytes at once.
    fn load4(&self, buf: Buf, at: Id, dtype: DType) -> V {
        let outs: Vec<Id> = (0..4).map(|_| self.program.borrow_mut().fresh(Ty::Scalar(dtype))).collect();
        self.push(Op::LoadVec { buf, at, words: 4 }, outs.clone());
        V::Array(outs.into_iter().map(V::S).collect())
    }

    fn save4(&self, buf: Buf, at: Id, values: &V, dtype: DType) -> V {
        let V::Array(items) = values else { return self.no_method("save4", values) };
        let values: Vec<Id> = items.iter().map(|v| self.id_of(v, dtype)).collect();
        if let Some(bad) = values.iter().find(|v| self.ty(**v) != Ty::Scalar(dtype)) {
            let (left, right) = (dtype.name().into(), self.describe(self.ty(*bad)));
            return self.fail(Fault::Types { op: "save4".into(), left, right });
        }
        self.push(Op::StoreVec { buf, at, values }, vec![]);
        V::Unit
    }

    fn load_tile(&self, buf: Buf, dtype: DType, at: Id, strides: (usize, usize), shape: (usize, usize), layout: Layout) -> V {
        self.load_columns(buf, dtype, at, strides, usize::MAX, shape, layout)
    }

    #[allow(clippy::too_many_arguments)]
    fn load_columns(&self, buf: Buf, dtype: DType, at: Id, strides: (usize, usize), limit: usize, shape: (usize, usize), layout: Layout) -> V {
        let (rows, cols) = shape;
        let op = Op::LoadTile { buf, at, row_stride: strides.0, col_stride: strides.1, cols: limit, elem: dtype };
        self.emit(op, Ty::Tile { dtype, rows, cols, layout })
    }

    fn store_tile(&self, buf: Buf, dtype: DType, at: Id, strides: (usize, usize), cols: usize, value: &V) -> V {
        let value = self.id_of(value, dtype);
        if self.ty(value).dtype() != dtype {
            let (left, right) = (dtype.name().into(), self.describe(self.ty(value)));
            return self.fail(Fault::Types { op: "put".into(), left, right });
        }
        self.push(Op::StoreTile { buf, at, row_stride: strides.0, col_stride: strides.1, cols, value }, vec![]);
        V::Unit
    }

    /// Methods of buffers and shared arrays of `dtype`; indices and strides count elements.
    pub(super) fn buffer_method(&self, name: &str, buf: Buf, dtype: DType, args: &[V]) -> V {
        if let Buf::Own(own) = buf {
            return self.own_method(name, own, args);
        }
        let e = dtype.size();
        let at = |i: usize| self.byte(buf, &args[i], e);
        let n = |i: usize| args[i].size(self, "the size of a tile");
        match (name, args.len()) {
            ("at", 1) => self.load(buf, at(0), dtype),
            ("put", 2) => self.store(buf, at(0), &args[1], dtype),
            ("prefetch", 1) if matches!(buf, Buf::Param(_)) => {
                self.push(Op::Prefetch { buf, at: self.byte(buf, &args[0], 1), bytes: None }, vec![]);
                V::Unit
            }
            ("prefetch_some", 2) if matches!(buf, Buf::Param(_)) => {
                let (at, bytes) = (self.byte(buf, &args[0], 1), self.id_of(&args[1], DType::I32));
                self.push(Op::Prefetch { buf, at, bytes: Some(bytes) }, vec![]);
                V::Unit
            }
            ("peek", 1) if matches!(buf, Buf::Param(_)) && e == 4 => self.emit(Op::Peek { buf, at: at(0) }, Ty::Scalar(dtype)),
            ("row", 2) => self.load_tile(buf, dtype, at(0), (0, e), (1, n(1)), Layout::Row),
            ("gather", 1) if matches!(buf, Buf::Shared(_)) => {
                let size = V::Int(e as i64);
                let Some(at) = self.id(&self.binary(BinOp::Mul, args[0].clone(), size)) else { return V::Poison };
                match self.ty(at) {
                    t @ Ty::Tile { dtype: DType::I32, layout: Layout::Row, .. } => self.emit(Op::Gather { buf, at }, t.with(dtype)),
                    t => self.fail(Fault::Layout { op: "gather".into(), wants: "a vector of i32".into(), got: self.describe(t) }),
                }
            }
            ("marks" | "key_marks", 1) if matches!(buf, Buf::Slot(..)) => {
                let op = Op::Marks { buf, at: self.byte(buf, &args[0], 1), of_keys: name == "key_marks" };
                self.emit(op, Ty::Tile { dtype: DType::U8, rows: 32, cols: 32, layout: Layout::MmaA })
            }
            ("key_lengths", 2) if matches!(buf, Buf::Slot(..)) => {
                let op = Op::Lengths { buf, at: self.byte(buf, &args[0], 1), pairs: self.byte(buf, &args[1], 1) };
                self.emit(op, Ty::Tile { dtype: DType::F16, rows: 32, cols: 16, layout: Layout::MmaA })
            }
            ("bring", 3) => match (buf, self.get(&args[1])) {
                (Buf::Shared(_), V::Buf(Buf::Param(src), _)) => {
                    self.push(Op::Bring { buf, at: self.byte(buf, &args[0], 1), src, from: self.byte(Buf::Param(src), &args[2], 1) }, vec![]);
                    V::Unit
                }
                _ => self.fail(Fault::NoMethod { name: "bring".into(), on: "anything but shared and global memory".into() }),
            },
            ("put_row", 2) => self.store_tile(buf, dtype, at(0), (0, e), usize::MAX, &args[1]),
            ("rows", 3) => self.load_tile(buf, dtype, at(0), (n(1) * e, 0), (n(2), 1), Layout::Rows),
            ("cols", 3) => self.load_tile(buf, dtype, at(0), (0, n(1) * e), (1, n(2)), Layout::Cols),
            ("put_cols", 4) => self.store_tile(buf, dtype, at(0), (0, n(1) * e), n(2), &args[3]),
            ("put_rows", 3) => self.store_tile(buf, dtype, at(0), (n(1) * e, 0), usize::MAX, &args[2]),
            ("spread", 1) if e == 4 => self.emit(Op::LoadSpread { buf, at: at(0) }, Ty::Tile { dtype, rows: 1, cols: 32, layout: Layout::Cols }),
            ("put_acc", 5) => self.store_tile(buf, dtype, at(0), (n(1) * e, n(2) * e), n(3), &args[4]),
            ("acc", 5) if e != 4 || n(2) == 0 || n(3) % 32 != 0 => {
                self.fail(Fault::TileSize { tile: format!("{} rows of {} columns in memory", n(3), n(2)), wants: "its elements four bytes, its rows a multiple of 32, at least one column" })
            }
            ("acc", 5) => self.load_columns(buf, dtype, at(0), (e, n(1) * e), n(2), (n(3), n(4)), Layout::MmaC),
            ("put_cores", 3) => {
                let (byte, value) = (n(1), self.id_of(&args[2], DType::I32));
                match self.ty(value) {
                    Ty::Tile { dtype: DType::I32, rows: 8, cols, layout: Layout::MmaC } if cols % 16 == 0 && e == 1 && byte < 4 => {
                        self.push(Op::StoreCores { buf, at: at(0), byte, value }, vec![]);
                        V::Unit
                    }
                    t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "i32, eight rows and a multiple of 16 columns, into bytes" }),
                }
            }
            ("put_halves", 4) => {
                let (stride, heads, value) = (n(1) * e, n(2), self.id_of(&args[3], dtype));
                match self.ty(value) {
                    Ty::Tile { dtype: DType::F32, cols: 8, layout: Layout::MmaC, .. } if dtype == DType::F32 => {
                        self.push(Op::StoreHalves { buf, at: at(0), stride, heads, value }, vec![]);
                        V::Unit
                    }
                    t => self.fail(Fault::Types { op: "put_halves".into(), left: dtype.name().into(), right: self.describe(t) }),
                }
            }
            ("halves", 4) if dtype == DType::F32 && n(2) > 0 => self.emit(Op::LoadHalves { buf, at: at(0), stride: n(1) * e, heads: n(2) }, Ty::Tile { dtype, rows: n(3), cols: 8, layout: Layout::MmaC }),
            ("left", 4) if !self.aligned(n(1) * e, n(3), dtype) => V::Poison,
            ("left", 4) => self.load_tile(buf, dtype, at(0), (n(1) * e, e), (n(2), n(3)), Layout::MmaA),
            _ => self.fail(Fault::NoMethod { name: name.into(), on: "a buffer".into() }),
        }
    }

    /// Methods that name an element type: byte offsets into raw memory.
    pub fn method_typed(&self, name: &str, dtype: DType, recv: &V, args: Vec<V>) -> V {
        let args: Vec<V> = args.iter().map(|a| self.get(a)).collect();
        match (self.get(recv), name, args.len()) {
            (V::Buf(buf, _), "load", 1) => self.load(buf, self.byte(buf, &args[0], 1), dtype),
            (V::Buf(buf, _), "save", 2) => self.store(buf, self.byte(buf, &args[0], 1), &args[1], dtype),
            (V::Buf(buf, _), "load4", 1) if dtype.size() == 4 => self.load4(buf, self.byte(buf, &args[0], 1), dtype),
            (V::Buf(buf, _), "save4", 2) if dtype.size() == 4 => self.save4(buf, self.byte(buf, &args[0], 1), &args[1], dtype),
            (V::Buf(buf, _), "rows" | "rows_at", 3) => {
                let (stride, n) = (args[1].size(self, "a stride"), args[2].size(self, "the size of a tile"));
                self.load_tile(buf, dtype, self.byte(buf, &args[0], 1), (stride, 0), (n, 1), Layout::Rows)
            }
            (V::Buf(buf, _), "columns", 3) => {
                let (stride, n) = (args[1].size(self, "a stride"), args[2].size(self, "the size of a tile"));
                self.load_tile(buf, dtype, self.byte(buf, &args[0], 1), (0, stride), (1, n), Layout::Cols)
            }
            (V::Buf(buf, _), "alike", 3) => {
                let (rows, cols) = (args[1].size(self, "the size of a tile"), args[2].size(self, "the size of a tile"));
                let ty = Ty::Tile { dtype, rows, cols, layout: Layout::MmaC };
                if rows % 16 != 0 || cols % 8 != 0 || dtype.size() != 4 {
                    return self.fail(Fault::TileSize { tile: self.describe(ty), wants: "elements of four bytes, its rows a multiple of 16 and its columns of 8" });
                }
                self.emit(Op::LoadAlike { buf, at: self.byte(buf, &args[0], 1) }, ty)
            }
            (V::Buf(buf, _), "pairs", 2) => {
                let stride = args[1].size(self, "a stride");
                let op = Op::LoadPairs { buf, at: self.byte(buf, &args[0], 1), stride, elem: dtype };
                self.emit(op, Ty::Tile { dtype, rows: 16, cols: 8, layout: Layout::MmaC })
            }
            (V::Buf(buf, _), "operand", 4) => {
                let n: Vec<usize> = args[1..].iter().map(|a| a.size(self, "the size of a tile")).collect();
                if !self.aligned(n[0], n[2], dtype) {
                    return V::Poison;
                }
                let op = Op::LoadOperand { buf, at: self.byte(buf, &args[0], 1), stride: n[0] };
                self.emit(op, Ty::Tile { dtype, rows: n[2], cols: n[1], layout: Layout::MmaB })
            }
            (V::Buf(buf, _), "packed_left", 3) => {
                let (m, k) = (args[1].size(self, "the size of a tile"), args[2].size(self, "the size of a tile"));
                let ty = Ty::Tile { dtype, rows: m, cols: k, layout: Layout::MmaA };
                if m % 16 != 0 || k % 32 != 0 || dtype.size() != 1 {
                    return self.fail(Fault::TileSize { tile: self.describe(ty), wants: "bytes, its rows a multiple of 16 and its columns of 32" });
                }
                self.emit(Op::LoadLeft { buf, at: self.byte(buf, &args[0], 1) }, ty)
            }
            (V::Buf(buf, _), "save_left", 2) => {
                let value = self.id_of(&args[1], dtype);
                match self.ty(value) {
                    Ty::Tile { dtype: d, layout: Layout::MmaA, .. } if d == dtype && d.size() == 1 => {
                        self.push(Op::StorePacked { buf, at: self.byte(buf, &args[0], 1), value }, vec![]);
                        V::Unit
                    }
                    t => self.fail(Fault::Layout { op: "save_left".into(), wants: "a left operand of bytes".into(), got: self.describe(t) }),
                }
            }
            (V::Buf(buf, _), "save_operand", 2) => {
                let value = self.id_of(&args[1], dtype);
                match self.ty(value) {
                    Ty::Tile { dtype: d, rows, cols, layout: Layout::MmaB } if d == dtype && d.size() == 1 && rows * cols % 512 == 0 => {
                        self.push(Op::StorePacked { buf, at: self.byte(buf, &args[0], 1), value }, vec![]);
                        V::Unit
                    }
                    t => self.fail(Fault::Layout { op: "save_operand".into(), wants: "a right operand of bytes, a multiple of 512".into(), got: self.describe(t) }),
                }
            }
            (V::Buf(buf, _), "packed_right", 3) => {
                let (k, n) = (args[1].size(self, "the size of a tile"), args[2].size(self, "the size of a tile"));
                let ty = Ty::Tile { dtype, rows: k, cols: n, layout: Layout::MmaB };
                let bytes = k * dtype.size();
                if bytes % 32 != 0 || n % 8 != 0 || bytes * n % 512 != 0 || dtype.size() > 2 {
                    return self.fail(Fault::TileSize { tile: self.describe(ty), wants: "elements of one or two bytes, its columns multiples of 32 bytes, as many as a multiple of 8, a multiple of 512 bytes in all" });
                }
                self.emit(Op::LoadRight { buf, at: self.byte(buf, &args[0], 1) }, ty)
            }
            (V::Buf(buf, _), "save_right" | "save_spread", 2) => {
                let (value, spread) = (self.id_of(&args[1], dtype), name == "save_spread");
                match self.ty(value) {
                    Ty::Tile { dtype: d, rows, cols, layout: Layout::MmaA } if d == dtype && d.size() == 1 && (if spread { rows == 32 && cols % 64 == 0 } else { rows % 64 == 0 && cols == 32 }) => {
                        self.push(Op::StoreRight { buf, at: self.byte(buf, &args[0], 1), value, spread }, vec![]);
                        V::Unit
                    }
                    t => self.fail(Fault::TileSize { tile: self.describe(t), wants: "a left operand of bytes: 32 columns and a multiple of 64 rows, or where columns are spread the other way round" }),
                }
            }
            (V::Buf(buf @ Buf::Shared(_), _), "line_columns", 1) if dtype.size() == 1 => self.emit(Op::LoadLines { buf, at: self.byte(buf, &args[0], 1) }, Ty::Tile { dtype, rows: 16, cols: 128, layout: Layout::MmaA }),
            (V::Buf(buf, _), "save_acc", 5) => {
                let n: Vec<usize> = args[1..4].iter().map(|a| a.size(self, "the size of a tile")).collect();
                self.store_tile(buf, dtype, self.byte(buf, &args[0], 1), (n[0], n[1]), n[2], &args[4])
            }
            (V::Buf(buf, _), "save_row", 2) => self.store_tile(buf, dtype, self.byte(buf, &args[0], 1), (0, dtype.size()), usize::MAX, &args[1]),
            (V::Ring(ring), "between", 1) => self.between(ring, dtype, &args[0]),
            (v, "cast" | "to", 0) => self.cast(v, dtype),
            (V::Poison, ..) => V::Poison,
            (v, ..) => self.no_method(name, &v),
        }
    }

    /// Methods whose last argument is a device function.
    pub fn method_fn(&self, name: &str, recv: &V, args: Vec<V>, f: &dyn Fn(&B, Vec<V>) -> V) -> V {
        let args: Vec<V> = args.iter().map(|a| self.get(a)).collect();
        match (self.get(recv), name, args.as_slice()) {
            (V::S(id), "map", []) => f(self, vec![V::S(id)]),
            (V::S(id), "map2", [x]) => f(self, vec![V::S(id), x.clone()]),
            (V::S(id), "map3", [x, y]) => f(self, vec![V::S(id), x.clone(), y.clone()]),
            (V::Buf(buf @ (Buf::Slot(..) | Buf::Param(_)), _), "keys" | "values" | "quads" | "key_quads" | "key_twos", [at, bits, d, lane]) => self.unpack(buf, name, [at, bits, d, lane], None, f),
            (V::Buf(buf @ Buf::Slot(..), _), "grouped_keys" | "grouped_values", [at, bits, d, lane, dims, shared]) => self.unpack(buf, &name["grouped_".len()..], [at, bits, d, lane], Some((dims, shared)), f),
            (V::Poison, ..) => V::Poison,
            (v, ..) => self.no_method(name, &v),
        }
    }

    fn unpack(&self, buf: Buf, name: &str, [at, bits, d, lane_bits]: [&V; 4], group: Option<(&V, &V)>, f: &dyn Fn(&B, Vec<V>) -> V) -> V {
        let (bits, d) = (bits.size(self, "the code bits"), d.size(self, "the head dimension"));
        let lane = if lane_bits.size(self, "the lane's bits") == 8 { DType::U8 } else { DType::Bf16 };
        let feed = match name {
            "keys" => Feed::Keys,
            "values" => Feed::Values,
            "key_quads" => Feed::KeyQuads,
            "key_twos" => Feed::KeyTwos,
            _ => Feed::Quads,
        };
        let results = match (feed, lane) {
            (feed, _) if feed.transposed() => 8,
            (_, DType::U8) => 2,
            _ => 4,
        };
        let words = if feed.transposed() { 8 } else { 4 };
        let func = self.func(&format!("decode_{name}_{bits}"), words, results, f);
        let at = self.byte(buf, at, 1);
        let (rows, cols) = if feed.of_keys() { (crate::pack::TOKENS, d) } else { (d, crate::pack::TOKENS) };
        let group = group.map_or(Group::default(), |(dims, bits)| Group { dims: dims.size(self, "the dims of a group"), bits: bits.size(self, "the bits of a group") });
        let packing = Packing { bits, d, feed, lane, group };
        self.emit(Op::Unpack { buf, at, packing, func }, Ty::Tile { dtype: lane, rows, cols, layout: Layout::MmaA })
    }

    /// Order between launches: nothing that a block by itself could see.
    pub fn order(&self, op: Op) -> V {
        self.push(op, vec![]);
        V::Unit
    }
}
