//! Rings of asynchronous copies, and arrays that lie over them.

use super::{B, V};
use crate::dtype::DType;
use crate::ir::*;
use crate::report::Fault;

impl B {
    /// `ring(stages, bytes)`: each warp's queue of asynchronous copies.
    pub fn ring(&self, stages: V, bytes: V) -> V {
        let (stages, bytes) = (stages.size(self, "the number of stages"), bytes.size(self, "the bytes of a ring slot"));
        if bytes % 16 != 0 {
            return self.fail(Fault::CopyAlignment { bytes });
        }
        if !(2..=8).contains(&stages) {
            return self.fail(Fault::Stages { stages });
        }
        let at = {
            let mut p = self.program.borrow_mut();
            p.rings.push(Ring { stages, bytes, offset: 0, barriers: 0 });
            p.rings.len() - 1
        };
        self.fits();
        V::Ring(at)
    }

    /// `ring.between::<T>(len)`: an array over the slots of all warps.
    pub(super) fn between(&self, ring: usize, dtype: DType, len: &V) -> V {
        let len = len.size(self, "the length of a shared array");
        let mut p = self.program.borrow_mut();
        let room = p.warps * p.rings[ring].stages * p.rings[ring].bytes;
        if len * dtype.size() > room {
            drop(p);
            return self.fail(Fault::SharedMemory { want: len * dtype.size(), limit: room, arrays: format!("{len} x {} over a ring", dtype.name()) });
        }
        p.shared.push(SharedArray { dtype, len, over: Some(ring), offset: 0 });
        V::Buf(Buf::Shared(p.shared.len() - 1), dtype)
    }

    /// `ring.start(&buffer, byte_offset, bytes, ahead)`
    pub(super) fn start(&self, ring: usize, src: &V, at: &V, bytes: &V, ahead: usize) -> V {
        let V::Buf(Buf::Param(src), _) = self.get(src) else {
            return self.fail(Fault::PipelineSource { why: "it does not read a kernel argument" });
        };
        let (at, bytes) = (self.byte(Buf::Param(src), at, 1), self.id_of(bytes, DType::I32));
        self.push(Op::CopyStart { ring, src, at, bytes, ahead }, vec![]);
        V::Unit
    }

    /// `ring.copy(&buffer, byte_offset)`: gives the page, which the copy will have filled.
    /// Copies the ring's bytes, or so many.
    pub(super) fn copy(&self, ring: usize, src: &V, at: &V, bytes: Option<&V>) -> V {
        let V::Buf(Buf::Param(src), dtype) = self.get(src) else {
            return self.fail(Fault::PipelineSource { why: "it does not read a kernel argument" });
        };
        let at = self.byte(Buf::Param(src), at, 1);
        let all = V::Int(self.program.borrow().rings[ring].bytes as i64);
        let bytes = self.id_of(bytes.unwrap_or(&all), DType::I32);
        match self.emit(Op::CopyAsync { ring, src, at, bytes }, Ty::Scalar(DType::I32)) {
            V::S(id) => V::Buf(Buf::Slot(ring, id), dtype),
            v => v,
        }
    }
}
