//! What a warp asks its tiles: its query's operands and what sums of them are worth, of the segment that it is in.

use super::arguments::{Cache, Queries, Share};
use super::decode_attention::DecodeMeta;
use super::keys::{height_of, lifted};
use super::many::sees;
use super::maps::queries::{columns, operands};
use super::query::{query_at, side_of};
use super::room::Room;
use super::seats::*;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// What a warp knows of its walk. The query is the one that the block has made, if records do not have it.
#[device]
pub struct Own {
    pub w: i32,
    /// Tiles of the sequence, the warp's first one, and the page that its list begins with.
    pub tiles: i32,
    pub tile: i32,
    pub page: i32,
    /// The first tile that not every row sees to its end.
    pub edge: i32,
    /// Its first column in shared memory.
    pub column: i32,
    pub operands: ([Tile<i8>; 4], [Tile<i8>; 4]),
    pub floats: Tile<bf16>,
    pub start: Tile<i32>,
    pub worth: Tile<f32>,
    /// The first of its rows' records.
    pub records: i64,
}

/// A query: high and low bytes of bands, and of each column what sums start from, what a step is worth and what is added.
#[device]
pub struct Query {
    pub operands: ([Tile<i8>; 4], [Tile<i8>; 4]),
    pub columns: (Tile<i32>, Tile<f32>, Tile<f32>),
}

#[device]
pub fn own_of<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], q: &Queries<T>, cache: &Cache, room: &Room, of: &Share, w: i32) -> Own {
    // What ends of leaves and of sequences need besides they look up again.
    let (tiles, tile, page) = (tiles_of(&room.seats, w), seat(&room.seats, w, TILE), seat(&room.seats, w, PAGE));
    let edge = if m.many { sees(seat(&room.seats, w, TOKENS), q.tokens, q.first) / 32_i32 } else { tiles - 1_i32 };
    let lead = lead_of(w, room.log_crew);
    let (high, low, floats) = if room.apart { query_at(m, &room.rings, w * m.ring() as i32, k.len()) } else { query_at(m, &room.query, side_of(m, lead), k.len()) };
    // Its own query lay where tiles will; others have started their first copy.
    if room.apart {
        start_tiles(m, &room.ring, cache.bytes, &room.from, &room.seats, w, 0);
    } else {
        start_tiles(m, &room.ring, cache.bytes, &room.from, &room.seats, w, 1);
    }
    let column = lead * m.cols as i32;
    let (start, worth) = (room.zero.cols(column, 1, m.cols), room.worths.cols(column, 1, m.cols));
    let (start, worth) = if m.parts == 2 { (start.left_halves(), worth.left_halves()) } else { (start, worth) };
    let line = of.seq * cache.kv_heads + of.head;
    let records = (if m.many { line * q.blocks + q.slot } else { line }) as i64 * q.segments as i64;
    Own { w, tiles, tile, page, edge, column, operands: (high, low), floats, start, worth, records }
}

/// The query of a warp's first tile.
#[device]
pub fn first_query<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], q: &Queries<T>, own: &Own) -> Query {
    if m.record > 0 { query_of::<T>(m, k, q, own, own.tile.min(own.tiles - 1_i32).max(0_i32)) } else { Query { operands: own.operands.clone(), columns: (own.start.clone(), own.worth.clone(), cols(m.cols, 0.0_f32)) } }
}

/// That of a tile's segment, from its record.
#[device]
pub fn query_of<T: Float>(m: &DecodeMeta, k: &[&dyn Codec], q: &Queries<T>, own: &Own, tile: i32) -> Query {
    let at = (own.records + (tile / (m.segment / 32) as i32) as i64) * m.record as i64;
    let operands = operands::<T>(q.rows, at, k.len(), m.key_quads, m.cols, m.parts, m.d);
    Query { operands, columns: lifted(columns::<T>(q.rows, at, m.cols, m.parts, m.d), height_of(k, m.key_quads, m.d)) }
}
