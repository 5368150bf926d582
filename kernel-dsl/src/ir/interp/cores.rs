//! Products with what stays in shared memory, at both stages: four warps make one, and the tensor core reads for them.

use super::matrix::{self, Shape};
use super::memory::{self, Region};
use super::trap::Wrong;
use super::{scalar, thread, tile, warp};
use crate::dtype::DType;
use crate::ir::{Buf, Id, Lines, MmaKind};
use crate::pack::{core_byte, core_row, line_byte, line_place};

/// Warps that make a product together.
const TOGETHER: usize = 4;

impl tile::Machine<'_> {
    /// The product of a left operand with cores, onto `c`.
    pub(super) fn mma_shared(&self, a: Id, (buf, at, stride): (&Buf, Id, usize), c: Id, buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let ((sa, a), (sc, c), at) = (self.tile(a)?, self.tile(c)?, self.offset(at)?);
        let Buf::Shared(array) = buf else { return Err(Wrong::Unsupported { op: "MmaShared of memory that is not shared".into() }) };
        let right = Shape { dtype: self.p.shared[*array].dtype, rows: sa.cols, cols: sc.cols };
        let place = |i: usize| at + core_byte(sa.cols, stride, i / sc.cols, i % sc.cols) as i64;
        let b = (0..right.rows * right.cols).map(|i| self.load(buf, place(i), right.dtype, buffers)).collect::<Result<Vec<u64>, _>>()?;
        Ok(matrix::mma(sa, &a, right, &b, &c))
    }

    /// The product of rows in cores and rows of lines.
    pub(super) fn mma_lines(&self, x: &Lines, buffers: &[Region]) -> Result<Vec<u64>, Wrong> {
        let (at, x_at, depth) = (self.offset(x.at)?, self.offset(x.x_at)?, 128 * x.planes);
        let of = |buf: &Buf| if let Buf::Shared(i) = buf { self.p.shared[*i].dtype } else { DType::U8 };
        let (left, right) = (Shape { dtype: of(&x.a), rows: 16, cols: depth }, Shape { dtype: of(&x.x), rows: depth, cols: x.n });
        let a = (0..16 * depth).map(|i| self.load(&x.a, at + core_row(x.stride, i / depth, i % depth) as i64, left.dtype, buffers)).collect::<Result<Vec<u64>, _>>()?;
        let b = (0..depth * x.n).map(|i| self.load(&x.x, x_at + line_byte(x.plane, i % x.n, i / x.n) as i64, right.dtype, buffers)).collect::<Result<Vec<u64>, _>>()?;
        Ok(matrix::mma(left, &a, right, &b, &vec![0; 16 * x.n]))
    }

    /// A byte of each number along k.
    pub(super) fn store_cores(&mut self, buf: &Buf, at: Id, byte: usize, value: Id, buffers: &mut [Region]) -> Result<(), Wrong> {
        let (at, (shape, x)) = (self.offset(at)?, self.tile(value)?);
        (0..8 * shape.cols).try_for_each(|i| {
            let (col, k) = (i % 8, i / 8);
            let bits = x[col * shape.cols + line_place(shape.cols, k)] >> (8 * byte) & 0xff;
            self.store(buf, at + core_byte(shape.cols, 0, k, col) as i64, DType::U8, bits, buffers)
        })
    }
}

/// What a product of four warps reads.
pub(super) struct Cores<'a> {
    pub kind: MmaKind,
    pub a: &'a [Id],
    pub steps: usize,
    pub buf: &'a Buf,
    pub at: Id,
    pub stride: usize,
    pub c: &'a [Id],
}

