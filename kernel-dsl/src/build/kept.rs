//! What warps put by, and what turns keep.

use super::{B, V};
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

impl B {
    /// `put_by(places, &tile)`: places for tiles of its kind.
    pub fn put_by(&self, places: V, like: V) -> V {
        let places = places.size(self, "the number of places");
        match self.get(&like) {
            V::S(id) => match self.ty(id) {
                ty @ Ty::Tile { dtype, .. } if dtype.size() == 4 && ty.regs() % 4 != 3 => {
                    let mut p = self.program.borrow_mut();
                    p.own.push(Own { places, ty });
                    V::Buf(Buf::Own(p.own.len() - 1), dtype)
                }
                ty => self.fail(Fault::TileSize { tile: self.describe(ty), wants: "elements of four bytes" }),
            },
            V::Poison => V::Poison,
            v => self.no_method("put_by", &v),
        }
    }

    /// `put_by_warp::<T>(warps, places, rows, cols)`: places for accumulators of each warp, which outlast a loop over warps.
    pub fn put_by_warp(&self, dtype: DType, warps: V, places: V, rows: V, cols: V) -> V {
        let [warps, places, rows, cols] = [warps, places, rows, cols].map(|n| n.size(self, "the size of what warps put by"));
        let ty = Ty::Tile { dtype, rows, cols, layout: Layout::MmaC };
        if rows % 8 != 0 || rows == 24 || cols % 8 != 0 || dtype.size() != 4 {
            return self.fail(Fault::TileSize { tile: self.describe(ty), wants: "elements of four bytes, its rows 8 or a multiple of 16 and its columns of 8" });
        }
        let mut p = self.program.borrow_mut();
        if warps != p.warps {
            drop(p);
            return self.fail(Fault::OtherTurn);
        }
        p.own.push(Own { places, ty });
        V::Buf(Buf::Own(p.own.len() - 1), dtype)
    }

    pub(super) fn own_method(&self, name: &str, own: usize, args: &[V]) -> V {
        let ty = self.program.borrow().own[own].ty;
        match (name, args) {
            ("put", [place, value] | [_, place, value]) => {
                let (place, value) = (self.id_of(place, DType::I32), self.id_of(value, ty.dtype()));
                if self.ty(value) != ty {
                    let (left, right) = (self.describe(ty), self.describe(self.ty(value)));
                    return self.fail(Fault::Types { op: "put".into(), left, right });
                }
                self.push(Op::PutBy { own, place, value }, vec![]);
                V::Unit
            }
            ("at", [place] | [_, place]) => self.emit(Op::TakeUp { own, place: self.id_of(place, DType::I32) }, ty),
            _ => self.fail(Fault::NoMethod { name: name.into(), on: "tiles put by".into() }),
        }
    }

    /// `by_turn::<T>(threads, len)`: as many values for each turn of a loop over all threads.
    pub fn kept(&self, dtype: DType, threads: V, len: V) -> V {
        let (threads, len) = (threads.size(self, "the number of threads"), len.size(self, "the length of what is kept"));
        let mut p = self.program.borrow_mut();
        if threads != p.threads() {
            drop(p);
            return self.fail(Fault::OtherTurn);
        }
        p.kept.push(KeptArray { ty: Ty::Scalar(dtype), len });
        V::Kept(p.kept.len() - 1)
    }

    /// `by_warp::<T>(warps, len, rows, cols)`: as many accumulators for each warp.
    pub fn kept_tiles(&self, dtype: DType, warps: V, len: V, rows: V, cols: V) -> V {
        let [warps, len, rows, cols] = [warps, len, rows, cols].map(|n| n.size(self, "the size of what warps keep"));
        let ty = Ty::Tile { dtype, rows, cols, layout: Layout::MmaC };
        if rows % 16 != 0 && rows != 8 || cols % 8 != 0 {
            return self.fail(Fault::TileSize { tile: self.describe(ty), wants: "its rows 8 or a multiple of 16 and its columns a multiple of 8" });
        }
        let mut p = self.program.borrow_mut();
        if warps != p.warps {
            drop(p);
            return self.fail(Fault::OtherTurn);
        }
        p.kept.push(KeptArray { ty, len });
        V::Kept(p.kept.len() - 1)
    }

    /// `put(i, k, value)` and `at(i, k)`, k known while building.
    pub(super) fn kept_method(&self, name: &str, kept: usize, args: &[V]) -> V {
        let KeptArray { ty, len } = self.program.borrow().kept[kept].clone();
        let turn_of = |turn: &V| self.id_of(turn, DType::I32);
        let place = |k: &V| self.get(k).size(self, "the index of a kept value");
        match (name, args) {
            ("put" | "at", [_, k, ..]) if place(k) >= len => self.fail(Fault::IndexOutside { index: place(k) as i64, len }),
            ("put", [turn, k, value]) => {
                let (turn, k, value) = (turn_of(turn), place(k), self.id_of(value, ty.dtype()));
                if self.ty(value) != ty {
                    let (left, right) = (self.describe(ty), self.describe(self.ty(value)));
                    return self.fail(Fault::Types { op: "put".into(), left, right });
                }
                self.push(Op::Keep { kept, turn, k, value }, vec![]);
                V::Unit
            }
            ("at", [turn, k]) => self.emit(Op::Kept { kept, turn: turn_of(turn), k: place(k) }, ty),
            ("left", [warp, first, k]) => {
                let (first, k) = (place(first), place(k));
                if ty != Ty::Scalar(DType::U32) || k % 32 != 0 || k == 0 || first + k / 8 > len {
                    return self.fail(Fault::TileSize { tile: self.describe(ty), wants: "u32 for turns, one for eight bytes along k, which is a multiple of 32" });
                }
                self.emit(Op::KeptLeft { kept, warp: turn_of(warp), first }, Ty::Tile { dtype: DType::I8, rows: 16, cols: k, layout: Layout::MmaA })
            }
            ("put_acc", [warp, first, value]) => {
                let (first, value) = (place(first), self.id_of(value, ty.dtype()));
                match (ty, self.ty(value)) {
                    (Ty::Scalar(own), Ty::Tile { dtype, rows: 16, cols, layout: Layout::MmaC }) if own == dtype && first + cols / 2 <= len => {
                        self.push(Op::KeepAcc { kept, warp: turn_of(warp), first, value }, vec![]);
                        V::Unit
                    }
                    (_, t) => self.fail(Fault::TileSize { tile: self.describe(t), wants: "16 rows, and for two columns a number of each turn" }),
                }
            }
            _ => self.fail(Fault::NoMethod { name: name.into(), on: "kept values".into() }),
        }
    }
}
