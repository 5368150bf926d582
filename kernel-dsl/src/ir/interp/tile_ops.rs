//! Operations that make a tile, as whole matrices.

use super::matrix;
use super::memory::{self, Region};
use super::scalar;
use super::tile::{Machine, Value};
use super::trap::Wrong;
use crate::dtype::DType;
use crate::ir::*;
use crate::pack::{beside, left_byte, right_byte, spread};
use crate::tile::{band_row, four, fours, pair};

impl Machine<'_> {
    pub(super) fn tile_stmt(&mut self, s: &Stmt, out: Id, buffers: &mut [Region]) -> Result<(), Wrong> {
        let tile = match &s.op {
            Op::RowIndex => match self.p.ty(out) {
                Ty::Tile { rows, .. } => (0..rows as u64).collect(),
                Ty::Scalar(_) => vec![0],
            },
            Op::Reduce { op, axis, src } => {
                let (shape, x) = self.tile(*src)?;
                let y = matrix::reduce(*op, *axis, shape, &x)?;
                if *axis == Axis::All {
                    self.put(out, y[0]);
                    return Ok(());
                }
                y
            }
            Op::Any(a) => {
                let any = self.tile(*a)?.1.iter().any(|x| x & 1 != 0);
                self.put(out, u64::from(any));
                return Ok(());
            }
            Op::VectorIndex => match self.p.ty(out) {
                Ty::Tile { cols, .. } => (0..cols as u64).collect(),
                Ty::Scalar(_) => vec![0],
            },
            Op::Gather { buf, at } => {
                let places = self.tile(*at)?.1;
                places.iter().map(|at| self.load(buf, scalar::int(DType::I32, *at), self.p.ty(out).dtype(), buffers)).collect::<Result<Vec<u64>, _>>()?
            }
            Op::OfLane(a, index) => {
                let of = self.tile(*a)?.1[(self.offset(*index)? & 31) as usize];
                self.put(out, of);
                return Ok(());
            }
            Op::AnyRows { src, pairs } => {
                let (shape, x) = self.tile(*src)?;
                let holds = |c: usize| (0..shape.rows).any(|r| x[r * shape.cols + c] & 1 != 0);
                (0..shape.cols).map(|c| u64::from(holds(c) || *pairs && holds(c ^ 4))).collect()
            }
            Op::Raise(by) => match self.p.ty(out) {
                Ty::Tile { rows, .. } => (0..rows).map(|r| 1 << by[r % 8]).collect(),
                Ty::Scalar(_) => vec![1],
            },
            Op::MmaRaised { a, b, by } => {
                let ((sa, a), (sb, b)) = (self.tile(*a)?, self.tile(*b)?);
                matrix::mma_raised((sa, &a), (sb, &b), by)
            }
            Op::Mma { a, b, c } => {
                let ((sa, a), (sb, b), (_, c)) = (self.tile(*a)?, self.tile(*b)?, self.tile(*c)?);
                matrix::mma(sa, &a, sb, &b, &c)
            }
            Op::MmaShared { a, buf, at, stride, c } => self.mma_shared(*a, (buf, *at, *stride), *c, buffers)?,
            Op::StoreCores { buf, at, byte, value } => return self.store_cores(buf, *at, *byte, *value, buffers),
            Op::FoldCols { src, weight } => {
                let (shape, x) = self.tile(*src)?;
                let n = shape.cols / 2;
                let of = |r: usize, c: usize| scalar::int(DType::I32, x[r * shape.cols + c]);
                (0..shape.rows * n).map(|i| scalar::truncated(DType::I32, (of(i / n, i % n) * *weight as i64 + of(i / n, i % n + n)) as u64)).collect()
            }
            Op::SumK(a) => {
                let (shape, x) = self.tile(*a)?;
                matrix::sum_k(shape, &x)
            }
            Op::LaneTotals(a) => {
                let (shape, x) = self.tile(*a)?;
                (0..4 * shape.cols).map(|i| four(shape.rows, shape.cols, i).map(|(k, c)| x[k * shape.cols + c]).sum()).collect()
            }
            Op::FoldFours(a) => {
                let x = self.tile(*a)?.1;
                let of = |c: usize| fours(x.len() / 4, c).map(|i| scalar::int(DType::I32, x[i])).sum::<i64>();
                (0..x.len() / 4).map(|c| scalar::truncated(DType::I32, of(c) as u64)).collect()
            }
            Op::InFours(a) => {
                let x = self.tile(*a)?.1;
                let mut out = vec![0; 4 * x.len()];
                (0..x.len()).for_each(|c| out[fours(x.len(), c).next().unwrap_or(0)] = x[c]);
                out.into()
            }
            Op::SplitBytes(a) => {
                let (_, x) = self.tile(*a)?;
                self.values[s.outs[1] as usize] = Some(Value::Tile(x.iter().map(|x| x >> 8 & 0xff).collect()));
                x.iter().map(|x| x & 0xff).collect()
            }
            Op::FoldHalves { src, weight } => {
                let (shape, x) = self.tile(*src)?;
                let both = |r: usize, head: usize| match shape.dtype {
                    DType::F32 => u64::from(f32::from_bits(x[r * 8 + head] as u32).mul_add(*weight as f32, f32::from_bits(x[r * 8 + head + 4] as u32)).to_bits()),
                    d => scalar::truncated(d, (scalar::int(d, x[r * 8 + head]) * *weight as i64 + scalar::int(d, x[r * 8 + head + 4])) as u64),
                };
                match shape.rows {
                    1 => (0..8).map(|c| both(0, c % 4)).collect(),
                    n => (0..n * 4).map(|i| both(pair::whose(n, i / 8, i % 8), i % 4)).collect(),
                }
            }
            Op::FoldOnto { src, left, right, start } => {
                let ((_, x), (_, first)) = (self.tile(*src)?, self.tile(*start)?);
                let of = |bits: u64, by: usize| scalar::int(DType::I32, bits) * by as i64;
                pair::tile(|t, head| scalar::truncated(DType::I32, (of(x[t * 8 + head], *left) + of(x[t * 8 + head + 4], *right) + of(first[head], 1)) as u64))
            }
            Op::OwnHalves(a) => {
                let x = self.tile(*a)?.1;
                (0..128).map(|i| x[pair::token(i / 8, i % 8) * 8 + i % 8]).collect()
            }
            Op::LoadHalves { buf, at, stride, heads } => {
                let (at, Ty::Tile { rows, .. }) = (self.offset(*at)?, self.p.ty(out)) else { return Err(Wrong::Unsupported { op: "LoadHalves into a scalar".into() }) };
                let place = |i: usize| at + ((i % 4).min(heads - 1) * stride + 4 * pair::whose(2 * rows, i / 8, i % 8)) as i64;
                (0..rows * 8).map(|i| self.load(buf, place(i), DType::F32, buffers)).collect::<Result<Vec<u64>, _>>()?
            }
            Op::StoreHalves { buf, at, stride, heads, value } => {
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate().filter(|(i, _)| i % 4 < *heads) {
                    let place = at + (i % 4 * stride + 4 * pair::whose(2 * shape.rows, i / 8, i % 8)) as i64;
                    self.store(buf, place, DType::F32, *bits, buffers)?;
                }
                return Ok(());
            }
            Op::PutBy { own, place, value } => {
                let (place, tile) = (self.own_place(*own, *place)?, self.tile(*value)?.1);
                self.by.insert((*own, self.warp, place), tile);
                return Ok(());
            }
            Op::TakeUp { own, place } => {
                let place = self.own_place(*own, *place)?;
                self.by.get(&(*own, self.warp, place)).ok_or(Wrong::Undefined { id: out })?.to_vec()
            }
            Op::SplitHalves(a) => {
                let x = self.tile(*a)?.1;
                let byte = |(row, right): (usize, bool), c: usize| x[row * 8 + c % 4 + 4 * usize::from(right)] >> (if c < 4 { 8 } else { 0 }) & 0xff;
                (0..256).map(|i| byte(pair::place(i / 8), i % 8)).collect()
            }
            Op::SwapHalves(a) => {
                let x = self.tile(*a)?.1;
                (0..x.len()).map(|i| x[i ^ 4]).collect()
            }
            Op::LeftHalves(a) => {
                let x = self.tile(*a)?.1;
                (0..x.len()).map(|i| x[i % 4]).collect()
            }
            Op::QuadOrder(a) | Op::TwosOrder(a) => self.tile(*a)?.1.to_vec(),
            Op::Band { src, index, of } => {
                let (shape, x) = self.tile(*src)?;
                let row = |r: usize| band_row(shape.rows, r, *index, *of);
                (0..x.len() / of).map(|i| x[row(i / shape.cols) * shape.cols + i % shape.cols]).collect()
            }
            Op::PairIndex => pair::tile(|t, _| t as u64),
            Op::LoadPairs { buf, at, stride, elem } => {
                let at = self.offset(*at)?;
                let values = (0..32).map(|t| self.load(buf, at + (t * stride) as i64, *elem, buffers)).collect::<Result<Vec<u64>, _>>()?;
                pair::tile(|t, _| values[t])
            }
            Op::LoadAlike { buf, at } => {
                let (at, Ty::Tile { dtype, rows, cols, .. }) = (self.offset(*at)?, self.p.ty(out)) else { return Err(Wrong::Unsupported { op: "a tile load into a scalar".into() }) };
                let row = (0..cols).map(|c| self.load(buf, at + (c / 2 * 16 + c % 2 * 4) as i64, dtype, buffers)).collect::<Result<Vec<u64>, _>>()?;
                row.repeat(rows)
            }
            Op::ToOperand(a) => self.tile(*a)?.1.iter().map(|x| scalar::cast(DType::F32, DType::Bf16, *x)).collect::<Result<_, _>>()?,
            Op::Hadamard(a) => matrix::hadamard(&self.tile(*a)?.1),
            Op::LoadOperand { buf, at, stride } => self.load_tile(buf, *at, (self.p.ty(out).dtype().size(), *stride), usize::MAX, out, buffers)?,
            Op::LoadLines { buf, at } => self.load_lines(buf, *at, self.p.ty(out).dtype(), buffers)?,
            Op::MmaLines(x) => self.mma_lines(x, buffers)?,
            Op::LoadLeft { buf, at } => self.load_left(buf, *at, out, buffers)?,
            Op::LoadRight { buf, at } => self.load_right(buf, *at, out, buffers)?,
            Op::StoreRight { buf, at, value, spread: across } => {
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate() {
                    let (row, k) = (i / shape.cols, i % shape.cols);
                    self.store(buf, at + right_byte(shape.cols, k, if *across { spread(row) } else { row }) as i64, shape.dtype, *bits, buffers)?;
                }
                return Ok(());
            }
            Op::LoadSpread { buf, at } => {
                let (at, dtype) = (self.offset(*at)?, self.p.ty(out).dtype());
                (0..32).map(|c| self.load(buf, at + 4 * spread(c) as i64, dtype, buffers)).collect::<Result<Vec<u64>, _>>()?
            }
            Op::SpreadIndex => (0..32).map(|c| spread(c) as u64).collect(),
            Op::FoldRows { src, weight } => {
                let (shape, x) = self.tile(*src)?;
                let n = shape.cols;
                let both = |r: usize, c: usize| match shape.dtype {
                    DType::F32 => u64::from(f32::from_bits(x[2 * r * n + c] as u32).mul_add(*weight as f32, f32::from_bits(x[(2 * r + 1) * n + c] as u32)).to_bits()),
                    d => scalar::truncated(d, (scalar::int(d, x[2 * r * n + c]) * *weight as i64 + scalar::int(d, x[(2 * r + 1) * n + c])) as u64),
                };
                (0..8 * n).map(|i| both(i / n, i % n)).collect()
            }
            Op::SplitRows(a) => {
                let x = self.tile(*a)?.1;
                (0..512).map(|i| x[i / 64 * 32 + spread(i % 32)] >> (if i / 32 % 2 == 0 { 8 } else { 0 }) & 0xff).collect()
            }
            Op::SwapRows(a) => {
                let (shape, x) = self.tile(*a)?;
                (0..x.len()).map(|i| x[(i / shape.cols ^ 1) * shape.cols + i % shape.cols]).collect()
            }
            Op::TwiceRows(a) => {
                let x = self.tile(*a)?.1;
                (0..16).map(|r| x[r / 2]).collect()
            }
            Op::PairSums(a) => {
                let x = self.tile(*a)?.1;
                let number = |r: usize, token: usize| f32::from_bits(x[r * 32 + spread(token)] as u32);
                let of = |half: usize| (0..64).map(|i| u64::from((number(i / 8, i % 8 * 4 + 2 * half) + number(i / 8, i % 8 * 4 + 2 * half + 1)).to_bits())).collect::<Vec<u64>>();
                self.values[s.outs[1] as usize] = Some(Value::Tile(of(1).into()));
                of(0)
            }
            Op::BytesBeside(a, b) => {
                let (x, y) = (self.tile(*a)?.1, self.tile(*b)?.1);
                let of = |shift: u32| (0..2 * x.len()).map(|i| [&x, &y][beside(i % 32).0][i / 32 * 16 + beside(i % 32).1] >> shift & 0xff).collect::<Vec<u64>>();
                self.values[s.outs[1] as usize] = Some(Value::Tile(of(8).into()));
                of(0)
            }
            Op::StorePacked { buf, at, value } => {
                let right = matches!(self.p.ty(*value), Ty::Tile { layout: Layout::MmaB, .. });
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate() {
                    let (row, col) = (i / shape.cols, i % shape.cols);
                    let byte = if right { right_byte(shape.rows, row, col) } else { left_byte(shape.rows, shape.cols, row, col) };
                    self.store(buf, at + byte as i64, shape.dtype, *bits, buffers)?;
                }
                return Ok(());
            }
            Op::Lengths { buf, at, pairs } => self.lengths(buf, [*at, *pairs], buffers)?,
            Op::Marks { buf, at, of_keys } => self.marks(buf, *at, *of_keys, buffers)?,
            Op::LoadTile { buf, at, row_stride, col_stride, cols, .. } => self.load_tile(buf, *at, (*row_stride, *col_stride), *cols, out, buffers)?,
            Op::StoreTile { buf, at, row_stride, col_stride, cols, value } => {
                let (at, (shape, x)) = (self.offset(*at)?, self.tile(*value)?);
                for (i, bits) in x.iter().enumerate().filter(|(i, _)| i % shape.cols < *cols) {
                    let (r, c) = (i / shape.cols, i % shape.cols);
                    self.store(buf, at + (r * row_stride + c * col_stride) as i64, shape.dtype, *bits, buffers)?;
                }
                return Ok(());
            }
            op => return Err(Wrong::Unsupported { op: format!("{} at tile stage", verify::name(op)) }),
        };
        self.values[out as usize] = Some(Value::Tile(tile.into()));
        Ok(())
    }

    fn own_place(&self, own: usize, place: Id) -> Result<i64, Wrong> {
        let (at, places) = (self.offset(place)?, self.p.own[own].places);
        memory::checked("tiles put by", places, at, 1, 1).map(|at| at as i64)
    }
}
