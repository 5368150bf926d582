//! Loads and stores of tiles, register by register.

use super::lower::Lower;
use crate::dtype::DType;
use crate::ir::*;

/// A row in shared memory of which a lane has 16 bytes or more side by side: it begins at a multiple of 16 bytes.
fn wide(buf: Buf, ty: Ty, stride: usize) -> bool {
    matches!(ty, Ty::Tile { layout: Layout::Row, .. }) && matches!(buf, Buf::Shared(_)) && (ty.dtype().size(), stride) == (4, 4) && ty.regs().is_multiple_of(4)
}

impl Lower {
    /// Words from one place on, 16 bytes at a time; `bytes` is a power of two.
    pub fn run(&mut self, buf: Buf, at: Id, bytes: usize) -> Vec<Id> {
        let step = bytes.min(16);
        let mut all = vec![];
        for c in 0..bytes / step {
            let a = self.offset(at, c * step);
            let outs: Vec<Id> = (0..step / 4).map(|_| self.p.fresh(Ty::Scalar(DType::U32))).collect();
            self.push(Op::LoadVec { buf, at: a, words: step / 4 }, outs.clone());
            all.extend(outs);
        }
        all
    }

    pub fn load_operand(&mut self, buf: Buf, at: Id, stride: usize, ty: Ty) -> Vec<Id> {
        let Ty::Tile { dtype, rows: k, cols: n, .. } = ty else { return vec![] };
        let bytes = k * dtype.size() / 4;
        let column = self.right_column(n);
        let (row, part) = (self.scaled(column, stride), self.scaled(self.t, bytes));
        let base = self.plus(at, row);
        let base = self.plus(base, part);
        let mut regs = vec![];
        for nt in 0..n / 8 {
            let a = self.offset(base, nt * 8 * stride);
            regs.extend(self.run(buf, a, bytes));
        }
        regs
    }

    /// Row and column of the register, as (lane part of the row, fixed row, lane part of the column, fixed column).
    fn place(&mut self, ty: Ty, r: usize) -> [(Option<Id>, usize); 2] {
        let Ty::Tile { rows, cols, layout, .. } = ty else { return [(None, 0); 2] };
        match layout {
            Layout::MmaC if rows == 8 => [(Some(self.g), 0), (Some(self.own_column(cols)), r / 2 * 8 + self.further(r % 2, cols))],
            Layout::MmaC => {
                let (mt, nt, i) = (r / (cols / 8 * 4), r % (cols / 8 * 4) / 4, r % 4);
                [(Some(self.scaled(self.g, rows / 8)), 2 * mt + i / 2), (Some(self.own_column(cols)), nt * 8 + self.further(i % 2, cols))]
            }
            Layout::Rows => [(Some(self.scaled(self.g, rows / 8)), r), (None, 0)],
            Layout::Cols => [(None, 0), (Some(self.own_column(cols)), r / 2 * 8 + self.further(r % 2, cols))],
            _ => [(None, 0), (Some(self.scaled(self.lane, cols / 32)), r)],
        }
    }

    fn address(&mut self, at: Id, ty: Ty, r: usize, strides: (usize, usize)) -> Id {
        let [(row, dr), (col, dc)] = self.place(ty, r);
        let mut a = at;
        for (part, stride) in [(row, strides.0), (col, strides.1)] {
            if let Some(part) = part {
                let part = self.scaled(part, stride);
                a = self.plus(a, part);
            }
        }
        self.offset(a, dr * strides.0 + dc * strides.1)
    }

    pub fn load_tile(&mut self, buf: Buf, at: Id, strides: (usize, usize), limit: usize, elem: DType, ty: Ty) -> Vec<Id> {
        if let Ty::Tile { rows: m, cols: k, layout: Layout::MmaA, .. } = ty {
            return self.load_left(buf, at, strides.0, (m, k * elem.size() / 4));
        }
        // The four rows of a lane, side by side in memory: one 16-byte load.
        if let (Ty::Tile { rows: 32, layout: Layout::Rows, .. }, 4, DType::U32) = (ty, strides.0, elem) {
            let part = self.scaled(self.g, 16);
            let a = self.plus(at, part);
            return self.run(buf, a, 16);
        }
        if let (Ty::Tile { rows: 32.., layout: Layout::MmaC, .. }, true, 4) = (ty, strides.0 == elem.size(), elem.size()) {
            return self.load_columns((buf, at, strides.1, limit), elem, ty);
        }
        if wide(buf, ty, strides.1) {
            return (0..ty.regs())
                .step_by(4)
                .flat_map(|r| {
                    let (a, outs) = (self.address(at, ty, r, strides), [(); 4].map(|()| self.p.fresh(Ty::Scalar(elem))));
                    self.push(Op::LoadVec { buf, at: a, words: 4 }, outs.to_vec());
                    outs
                })
                .collect();
        }
        (0..ty.regs())
            .map(|r| {
                let a = self.address(at, ty, r, strides);
                self.emit(Op::Load { buf, at: a }, elem)
            })
            .collect()
    }

