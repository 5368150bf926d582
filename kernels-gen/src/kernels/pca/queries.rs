//! Queries in the coordinates of a block: `q k = q mean + (q M) c`, M the block's matrix, c what a key stores.
//!
//! A query becomes 15-bit integers under its own largest magnitude, the matrix is of bytes with a step a column: sums of products are
//! exact. What comes out is quantised again, residuals' coordinates and centres' each under a magnitude of their own.
//! Cost: reads (rank + 32) d bytes of matrix a block, writes a record of 16 (rank + 32) bytes.

use super::super::kivi::queries::joined8;
use super::super::maps::{halves_of, per_unit, unit_of};
use super::super::query::{finite, shown_worth};
use super::MARKED;
use crate::pca::pages::WAYS;
use kernel_dsl::prelude::*;

/// Shape of the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FoldMeta {
    pub d: usize,
    /// Query heads of a kv head, at most 8.
    pub group: usize,
    /// 2 where the two bytes of a weight are columns of attention.
    pub parts: usize,
    /// Coordinates of a key's residual.
    pub rank: usize,
    pub page_tokens: usize,
    /// Bytes of a page of a kv head, and what is where in it.
    pub page_bytes: usize,
    pub behind: super::Behind,
    /// Bytes of a number of the queries.
    pub elem: usize,
    pub warps: usize,
    pub min_blocks: usize,
}

impl FoldMeta {
    /// Coordinates of a key, centres included.
    pub fn places(&self) -> usize {
        self.rank + WAYS
    }

    /// Bytes of the queries of a block.
    pub fn record(&self) -> usize {
        if self.behind.before { super::turned_record(self.d, self.parts) } else { super::record(self.rank, self.parts) }
    }

    /// Heads of a record.
    pub fn heads(&self) -> usize {
        8 / self.parts
    }

    /// Lines of 128 bytes of what a block's keys have of their own.
    pub fn lines(&self) -> usize {
        (self.behind.values_at - self.from()) / 128
    }

    /// First byte of it.
    pub fn from(&self) -> usize {
        if self.behind.shared[0] { self.behind.ways_at[0] } else { self.behind.frames_at[0] }
    }

    /// Bytes of a row of integers in shared memory.
    pub fn line(&self) -> usize {
        2 * self.d + 16
    }
}

impl Meta for FoldMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

/// The bits of 1.5 * 2^23, and that number plus 64: see [`halves_of`].
const BITS: u32 = 0x4b40_0040;
const AND_64: f32 = 12_582_976.0;

