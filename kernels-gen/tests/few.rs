//! Few sequences: every share of each is found once, by the blocks of a launch together, under the unit that counting settles on.

mod support;

use kernel_dsl::prelude::*;
use kernels_gen::kernels::few::{FEW, count_few, find_few, seat_of};
use kernels_gen::kernels::schedule::{FEW as BUNDLED, FOUND, LANES, PLACES, TURNS, UNIT, count_shares, place_in};
use kernels_gen::kernels::{self, LEAF};
use kernels_gen::registry::codec;
use support::Random;

const CAPACITY: i32 = 40_000;

#[test]
fn blocks_find_every_share_once() {
    let mut random = Random(3);
    for (name, batch) in ["int4", "e8q38", "bf16"].into_iter().flat_map(|c| (1..=FEW).map(move |n| (c, n))) {
        let m = kernels::decode_meta(codec(name).unwrap(), 128, 4, 64);
        for round in 0..12 {
            // Lengths around every edge, some of them no lengths at all.
            let lens: Vec<i32> = (0..batch)
                .map(|_| match random.bits() % 6 {
                    0 => [0, -1, CAPACITY + 1, CAPACITY][random.bits() as usize % 4],
                    1 => 256 * (random.bits() % 40) as i32,
                    _ => (random.bits() % CAPACITY as u64) as i32,
                })
                .collect();
            let unit = if round % 3 == 0 { m.least() as i32 + round / 3 % (m.depth - m.least() + 1) as i32 } else { -1 };
            let (kv_heads, blocks) = ([1, 8, 3][round as usize % 3], [1, 7, 132, 264][round as usize % 4]);
            let (memory, n) = (Global::new(&lens), batch as i32);
            let (mut counts, mut places, mut found) = (shared::<i32>(LANES * (2 * m.depth + 3)), shared::<i32>(PLACES), shared::<i32>(FOUND));
            count_shares(&m, &memory, n, CAPACITY, kv_heads, 0, blocks, unit, &mut counts, &mut places, &mut found);
            let (mut taken, mut units) = (vec![], vec![]);
            for block in 0..blocks {
                let mut own = shared::<i32>(FOUND);
                count_few(&m, &memory, n, CAPACITY, kv_heads, block, blocks, unit, &mut own);
                let (chosen, turns) = (own.at(UNIT), own.at(TURNS));
                // Counting may have put short ones into bundles.
                assert!(chosen == found.at(UNIT) || found.at(BUNDLED) > 0, "{name} lens {lens:?}");
                assert!(unit < 0 || chosen == unit);
                units.push(chosen);
                for turn in 0..turns {
                    let item = turn * blocks + place_in(turn, block, blocks);
                    let (seq, split) = find_few(&m, &memory, n, CAPACITY, chosen, item / kv_heads);
                    taken.push((item % kv_heads, seq, split));
                }
            }
            assert!(units.iter().all(|unit| *unit == units[0]));
            let share = m.warps << units[0];
            let leaves = |len: &i32| (if (0..=CAPACITY).contains(len) { *len } else { 0 } as usize).div_ceil(LEAF);
            let splits = |len: &i32| leaves(len).div_ceil(share).max(1) as i32;
            let mut wanted: Vec<_> = (0..kv_heads).flat_map(|head| lens.iter().enumerate().flat_map(move |(seq, len)| (0..splits(len)).map(move |split| (head, seq as i32, split)))).collect();
            taken.sort();
            wanted.sort();
            assert_eq!(taken, wanted, "{name} unit {unit} blocks {blocks} heads {kv_heads} lens {lens:?}");
        }
    }
}

#[test]
fn fixed_seats_are_every_share_once() {
    for (batch, splits) in [(1, 1), (1, 16), (3, 5), (33, 8), (7, 64)] {
        let taken: Vec<(i32, i32)> = (0..batch * splits).map(|item| seat_of(item, splits)).collect();
        let wanted: Vec<(i32, i32)> = (0..batch).flat_map(|seq| (0..splits).map(move |split| (seq, split))).collect();
        assert_eq!(taken, wanted, "{batch} sequences of {splits} shares");
    }
}
