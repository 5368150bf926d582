//! The two lists of rows that a query token sees, under one softmax: leaves of the window's, then leaves of the other's.

use kernel_dsl::prelude::*;

use super::decode::DecodeMeta;
use super::lanes::{ask, expect};
use crate::latent::LEAF;

/// A cache, and which of its rows each token sees.
#[device]
pub struct List {
    /// `[rows, row_bytes]`
    pub rows: Global<u8>,
    /// `[tokens, capacity]`
    pub at: Global<i32>,
    /// Rows of the cache.
    pub count: i32,
    pub capacity: i32,
}

/// What a token sees of them: how many indices count, leaves of the window, leaves in all.
#[device]
pub struct Seen {
    pub window: i32,
    pub extra: i32,
    pub window_leaves: i32,
    pub leaves: i32,
}

#[device]
fn leaves_of(len: i32) -> i32 {
    (len + (LEAF as i32 - 1_i32)) / LEAF as i32
}

#[device]
pub fn seen_by(window: &List, extra: &List, lens: &Global<i32>, token: i32) -> Seen {
    // An empty cache is not looked at, whatever its list says.
    let window_len = if window.count > 0_i32 { lens.at(token * 2_i32).min(window.capacity).max(0_i32) } else { 0_i32 };
    let extra_len = if extra.count > 0_i32 { lens.at(token * 2_i32 + 1_i32).min(extra.capacity).max(0_i32) } else { 0_i32 };
    let window_leaves = leaves_of(window.capacity);
    let leaves = if extra_len > 0_i32 { window_leaves + leaves_of(extra_len) } else { leaves_of(window_len) };
    Seen { window: window_len, extra: extra_len, window_leaves, leaves }
}

/// It goes to shared memory, where a long loop finds it again.
#[device]
pub fn put_seen(at: &mut Shared<i32>, seen: &Seen) {
    at.put(0, seen.window);
    at.put(1, seen.extra);
    at.put(2, seen.window_leaves);
    at.put(3, seen.leaves);
}

#[device]
pub fn seen_again(at: &Shared<i32>) -> Seen {
    Seen { window: at.at(0), extra: at.at(1), window_leaves: at.at(2), leaves: at.at(3) }
}

/// The row at position p of a token's list, -1 if there is none.
#[device]
fn row_at(list: &List, len: i32, token: i32, p: i32) -> i32 {
    let mut row = -1_i32;
    if p < len {
        let found = list.at.at(token as i64 * list.capacity as i64 + p as i64);
        row = if (found >= 0_i32) & (found < list.count) { found } else { -1_i32 };
    }
    row
}

/// The row at position p of all leaves, -1 if there is none.
#[device]
pub fn row_of(window: &List, extra: &List, seen: &Seen, token: i32, p: i32) -> i32 {
    let own = seen.window_leaves * LEAF as i32;
    if p < own { row_at(window, seen.window, token, p) } else { row_at(extra, seen.extra, token, p - own) }
}

/// A hint that a row of a leaf will be sent for.
#[device]
pub fn expect_of(m: &DecodeMeta, window: &List, extra: &List, seen: &Seen, leaf: i32, row: i32) {
    if leaf < seen.window_leaves {
        expect(m, &window.rows, row);
    } else {
        expect(m, &extra.rows, row);
    }
}

/// Thread i sends for its part of a leaf, whose rows are slots from `own` on: see [`ask`].
#[device]
#[allow(clippy::too_many_arguments)]
pub fn ask_of(m: &DecodeMeta, window: &List, extra: &List, seen: &Seen, leaf: i32, slots: &Shared<i32>, own: i32, room: &mut Shared<i8>, at: i32, sides: &mut Shared<u8>, i: i32) {
    if leaf < seen.window_leaves {
        ask(m, &window.rows, slots, own, room, at, sides, i);
    } else {
        ask(m, &extra.rows, slots, own, room, at, sides, i);
    }
}
