//! What attention of several query tokens a sequence adds to that of one: what each row sees, and the outputs of
//! weights whose two bytes are summed apart.

use super::decode_attention::DecodeMeta;
use kernel_dsl::prelude::*;

/// Tokens that query token `token` of `queries` sees of a sequence of `len`: the last one all, the one before one less.
#[device]
pub fn sees(len: i32, queries: i32, token: i32) -> i32 {
    (len - queries + token.min(queries - 1_i32) + 1_i32).max(0_i32)
}

/// Row of q and of the output, `[tokens, kv_heads, group]`, of column `column` of a block that begins with token `first`
/// of a sequence's `queries`; past the last token that one's.
#[device]
pub fn row_of(m: &DecodeMeta, seq: i32, kv_heads: i32, head: i32, queries: i32, first: i32, column: i32) -> i32 {
    let token = if m.many { seq * queries + (first + column / m.group as i32).min(queries - 1_i32) } else { seq };
    if m.laps() { lapping(token, kv_heads, head, column % m.group as i32, m.group as i32, m.fold, m.sharing) } else { (token * kv_heads + head) * m.group as i32 + column % m.group as i32 }
}

/// That of query head `member` of the `group` of part `head`, where a kv head's `fold` parts of `sharing` query heads overlap.
#[device]
pub fn lapping(token: i32, kv_heads: i32, head: i32, member: i32, group: i32, fold: usize, sharing: usize) -> i32 {
    let of = head / fold as i32;
    let before = ((head - of * fold as i32) * group).min(sharing as i32 - group);
    (token * (kv_heads / fold as i32) + of) * sharing as i32 + before + member
}

/// How far the tokens of tile `t` lie behind what each column sees, from the second half of `seen`: 0 and more are hidden.
#[device]
pub fn hidden(seen: &Shared<i32>, t: i32, cols: usize, parts: usize) -> Tile<i32> {
    let ends = seen.cols(cols, 1, cols);
    if parts == 2 { (pair_ids() + t * 32_i32) - &ends } else { (row_ids(32) + t * 32_i32) - &ends }
}

/// Sums of the two bytes, joined.
#[device]
pub fn joined(high: &Tile<f32>, low: &Tile<f32>) -> Tile<f32> {
    high.mul_add(256.0_f32, low)
}
