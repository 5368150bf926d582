//! Decode attention over the coded cache, one new token a sequence: flash attention whose keys and
//! values are decoded inside the loop, straight into tensor-core operands.
//!
//! A warp walks up to 32 leaves of 256 tokens of one (sequence, kv head), tile after tile of 32 tokens, from a ring of its
//! own: no barrier in the loop. Every leaf starts afresh, and leaves are folded along a fixed tree ([`super::leaves`]): first by
//! their warp, then by its block, then by the join kernel, so the launch shape changes who computes, not what. A block that has
//! all of a sequence writes the output itself. Sums across lanes are integers or maxima: exact.
//!
//! Cost: reads tile_bytes for 32 tokens; writes d elements a head, or (d + 2) * 4 bytes a head and block.

use super::arguments::{Cache, Outputs, Queries, Share};
use super::attend::attend;
use super::early::ask_early;
use super::few::{count_few, find_few, seat_of};
use super::kivi::attend::attend_tiles;
use super::leaves::{LEAF, TILES};
use super::maps;
use super::pca::attend::attend_blocks;
use super::schedule::*;
use super::seats::WORDS;
use crate::codec::Codec;
use kernel_dsl::prelude::*;

/// Tokens of a segment: those that meet one query of a calibrated codec: as many as a warp of eight in a block walks at most, so that it keeps one query.
pub const SEGMENT: usize = 1024;

/// Most leaves of a block.
pub const SHARE: usize = 32;

/// Shape of a decode kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecodeMeta {
    pub d: usize,
    /// Query heads of a kv head, or of each of the `fold` that a kv head is taken for: their blocks, neighbours in a launch, read the same pages.
    /// Where kernels say `kv_heads` they count those.
    pub group: usize,
    pub fold: usize,
    /// Query heads that share a kv head. Where they have no equal parts the last two of these overlap, and both write the same.
    pub sharing: usize,
    /// `group` rounded up to the tensor core's 8 columns.
    pub cols: usize,
    /// Bytes of a weight that are columns of their own: 2 with up to 4 rows, see [`kernel_dsl::tile::pair`].
    pub parts: usize,
    /// Keys meet queries as floats.
    pub floats: bool,
    /// Blocks of `queries` query tokens, see [`super::prefill_attention`]; else one token a sequence.
    pub many: bool,
    pub queries: usize,
    /// The bytes of a weight have sums of their own though they are no columns: as with two parts, for more rows.
    pub apart: bool,
    /// Eights of rows that each warp has of its own, walking all leaves of the block's share: see [`super::chunk`]. 0: warps share rows.
    pub wide: usize,
    pub page_tokens: usize,
    pub tile_bytes: usize,
    /// Byte offsets in a tile: key codes and value codes of each band, side values.
    pub keys_at: [usize; 4],
    pub values_at: [usize; 2],
    pub sides_at: usize,
    /// Values are stored transposed, four tokens to a word.
    pub quads: bool,
    /// Keys are, four blocks to a word.
    pub key_quads: bool,
    /// They are decoded two dims of two blocks to a word.
    pub key_twos: bool,
    /// The queries come quantised, a record of so many bytes a segment, with a bias: see [`super::maps::queries`]. 0: they do not.
    pub record: usize,
    /// Tokens of a segment.
    pub segment: usize,
    /// 1, 2, 4 or 8.
    pub warps: usize,
    /// log2 of the most leaves that a warp takes.
    pub depth: usize,
    pub stages: usize,
    /// Tiles of a copy, 1 or 2: neighbours in a page of an even number of tiles.
    pub pair: usize,
    pub min_blocks: usize,
    /// KIVI's tiles: see [`super::kivi`].
    pub kivi: bool,
    /// Coordinates of a key's and of a value's residual in the bases of blocks; 0: there are none, see [`super::pca`].
    pub ranks: [usize; 2],
    /// What pages of blocks keep where: see [`super::pca`].
    pub behind: super::pca::Behind,
    /// A block has little shared memory: devices without copies in bulk have less.
    pub scarce: bool,
    /// Parts that wait do so outside of shared memory, see [`super::leaves`].
    pub away: bool,
    /// A launch of few sequences asks for tiles before its wait, see [`super::early`].
    pub early: bool,
    pub inv_sqrt_d: f32,
}

