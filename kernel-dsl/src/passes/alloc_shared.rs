//! Places shared arrays and rings in dynamic shared memory, 128-byte aligned; an array over a ring takes none of its own.

use crate::ir::Program;
use crate::report::{Fault, Report};

/// Most dynamic shared memory a block can have on the architectures served (sm_90, sm_100).
const LIMIT: usize = 227 * 1024;

pub fn run(mut p: Program) -> Result<Program, Report> {
    place(&mut p).map_err(|what| Report { what, span: None })?;
    Ok(p)
}

/// Sets the offsets; the builder asks too, so that the fault has the line of the array that is too much.
pub(crate) fn place(p: &mut Program) -> Result<(), Fault> {
    let mut at = 0;
    let align = |n: usize| n.div_ceil(128) * 128;
    let mut names = vec![];
    for r in &mut p.rings {
        r.offset = at;
        names.push(format!("ring of {} x {} x {} bytes", p.warps, r.stages, r.bytes));
        at += align(p.warps * r.stages * r.bytes);
    }
    for r in &mut p.rings {
        r.barriers = at;
        at += align(p.warps * r.stages * 8);
    }
    for a in &mut p.shared {
        if let Some(ring) = a.over {
            a.offset = p.rings[ring].offset;
            continue;
        }
        a.offset = at;
        at += align(a.len * a.dtype.size());
        names.push(format!("{} x {}", a.len, a.dtype.name()));
    }
    p.shared_bytes = at;
    if at > LIMIT {
        return Err(Fault::SharedMemory { want: at, limit: LIMIT, arrays: names.join(", ") });
    }
    Ok(())
}