    /// The other way round of `store_columns`.
    fn load_columns(&mut self, (buf, at, stride, limit): (Buf, Id, usize, usize), elem: DType, ty: Ty) -> Vec<Id> {
        let Ty::Tile { rows, cols, .. } = ty else { return vec![] };
        let (row, col) = (self.scaled(self.g, rows / 8 * 4), self.own_column(cols));
        let base = self.plus(at, row);
        let mut regs = vec![0; ty.regs()];
        for nt in 0..cols / 8 {
            for e in 0..2 {
                let mut own = self.offset(col, nt * 8 + self.further(e, cols));
                if limit < cols {
                    let last = self.int(limit as i64 - 1);
                    own = self.bin(BinOp::Min, own, last);
                }
                let part = self.scaled(own, stride);
                let a = self.plus(base, part);
                for chunk in 0..rows / 32 {
                    let a = self.offset(a, chunk * 16);
                    let outs: Vec<Id> = (0..4).map(|_| self.p.fresh(Ty::Scalar(elem))).collect();
                    self.push(Op::LoadVec { buf, at: a, words: 4 }, outs.clone());
                    for (i, out) in outs.into_iter().enumerate() {
                        regs[((2 * chunk + i / 2) * (cols / 8) + nt) * 4 + i % 2 * 2 + e] = out;
                    }
                }
            }
        }
        regs
    }

    /// Left operand from rows of k elements: lane (g, t) holds rows g*(m/8)..
    fn load_left(&mut self, buf: Buf, at: Id, stride: usize, (m, bytes): (usize, usize)) -> Vec<Id> {
        let (row, part) = (self.scaled(self.g, m / 8 * stride), self.scaled(self.t, bytes));
        let base = self.plus(at, row);
        let base = self.plus(base, part);
        let steps = bytes / 8;
        let mut regs = vec![0; m / 16 * steps * 4];
        for i in 0..m / 8 {
            let a = self.offset(base, i * stride);
            for (n, word) in self.run(buf, a, bytes).into_iter().enumerate() {
                regs[(i / 2 * steps + n / 2) * 4 + n % 2 * 2 + i % 2] = word;
            }
        }
        regs
    }

    /// An operand in the order of the lanes' registers: a warp reads 512 bytes side by side.
    pub fn load_packed(&mut self, buf: Buf, at: Id, lane: Id, ty: Ty) -> Vec<Id> {
        let lane = self.scaled(lane, 16);
        let base = self.plus(at, lane);
        let mut regs = vec![];
        for product in 0..ty.regs() / 4 {
            let a = self.offset(base, product * 512);
            regs.extend(self.run(buf, a, 16));
        }
        regs
    }

    /// And back.
    pub fn store_packed(&mut self, buf: Buf, at: Id, lane: Id, value: Id) {
        let lane = self.scaled(lane, 16);
        let base = self.plus(at, lane);
        for (product, words) in self.tile(value).chunks(4).enumerate() {
            let at = self.offset(base, product * 512);
            self.push(Op::StoreVec { buf, at, values: words.to_vec() }, vec![]);
        }
    }

    /// Byte of a place among a thread's own.
    fn own_place(&mut self, own: usize, place: Id) -> Id {
        self.scaled(place, self.p.own[own].bytes())
    }

    /// A lane's registers of a tile, 16 bytes at a time.
    pub fn put_by(&mut self, own: usize, place: Id, value: Id) {
        let (at, regs) = (self.own_place(own, place), self.tile(value));
        for (i, values) in regs.chunks(4).enumerate() {
            let (at, buf) = (self.offset(at, 16 * i), Buf::Own(own));
            self.push(Op::StoreVec { buf, at, values: values.to_vec() }, vec![]);
        }
    }

    pub fn take_up(&mut self, own: usize, place: Id, ty: Ty) -> Vec<Id> {
        let at = self.own_place(own, place);
        let mut regs = vec![];
        for first in (0..ty.regs()).step_by(4) {
            let (at, words) = (self.offset(at, 4 * first), (ty.regs() - first).min(4));
            let outs: Vec<Id> = (0..words).map(|_| self.p.fresh(Ty::Scalar(ty.dtype()))).collect();
            self.push(Op::LoadVec { buf: Buf::Own(own), at, words }, outs.clone());
            regs.extend(outs);
        }
        regs
    }