impl DecodeMeta {
    /// What the kernels take for kv heads, of so many query heads.
    pub fn kv_heads(&self, heads: usize) -> usize {
        heads / self.sharing * self.fold
    }

    /// Parts of a kv head's query heads overlap.
    pub fn laps(&self) -> bool {
        self.fold * self.group > self.sharing
    }

    /// Query rows of a block.
    pub fn rows(&self) -> usize {
        self.queries * self.group
    }

    pub fn threads(&self) -> usize {
        32 * self.warps
    }

    pub fn log_warps(&self) -> usize {
        self.warps.ilog2() as usize
    }

    /// log2 of the fewest leaves of a warp: eight a block, so that a tree has no more parts than the join kernel takes at once.
    pub fn least(&self) -> usize {
        if self.wide > 0 { 0 } else { (8 / self.warps).ilog2() as usize }
    }

    /// Entries of the page table that a warp lists of those that its block's share may need.
    pub fn listed_by_warp(&self) -> usize {
        (SHARE * LEAF / self.page_tokens + 2).div_ceil(self.warps)
    }

    /// Pages are blocks with a basis of their own.
    pub fn blocks(&self) -> bool {
        self.ranks[0] > 0
    }

    /// Only queries come from the launch before: shares are counted while it runs.
    pub fn waits_late(&self) -> bool {
        self.record > 0 || self.blocks()
    }

    /// One query token a sequence over rows of codes that know of no block, segment or model.
    pub fn plain(&self) -> bool {
        !self.many && self.record == 0 && !self.kivi && !self.blocks()
    }

    /// Pages that a row of the table names before those of blocks: of bases that blocks share.
    pub fn lead(&self) -> usize {
        self.behind.lead
    }

    /// A warp walks so few tiles that each has a lane for where it begins: see [`super::seats::homes`].
    pub fn homes(&self) -> bool {
        TILES << self.depth <= 32
    }

    /// Bytes of a warp's ring.
    pub fn ring(&self) -> usize {
        self.stages * self.pair * self.tile_bytes
    }

    /// Bytes of a query that is not a record in memory.
    pub fn query(&self) -> usize {
        2 * self.d * if self.floats { self.cols } else { self.cols / self.parts }
    }

    /// Queries are read anew for every tile: held they would take the place of sums, and of words decoded.
    pub fn reloads(&self) -> bool {
        let words = self.d * if self.floats { 1 } else { 2 };
        self.parts == 1 && !self.apart && self.record == 0 && !self.kivi && !self.blocks() && words > if self.scarce { 128 } else { 256 }
    }

    /// Short sequences may lie side by side in a block, if a warp's ring has room for a query.
    pub fn bundles(&self) -> bool {
        self.plain() && !self.reloads() && self.warps > 1 && self.query() <= self.ring()
    }

    /// Two whole sequences may. With tiles of 16 KB that costs 2 %, with those of all that is coded it gains as much and more.
    pub fn pairs(&self) -> bool {
        self.bundles() && self.tile_bytes < 1 << 14
    }

    /// Queries of a block that do not lie in rings.
    pub fn sides(&self) -> usize {
        if self.pairs() { 2 } else { 1 }
    }

    /// What a turn's start and end take, in quarters of a leaf. Eight rows in four warps have twice the queries and outputs a warp.
    pub fn pause(&self) -> f32 {
        if self.apart { 3.0 } else { 1.0 }
    }

    /// Bytes that a warp asks for before the launch before has ended, see [`super::early`]: two tiles, if they are neighbours in a page and small. More
    /// than the L2 holds twice, once a half, is lost.
    pub fn asked(&self) -> usize {
        if self.page_tokens % 64 == 0 && self.tile_bytes <= 8192 { 2 * self.tile_bytes } else { self.tile_bytes }
    }

    /// Crews that a block's warps may be.
    pub fn crews(&self) -> usize {
        if self.bundles() { self.warps } else { 1 }
    }

    /// Words of a part: its rows' outputs, then maximum and sum of each column.
    pub fn part(&self) -> usize {
        self.stat() + 2 * self.cols
    }

