//! What a block of attention has in shared memory, and how its warps are crews.

use super::arguments::Share;
use super::decode_attention::DecodeMeta;
use super::seats::WORDS;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

#[device]
pub struct Room {
    pub ring: Ring,
    /// At the end rows that are mapped back lie in the query's place, as integers.
    pub query: Shared<u8>,
    /// Queries of crews of one warp.
    pub rings: Shared<u8>,
    /// Of each column: what sums start from (with many queries, then what its row sees), what a step is worth, what a key's offset is.
    pub zero: Shared<i32>,
    pub worths: Shared<f32>,
    pub leans: Shared<f32>,
    /// The lane that stands for zero at each dim.
    pub zeros: Shared<i32>,
    /// Parts that wait.
    pub held: Shared<f32>,
    /// Rows that are dropped.
    pub fault: Shared<i32>,
    /// 1 in columns of low bytes.
    pub side: Shared<i32>,
    /// Where pages begin.
    pub from: Shared<i64>,
    pub seats: Shared<i32>,
    /// log2 of the warps of a crew, and whether crews are single warps of several.
    pub log_crew: i32,
    pub apart: bool,
}

#[device]
pub fn room(m: &DecodeMeta, k: &[&dyn Codec], of: &Share) -> Room {
    let ring = ring(m.stages, m.pair * m.tile_bytes);
    let query = shared::<u8>(if m.record > 0 { m.settled() * m.int_line() } else { m.sides() * m.query() });
    let rings = if m.bundles() { ring.between::<u8>(m.warps * m.ring()) } else { shared::<u8>(1) };
    let zero = shared::<i32>(if m.many { 2 * m.cols } else { m.crews() * m.cols });
    let worths = shared::<f32>(m.crews() * m.cols);
    let leans = shared::<f32>(if k[0].spec().affine { m.crews() * m.cols } else { 0 });
    let zeros = shared::<i32>(if m.record > 0 { 0 } else { m.d });
    let held = if m.away { ring.between::<f32>(m.warps * m.run()) } else { shared::<f32>(m.warps * m.run()) };
    let fault = shared::<i32>(m.crews() * m.rows());
    let side = shared::<i32>(m.cols);
    let from = shared::<i64>(m.warps * m.listed_by_warp());
    let seats = shared::<i32>(m.warps * WORDS);
    let log_crew = if m.bundles() { of.log_crew } else { m.log_warps() as i32 };
    let apart = if m.bundles() { log_crew == 0_i32 } else { false };
    Room { ring, query, rings, zero, worths, leans, zeros, held, fault, side, from, seats, log_crew, apart }
}