    /// Columns at or past the limit are not stored; of equal copies only the first lane's is.
    pub fn store_tile(&mut self, op: &Op) {
        let Op::StoreTile { buf, at, row_stride, col_stride, cols, value } = *op else { return };
        let ty = self.p.ty(value);
        let Ty::Tile { layout, cols: have, .. } = ty else { return };
        let regs = self.tile(value);
        let mut cond = None;
        let zero = self.int(0);
        match layout {
            Layout::Rows => cond = Some(self.bin(BinOp::Eq, self.t, zero)),
            Layout::Cols => cond = Some(self.bin(BinOp::Eq, self.g, zero)),
            _ => {}
        }
        if let Ty::Tile { layout: Layout::MmaC, dtype, rows: rows @ 16.., .. } = ty {
            // Consecutive rows of a column lie in one lane.
            if row_stride == dtype.size() && (dtype.size() == 4 && rows != 24 || dtype.size() == 1 && rows % 32 == 0) {
                let columns = self.columns((rows, have, dtype.size()), &regs);
                let step = if rows == 16 {
                    2
                } else if columns[0].len() % 4 == 0 {
                    4
                } else {
                    1
                };
                return self.store_columns((buf, at, col_stride, cols), rows / 8 * dtype.size(), step, columns);
            }
        }
        // Neighbouring bytes of a vector leave as words.
        if let (Ty::Tile { layout: Layout::Row, dtype, .. }, Buf::Param(_), 1) = (ty, buf, col_stride) {
            if dtype.size() == 1 && regs.len() % 4 == 0 {
                let lane = self.scaled(self.lane, regs.len());
                let base = self.plus(at, lane);
                for (i, w) in regs.chunks(4).enumerate() {
                    let (value, a) = (self.word(w), self.offset(base, 4 * i));
                    self.push(Op::Store { buf, at: a, value }, vec![]);
                }
                return;
            }
        }
        if wide(buf, ty, col_stride) {
            for (i, values) in regs.chunks(4).enumerate() {
                let a = self.address(at, ty, 4 * i, (row_stride, col_stride));
                self.push(Op::StoreVec { buf, at: a, values: values.to_vec() }, vec![]);
            }
            return;
        }
        let body = self.region(|l| {
            for (r, v) in regs.into_iter().enumerate() {
                let store = l.region(|l| {
                    let a = l.address(at, ty, r, (row_stride, col_stride));
                    l.push(Op::Store { buf, at: a, value: v }, vec![]);
                });
                if cols >= have || layout == Layout::Row || layout == Layout::Rows {
                    l.append(store);
                    continue;
                }
                let [_, (col, dc)] = l.place(ty, r);
                let limit = l.int(cols as i64 - dc as i64);
                if let Some(col) = col {
                    let inside = l.bin(BinOp::Lt, col, limit);
                    l.push(Op::If { cond: inside, then: store, other: vec![] }, vec![]);
                }
            }
        });
        match cond {
            Some(cond) => self.push(Op::If { cond, then: body, other: vec![] }, vec![]),
            None => self.append(body),
        }
    }

    /// A lane's words of its two columns of every eight: elements of four bytes, or four bytes a word.
    fn columns(&mut self, (rows, cols, size): (usize, usize, usize), regs: &[Id]) -> Vec<Vec<Id>> {
        let own = |nt: usize, e: usize| (0..rows / 8).map(move |i| regs[(i / 2 * (cols / 8) + nt) * 4 + i % 2 * 2 + e]).collect::<Vec<Id>>();
        let columns: Vec<Vec<Id>> = (0..cols / 8).flat_map(|nt| [own(nt, 0), own(nt, 1)]).collect();
        if size == 4 {
            return columns;
        }
        columns.iter().map(|column| column.chunks(4).map(|w| self.word(w)).collect()).collect()
    }

    /// Four bytes side by side.
    fn word(&mut self, w: &[Id]) -> Id {
        let (low, high) = (self.prmt(w[0], w[1], 0x0040), self.prmt(w[2], w[3], 0x0040));
        self.prmt(low, high, 0x5410)
    }

    /// Words that lie side by side in memory, `line` bytes a lane: `step` words a store.
    fn store_columns(&mut self, (buf, at, stride, limit): (Buf, Id, usize, usize), line: usize, step: usize, columns: Vec<Vec<Id>>) {
        let cols = columns.len() * 4;
        let (row, col) = (self.scaled(self.g, line), self.own_column(cols));
        let base = self.plus(at, row);
        for (i, words) in columns.into_iter().enumerate() {
            let first = i / 2 * 8 + self.further(i % 2, cols);
            let store = self.region(|l| {
                let part = l.scaled(col, stride);
                let a = l.plus(base, part);
                for (chunk, values) in words.chunks(step).enumerate() {
                    let a = l.offset(a, first * stride + chunk * 4 * step);
                    match values {
                        [value] => l.push(Op::Store { buf, at: a, value: *value }, vec![]),
                        values => l.push(Op::StoreVec { buf, at: a, values: values.to_vec() }, vec![]),
                    }
                }
            });
            let last = self.int(limit as i64 - first as i64);
            let inside = self.bin(BinOp::Lt, col, last);
            self.push(Op::If { cond: inside, then: store, other: vec![] }, vec![]);
        }
    }

    fn append(&mut self, stmts: Vec<Stmt>) {
        for s in stmts {
            self.push(s.op, s.outs);
        }
    }
}