/// A block of threads takes the query rows of one kv head and the block of keys of one entry of the table. A bad entry is page 0's:
/// attention drops the row.
#[kernel]
pub fn fold_queries<T: Float>(
    m: FoldMeta,
    q: &Global<T>,            // [batch, heads, d]
    cache: &Global<u8>,       // [pages, kv_heads, page]
    table: &Global<i32>,      // [batch, table_stride]
    lens: &Global<i32>,       // [batch]
    records: &mut Global<u8>, // [batch, kv_heads, table_stride, record]
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    scale: f32,
) {
    after_previous();
    release_next();
    let (live, own, record, first) = own_block(&m, table, lens, kv_heads, pages, table_stride);
    let base = if m.behind.shared[0] { page_of(m.page_bytes, table.at(block_id(2) * table_stride), pages, kv_heads, block_id(1)) } else { own };
    let (frame, map) = (base + m.behind.frames_at[0] as i64, own + m.behind.ways_at[0] as i64);
    let means = frame + (m.rank * (m.d + 4)) as i64;
    let mut ints = shared::<u32>(2 * m.line());
    let mut rows = shared::<f32>(8 * (m.places() + 4));
    let mut tops = shared::<f32>(64);
    let mut ways = shared::<f32>(64);
    let mut biases = shared::<f32>(64);
    let mut starts = shared::<i32>(64);
    let mut units = shared::<f32>(8);
    // The map is on its way while the query is measured.
    for i in threads(if live { 32 * m.warps as i32 } else { 0_i32 }) {
        for u in 0..m.lines().div_ceil(32 * m.warps) {
            cache.prefetch(own + m.from() as i64 + ((i + (u * 32 * m.warps) as i32).min(m.lines() as i32 - 1_i32) * 128_i32) as i64);
        }
    }
    for i in threads(if live { 64_i32 } else { 0_i32 }) {
        let (c, a) = (i >> 3_u32, i & 7_i32);
        let (mut top, mut bias) = (0.0_f32, 0.0_f32);
        for u in 0..m.d / 32 {
            let (x, at) = (four::<T>(q, first, c, a, u, m.group, m.d), a * (m.d / 8) as i32 + (4 * u) as i32);
            let mean = cache.load4::<f32>(means + (at * 4_i32) as i64);
            for e in 0..4 {
                top = fmax(top, x[e].abs());
                bias = x[e].mul_add(mean[e], bias);
            }
        }
        tops.put(i, top);
        biases.put(i, bias);
    }
    for i in threads(if live { 64_i32 } else { 0_i32 }) {
        let (c, a) = (i >> 3_u32, i & 7_i32);
        let top = top_of(&tops, c);
        for u in 0..m.d / 32 {
            let (high, low, _sum) = digits(four::<T>(q, first, c, a, u, m.group, m.d), per_unit(top));
            let at = c * m.line() as i32 + a * (m.d / 8) as i32 + (4 * u) as i32;
            ints.save::<u32>(at, high);
            ints.save::<u32>(at + m.d as i32, low);
        }
        if a == 0_i32 {
            units.put(c, unit_of(top));
        }
    }
    for w in warps(m.warps) {
        for column in strided(32_i32 * w, if live { m.places() as i32 } else { 0_i32 }, 32 * m.warps) {
            // Of the frame, and then of centres.
            let within = column < m.rank as i32;
            let from = if within { frame } else { map - (m.rank * m.d) as i64 };
            let steps = if within { frame + (m.rank * m.d) as i64 } else { map + (WAYS * m.d) as i64 - (4 * m.rank) as i64 };
            let left: Tile<i8> = cache.packed_left::<i8>(from + (column * m.d as i32) as i64, 32, m.d);
            let sum = mma(&left, &ints.operand::<i8>(m.d, m.line(), 8, m.d), &(mma(&left, &ints.operand::<i8>(0, m.line(), 8, m.d), 0_i32) * 128_i32));
            let y = sum.cast::<f32>() * &cache.rows_at::<f32>(steps + (column * 4_i32) as i64, 4, 32) * &units.cols(0, 1, 8);
            rows.put_acc(column, 1, m.places() + 4, 8, &y);
        }
    }
    for i in threads(if live { (8 * m.heads()) as i32 } else { 0_i32 }) {
        let (c, a) = (i >> 3_u32, i & 7_i32);
        let mut top = 0.0_f32;
        for u in 0..m.rank / 32 {
            top = fmax(top, largest(rows.load4::<f32>(place(c, a, u, m.rank, m.places()))));
        }
        tops.put(i, top);
        ways.put(i, largest(rows.load4::<f32>(way(c, a, m.rank, m.places()))));
    }
    for i in threads(if live { (8 * m.heads()) as i32 } else { 0_i32 }) {
        let (c, a) = (i >> 3_u32, i & 7_i32);
        let to = record + (c * m.places() as i32) as i64;
        let mut total = 0_i32;
        for u in 0..m.rank / 32 {
            let (high, low, sum) = digits(rows.load4::<f32>(place(c, a, u, m.rank, m.places())), per_unit(top_of(&tops, c)));
            let at = to + (a * (m.rank / 8) as i32 + (4 * u) as i32) as i64;
            records.save::<u32>(at, high);
            records.save::<u32>(at + (m.heads() * m.places()) as i64, low);
            total = total + sum;
        }
        let (high, low, _sum) = digits(rows.load4::<f32>(way(c, a, m.rank, m.places())), per_unit(top_of(&ways, c)));
        let at = to + (m.rank as i32 + a * 4_i32) as i64;
        records.save::<u32>(at, high);
        records.save::<u32>(at + (m.heads() * m.places()) as i64, low);
        starts.put(i, total);
    }
    for column in threads(if live { 8_i32 } else { 0_i32 }) {
        let c = column & (m.heads() as i32 - 1_i32);
        let (x, y) = (starts.load4::<i32>(c * 32_i32), starts.load4::<i32>(c * 32_i32 + 16_i32));
        let total = x[0] + x[1] + (x[2] + x[3]) + (y[0] + y[1] + (y[2] + y[3]));
        let at = record + (16 / m.parts * m.places()) as i64 + (column * 4_i32) as i64;
        let log2 = scale * 1.442695_f32;
        records.save::<i32>(at, total * -128_i32);
        records.save::<f32>(at + 32_i64, shown_worth(unit_of(top_of(&tops, c)) * log2));
        records.save::<f32>(at + 64_i64, shown_worth(unit_of(top_of(&ways, c)) * log2) * MARKED);
        records.save::<f32>(at + 96_i64, joined8(biases.load4::<f32>(c * 32_i32), biases.load4::<f32>(c * 32_i32 + 16_i32)) * log2);
    }
}

