//! Rows moved as they are: into the slots of a paged cache, out of them, and with their coordinates in another order.
//!
//! Cost: reads and writes each number once; bound by memory.

use kernel_dsl::prelude::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowsMeta {
    /// Numbers of a row.
    pub width: usize,
}

impl Meta for RowsMeta {
    fn launch(&self) -> Launch {
        Launch { warps: 4, min_blocks: 1 }
    }
}

#[kernel]
pub fn scatter(
    m: RowsMeta,
    x: &Global<f32>,       // [rows, width]
    places: &Global<i64>,  // [rows]
    out: &mut Global<f32>, // [places, width]
) {
    let to = places.at(block_id(0)) * m.width as i64;
    for i in threads(m.width) {
        out.put(to + i as i64, x.at(block_id(0) as i64 * m.width as i64 + i as i64));
    }
}

#[kernel]
pub fn gather(
    m: RowsMeta,
    x: &Global<f32>,       // [places, width]
    places: &Global<i64>,  // [rows]
    out: &mut Global<f32>, // [rows, width]
) {
    let from = places.at(block_id(0)) * m.width as i64;
    for i in threads(m.width) {
        out.put(block_id(0) as i64 * m.width as i64 + i as i64, x.at(from + i as i64));
    }
}

#[kernel]
pub fn reorder(
    m: RowsMeta,
    x: &Global<f32>,       // [rows, width]
    from: &Global<i32>,    // [width]: the coordinate that comes to each place
    out: &mut Global<f32>, // [rows, width]
) {
    let row = block_id(0) as i64 * m.width as i64;
    for i in threads(m.width) {
        out.put(row + i as i64, x.at(row + from.at(i) as i64));
    }
}