impl thread::Machine<'_> {
    /// As one product of 16 rows and eight columns after another, in each of four warps that are all there and name the same place.
    pub(super) fn mma_cores(&mut self, mask: &thread::Mask, x: &Cores, outs: &[Id]) -> Result<(), Wrong> {
        self.needs(&[x.a, x.c, &[x.at]].concat())?;
        self.defines(outs);
        let tiles = x.a.len() / (4 * x.steps);
        let columns = outs.len() / (4 * tiles);
        for own in self.joined(mask, "MmaCores", TOGETHER)? {
            let at = self.same(x.at, own, "MmaCores")?;
            let from = self.shared_place(x.buf, scalar::int(self.p.ty(x.at).dtype(), at), (columns - 1) * x.stride + 256 * x.steps, 128)?;
            for w in own..own + TOGETHER {
                for n in 0..columns {
                    let first = from + n * x.stride;
                    self.shadow.read_by_core(first, 256 * x.steps, w)?;
                    for mt in 0..tiles {
                        let place = 4 * (mt * columns + n);
                        let mut sums = if x.c.is_empty() { vec![[0; 32]; 4] } else { self.lanes(&x.c[place..place + 4], w) };
                        for ks in 0..x.steps {
                            let right: Vec<[u64; 32]> = (0..2).map(|half| std::array::from_fn(|l| memory::read(&self.shared, first + 256 * ks + 128 * half + 4 * l, 4))).collect();
                            let left = self.lanes(&x.a[4 * (mt * x.steps + ks)..][..4], w);
                            sums = warp::mma(x.kind, &left, &right, &sums);
                        }
                        for (out, lanes) in outs[place..place + 4].iter().zip(sums) {
                            (0..32).for_each(|l| self.set(*out, w * 32 + l, scalar::truncated(DType::I32, lanes[l])));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The first of each `together` warps that are all there.
    fn joined(&self, mask: &thread::Mask, op: &str, together: usize) -> Result<Vec<usize>, Wrong> {
        let active = self.whole_warps(mask, op)?;
        match active.chunks(together).all(|own| own[0] % together == 0 && own.len() == together && own[together - 1] + 1 == own[0] + together) {
            true => Ok(active.into_iter().step_by(together).collect()),
            false => Err(Wrong::Diverged { op: op.into() }),
        }
    }

    /// A value that is the same in the threads of four warps from `first` on.
    fn same(&self, id: Id, first: usize, op: &str) -> Result<u64, Wrong> {
        let value = self.get(id, first * 32);
        let all = (first * 32..(first + TOGETHER) * 32).all(|thread| self.get(id, thread) == value);
        if all { Ok(value) } else { Err(Wrong::Uneven { op: op.into() }) }
    }

    /// As 16 rows of each warp by `n` columns, byte by byte; four warps together name rows that follow one another, and the same columns.
    pub(super) fn mma_lines(&mut self, mask: &thread::Mask, x: &Lines, outs: &[Id]) -> Result<(), Wrong> {
        self.needs(&[x.at, x.x_at])?;
        self.defines(outs);
        let depth = 128 * x.planes;
        for first in self.joined(mask, "MmaLines", x.together)? {
            for w in first..first + x.together {
                let number = |m: &Self, id: Id, thread: usize| scalar::int(m.p.ty(id).dtype(), m.get(id, thread));
                let (at, x_at) = (number(self, x.at, w * 32), number(self, x.x_at, w * 32));
                let own = number(self, x.at, first * 32) + (2 * (w - first) * x.stride) as i64;
                let even = (0..32).all(|l| number(self, x.at, w * 32 + l) == own && number(self, x.x_at, w * 32 + l) == number(self, x.x_at, first * 32));
                if !even {
                    return Err(Wrong::Uneven { op: "MmaLines".into() });
                }
                let left = self.shared_place(&x.a, at, x.stride + 8 * depth, 128)?;
                let right = self.shared_place(&x.x, x_at, (x.planes - 1) * x.plane + 128 * x.n, 1024)?;
                for i in 0..2 {
                    self.shadow.read_by_core(left + i * x.stride, 8 * depth, w)?;
                }
                for plane in 0..x.planes {
                    self.shadow.read_by_core(right + plane * x.plane, 128 * x.n, w)?;
                }
                let byte = |signed: bool, i: usize| if signed { i32::from(self.shared[i] as i8) } else { i32::from(self.shared[i]) };
                let (a_signed, x_signed) = (matches!(x.kind, MmaKind::S8S8 | MmaKind::S8U8), matches!(x.kind, MmaKind::S8S8 | MmaKind::U8S8));
                let sum = |row: usize, col: usize| (0..depth).fold(0_i32, |sum, k| sum.wrapping_add(byte(a_signed, left + core_row(x.stride, row, k)) * byte(x_signed, right + line_byte(x.plane, col, k))));
                let sums: Vec<[i32; 32]> = (0..outs.len()).map(|i| std::array::from_fn(|l| sum(l / 4 * 2 + i % 4 / 2, i / 4 * 8 + l % 4 * 2 + i % 2))).collect();
                for (out, lanes) in outs.iter().zip(sums) {
                    (0..32).for_each(|l| self.set(*out, w * 32 + l, lanes[l] as u32 as u64));
                }
            }
        }
        Ok(())
    }

    /// Values of a warp's lanes.
    fn lanes(&self, ids: &[Id], w: usize) -> Vec<[u64; 32]> {
        ids.iter().map(|id| std::array::from_fn(|l| self.get(*id, w * 32 + l))).collect()
    }
}