    /// First word of a part's maxima and sums.
    pub fn stat(&self) -> usize {
        self.rows() * self.d
    }

    /// Words of shared memory from a warp's parts to the next one's: of its ring, or of places for all parts that may wait.
    pub fn run(&self) -> usize {
        if self.away { self.ring() / 4 } else { self.depth.max(1) * self.part() }
    }

    /// Bytes of an output as integers.
    pub fn int_line(&self) -> usize {
        maps::int_line(self.d)
    }

    /// Rows of outputs that are mapped back: eight meet the matrix at a time.
    pub fn settled(&self) -> usize {
        if self.record > 0 { self.rows().div_ceil(8) * 8 } else { 0 }
    }

    /// The two bytes of a weight are summed apart, under units that stay: see [`super::units`].
    pub fn steady(&self) -> bool {
        self.parts == 2 || self.apart
    }

    /// Rows of the sums of weights that lanes keep: the two halves of a lane's tokens are two rows where they are one column.
    pub fn counters(&self) -> usize {
        if self.apart { 16 } else { 8 }
    }

    /// Parts that a warp puts by.
    pub fn put_by(&self) -> usize {
        if self.away { self.depth } else { 0 }
    }

    /// Bytes of a block in shared memory.
    pub fn shared(&self) -> usize {
        let held = if self.away { 0 } else { 4 * self.run() };
        let schedule = 4 * (LANES * (2 * self.depth + 3) + PLACES + FOUND + self.warps);
        let seats = 4 * (self.warps * (WORDS + 2 * self.listed_by_warp()) + self.crews() * (3 * self.cols + self.rows()));
        let query = if self.record > 0 { self.settled() * (self.int_line() + 8) } else { self.sides() * self.query() + 4 * self.d };
        let own = if self.kivi { self.kivi_shared() } else { self.blocks_shared() };
        own + self.warps * (self.ring() + 8 * self.stages + held) + query + schedule + seats + 512
    }
}

impl Meta for DecodeMeta {
    fn launch(&self) -> Launch {
        Launch { warps: self.warps, min_blocks: self.min_blocks }
    }
}