/// Of a block of threads: whether there is its block of keys, that one's page, its record, and the first number of its query rows.
#[device]
pub fn own_block(m: &FoldMeta, table: &Global<i32>, lens: &Global<i32>, kv_heads: i32, pages: i32, table_stride: i32) -> (bool, i64, i64, i64) {
    let (entry, head, seq) = (block_id(0), block_id(1), block_id(2));
    let len = lens.at(seq);
    let most = if m.behind.lead > 0 { table_stride - 1_i32 } else { table_stride };
    let live = (len <= most * m.page_tokens as i32) & (entry * (m.page_tokens as i32) < len);
    // Blocks that are there are not beyond the table.
    let at = if m.behind.lead > 0 { (entry + 1_i32).min(table_stride - 1_i32) } else { entry };
    let own = page_of(m.page_bytes, table.at(seq * table_stride + at), pages, kv_heads, head);
    let record = ((seq * kv_heads + head) as i64 * table_stride as i64 + entry as i64) * m.record() as i64;
    (live, own, record, ((seq * kv_heads + head) * m.group as i32) as i64 * m.d as i64)
}

/// First byte of a page of a kv head, page 0 where an entry is bad.
#[device]
pub fn page_of(page_bytes: usize, entry: i32, pages: i32, kv_heads: i32, head: i32) -> i64 {
    let page = entry as u32;
    ((if page < pages as u32 { page as i64 } else { 0_i64 }) * kv_heads as i64 + head as i64) * page_bytes as i64
}

/// Four numbers of query row `c`, the `u`-th four of the `a`-th eighth; rows past the last one are 0.
#[device]
#[allow(clippy::too_many_arguments)]
fn four<T: Float>(q: &Global<T>, first: i64, c: i32, a: i32, u: usize, group: usize, d: usize) -> [f32; 4] {
    let from = first + (c.min(group as i32 - 1_i32) * d as i32 + a * (d / 8) as i32 + (4 * u) as i32) as i64;
    let mut x = [0.0_f32; 4];
    for e in 0..4 {
        let y = finite(q.at(from + e as i64).to_f32());
        x[e] = if c < group as i32 { y } else { 0.0_f32 };
    }
    x
}

/// Byte of the `u`-th four of the `a`-th eighth of a residual's coordinates, and of the `a`-th four centres, of row `c`.
#[device]
fn place(c: i32, a: i32, u: usize, rank: usize, places: usize) -> i32 {
    (c * (places + 4) as i32 + a * (rank / 8) as i32 + (4 * u) as i32) * 4_i32
}

#[device]
fn way(c: i32, a: i32, rank: usize, places: usize) -> i32 {
    (c * (places + 4) as i32 + rank as i32 + a * 4_i32) * 4_i32
}

/// High and low bytes of four numbers as integers, and the integers' sum.
#[device]
pub fn digits(y: [f32; 4], by: f32) -> (u32, u32, i32) {
    let mut u = [0_u32; 4];
    let mut sum = 0_i32;
    for e in 0..4 {
        u[e] = y[e].mul_add(by, AND_64).to_bits();
        sum = sum + u[e].wrapping_sub(BITS) as i32;
    }
    let (high, low) = halves_of(u);
    (high, low, sum)
}

#[device]
pub fn largest(y: [f32; 4]) -> f32 {
    fmax(fmax(y[0].abs(), y[1].abs()), fmax(y[2].abs(), y[3].abs()))
}

/// The largest magnitude of a row, of what eight threads found.
#[device]
pub fn top_of(tops: &Shared<f32>, c: i32) -> f32 {
    let (x, y) = (tops.load4::<f32>(c * 32_i32), tops.load4::<f32>(c * 32_i32 + 16_i32));
    fmax(fmax(fmax(fmax(x[0], x[1]), fmax(x[2], x[3])), fmax(fmax(y[0], y[1]), fmax(y[2], y[3]))), 1e-20_f32)
}
