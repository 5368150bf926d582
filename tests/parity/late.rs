//! A launch that writes lengths and tables late: what comes next has begun by then, and has seen others.

use crate::support::Guarded;
use kernel_dsl::prelude::*;
use runtime::{Arg, Device, Stream};

#[derive(Clone, Copy)]
struct Late;

impl Meta for Late {
    fn launch(&self) -> Launch {
        Launch { warps: 8, min_blocks: 1 }
    }
}

/// One block: lets the next launch begin, takes its time (`zeros` are all 0) and only then copies.
#[kernel]
#[allow(dead_code)] // its text is built, the function is not called
fn deliver(_m: Late, zeros: &Global<i32>, lens: &Global<i32>, table: &Global<i32>, its_lens: &mut Global<i32>, its_table: &mut Global<i32>, batch: i32, entries: i32) {
    release_next();
    let mut at = 0_i32;
    for _ in strided(0_i32, 1000_i32, 1) {
        at = zeros.at(at);
    }
    after_previous();
    for i in threads(batch) {
        its_lens.put(i, lens.at(i) + at);
    }
    for i in threads(entries) {
        its_table.put(i, table.at(i) + at);
    }
}

/// Into `to`, lengths and a table, go those of `from`, by a launch that the next one does not wait for at its start.
pub fn write(device: &Device, stream: &Stream, zeros: &Guarded, from: [&Guarded; 2], to: [&Guarded; 2], batch: usize, entries: usize) {
    let source = kernel_dsl::Source::of(&deliver::build(&Late).expect("build")).expect("lower");
    let kernel = device.kernel(&source).expect("compile");
    let [lens, table, its_lens, its_table] = [from[0], from[1], to[0], to[1]].map(|g| Arg::Ptr(g.span()));
    kernel.launch(stream, [1, 1, 1], &[Arg::Ptr(zeros.span()), lens, table, its_lens, its_table, Arg::I32(batch as i32), Arg::I32(entries as i32)]).expect("launch");
}