/// Grid: [blocks]; they share out all parts of all sequences' heads, the first ones to start the largest.
#[kernel]
pub fn decode_attention<T: Float>(
    m: DecodeMeta,
    k: &[&dyn Codec], // one a band
    v: &[&dyn Codec],
    q: &Global<T>,                              // [batch, heads, d], or records [batch, kv_heads, segments, m.record]
    #[when(m.record > 0)] maps: &Global<i8>,    // a layer's, as `preset::LayerMaps::packed` has them
    #[when(m.record > 0)] scales: &Global<f32>, // likewise
    cache: &Global<u8>,                         // [pages, kv_heads, block]
    table: &Global<i32>,                        // [batch, table_stride]
    lens: &Global<i32>,                         // [batch]
    out: &mut Global<T>,                        // [batch, heads, d]
    lse: &mut Global<f32>,                      // [batch, heads], natural logarithm
    part: &mut Global<f32>,                     // [batch, kv_heads, splits, group, d]
    stat: &mut Global<f32>,                     // [batch, kv_heads, splits, group, 2]: maximum, sum
    chosen: &mut Global<i32>,                   // [1]: log2 of the leaves of a block, for the join kernel
    status: &mut Global<i32>,                   // bad slot, bad page, bad length, where
    batch: i32,
    kv_heads: i32,
    pages: i32,
    table_stride: i32,
    segments: i32, // of the records
    splits: i32,   // most parts of a sequence
    blocks: i32,
    unit: i32, // log2 of the leaves of a warp, below 0 what ends first
    own: i32,  // 1: block i has the i-th share of sequences as long as their tables, whatever the lengths; 2: sequences are few
    scale: f32,
) {
    let (block, capacity) = (block_id(0), (if m.lead() > 0 { table_stride - 1_i32 } else { table_stride }) * m.page_tokens as i32);
    if !m.waits_late() {
        if m.early {
            // Not where blocks have whole sequences: there it wins nothing.
            if (own == 2_i32) | ((own == 1_i32) & (splits > 1_i32)) {
                ask_early(&m, cache, table, lens, batch, capacity, kv_heads, pages, table_stride, block, blocks);
            }
        }
        after_previous();
    }
    let mut counts = shared::<i32>(LANES * (2 * m.depth + 3));
    let mut places = shared::<i32>(PLACES);
    let mut found = shared::<i32>(FOUND);
    let mut short = shared::<i32>(m.warps);
    let mut turns = 1_i32;
    if own == 0_i32 {
        count_shares(&m, lens, batch, capacity, kv_heads, block, blocks, unit, &mut counts, &mut places, &mut found);
    }
    if own == 2_i32 {
        count_few(&m, lens, batch, capacity, kv_heads, block, blocks, unit, &mut found);
    }
    if own != 1_i32 {
        turns = found.at(TURNS);
    }
    if block == 0_i32 {
        chosen.put(0, if own != 1_i32 { found.at(UNIT) } else { unit } + m.log_warps() as i32);
    }
    if m.waits_late() {
        after_previous();
    }
    // Not before its own wait: the join reads lengths while this launch still runs.
    release_next();
    let cache = Cache { bytes: cache, table, lens, kv_heads, pages, table_stride };
    let to = &mut Outputs { out, lse, part, stat, status, maps, scales, splits };
    for left in strided(0_i32 - turns, 0_i32, 1) {
        // One number alone waits in a register through a turn.
        anew();
        let (block, mut unit) = (block_id(0), if own != 1_i32 { found.at(UNIT) } else { unit });
        let turn = if own != 1_i32 { turn_of(left, found.at(TURNS), block, blocks) } else { 0_i32 };
        let (mut item, mut seq, mut split, mut log_crew) = (block, 0_i32, 0_i32, m.log_warps() as i32);
        if own != 1_i32 {
            item = if turn < found.at(OWN) { turn * blocks + place_in(turn, block, blocks) + if turn > 0_i32 { found.at(PAIRS) } else { 0_i32 } } else { bundle_of(&found, turn, blocks) };
        }
        let of_head = quotient(item, kv_heads);
        let head = item - of_head * kv_heads;
        // The share beside it, if there is one.
        let (mut other, mut other_head, mut other_split) = (-1_i32, 0_i32, 0_i32);
        if own == 1_i32 {
            let fixed = seat_of(of_head, splits);
            seq = fixed.0;
            split = fixed.1;
        }
        if own == 0_i32 {
            if turn < found.at(OWN) {
                let of_all = unit;
                if m.pairs() {
                    // The last blocks: the first ones may lie two and two on a multiprocessor. Each side has half of the warps, which take twice as many leaves.
                    let rank = blocks - 1_i32 - block;
                    if (turn == 0_i32) & (rank < found.at(PAIRS)) {
                        log_crew = m.log_warps() as i32 - 1_i32;
                        unit = unit + 1_i32;
                        other = quotient(blocks + rank, kv_heads);
                        other_head = blocks + rank - other * kv_heads;
                    }
                }
                find_shares(&m, lens, batch, capacity, &counts, &places, &mut found, of_all, of_head, other);
                seq = found.at(0);
                split = found.at(1);
                if m.pairs() {
                    if other >= 0_i32 {
                        other = found.at(SECOND);
                        other_split = found.at(SECOND + 1);
                    }
                }
            } else {
                find_short(&m, lens, batch, capacity, &places, &found, &mut short, of_head);
                log_crew = 0_i32;
            }
        }
        if own == 2_i32 {
            let few = find_few(&m, lens, batch, capacity, unit, of_head);
            seq = few.0;
            split = few.1;
        }
        let of = Share { head, seq, split, other, other_head, other_split, unit, log_crew, short: &short };
        let q = Queries { rows: q, scale, segments, tokens: 1_i32, first: 0_i32, slot: 0_i32, blocks: 1_i32 };
        if m.kivi {
            attend_tiles::<T>(&m, k[0], v[0], &q, &cache, to, &of);
        } else if m.blocks() {
            attend_blocks::<T>(&m, k[0], v[0], &q, &cache, to, &of);
        } else {
            attend::<T>(&m, k, v, &q, &cache, to, &of);
        }
    }
}
