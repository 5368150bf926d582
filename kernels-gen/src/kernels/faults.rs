//! Pages that do not exist drop the rows that see them; whoever finishes a row looks for them.

use super::decode_attention::DecodeMeta;
use super::join_splits::JoinMeta;
use super::many::sees;
use super::seats::{LIVE, SEEN, SEQ, SHARE, TOKENS, lead_of, seat, whole};
use kernel_dsl::prelude::*;

/// A page that does not exist drops the rows of a crew that see it, if the crew has all of them.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find_faults(m: &DecodeMeta, seats: &Shared<i32>, from: &Shared<i64>, status: &mut Global<i32>, fault: &mut Shared<i32>, queries: i32, first: i32, log_crew: i32) {
    for w in warps(m.warps) {
        find_own_faults(m, seats, from, status, fault, queries, first, log_crew, w);
    }
}

/// Warp `w`'s part of them.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find_own_faults(m: &DecodeMeta, seats: &Shared<i32>, from: &Shared<i64>, status: &mut Global<i32>, fault: &mut Shared<i32>, queries: i32, first: i32, log_crew: i32, w: i32) {
    let (seen, lead) = (seat(seats, w, SEEN), lead_of(w, log_crew));
    let all = whole(seen, seat(seats, w, SHARE)) & (seat(seats, w, LIVE) > 0_i32);
    let count = if all { (seen + (m.page_tokens as i32 - 1_i32)) / m.page_tokens as i32 } else { 0_i32 };
    let each = (count + ((1_i32 << (log_crew & 31_i32)) - 1_i32)) >> (log_crew & 31_i32);
    for j in lanes(each) {
        let i = ((w - lead) * each + j).min(count - 1_i32);
        if (from.at(lead * m.listed_by_warp() as i32 + i) & 1_i64) > 0_i64 {
            for c in 0..m.rows() {
                let sees_to = if m.many { sees(seat(seats, w, TOKENS), queries, first + (c / m.group) as i32) } else { seen };
                if sees_to > i * m.page_tokens as i32 {
                    fault.put(lead * m.rows() as i32 + c as i32, 1_i32);
                    status.put(1, 1_i32);
                    status.put(3, seat(seats, w, SEQ));
                }
            }
        }
    }
}

/// Whether a page of a sequence's first `len` tokens does not exist: that drops the whole row.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find_fault(m: &JoinMeta, table: &Global<i32>, status: &mut Global<i32>, fault: &mut Shared<i32>, pages: i32, table_stride: i32, len: i32, seq: i32) {
    for _ in threads(1) {
        fault.put(0, 0_i32);
    }
    let count = (len + (m.page_tokens as i32 - 1_i32)) / m.page_tokens as i32;
    for i in threads(if m.lead > 0 { if len > 0_i32 { count + m.lead as i32 } else { 0_i32 } } else { count }) {
        let page = table.at(seq * table_stride + i);
        if (page < 0_i32) | (page >= pages) {
            fault.put(0, 1_i32);
            status.put(1, 1_i32);
            status.put(3, seq);
        }
    }
}
