//! Pages that do not exist drop the rows that see them; whoever finishes a row looks for them.

use super::decode_attention::DecodeMeta;
use super::join_splits::JoinMeta;
use super::many::sees;
use kernel_dsl::prelude::*;

/// A page of the first `n` tokens, which the block has all of, that does not exist drops the rows that see it.
#[device]
#[allow(clippy::too_many_arguments)]
pub fn find_faults(m: &DecodeMeta, from: &Shared<i64>, status: &mut Global<i32>, fault: &mut Shared<i32>, n: i32, n_all: i32, queries: i32, first: i32, seq: i32) {
    for i in threads((n + (m.page_tokens as i32 - 1_i32)) / m.page_tokens as i32) {
        if (from.at(i) & 1_i64) > 0_i64 {
            for c in 0..m.rows() {
                let seen = if m.many { sees(n_all, queries, first + (c / m.group) as i32) } else { n };
                if seen > i * m.page_tokens as i32 {
                    fault.put(c, 1_i32);
                    status.put(1, 1_i32);
                    status.put(3, seq);
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
    for i in threads((len + (m.page_tokens as i32 - 1_i32)) / m.page_tokens as i32) {
        let page = table.at(seq * table_stride + i);
        if (page < 0_i32) | (page >= pages) {
            fault.put(0, 1_i32);
            status.put(1, 1_i32);
            status.put(3, seq);
        }
    }
}
