//! Who takes what: every share of every sequence once, large ones first, by the unit that ends first.

mod support;

use kernel_dsl::prelude::*;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::schedule::{ALL, LANES, UNIT, count_shares, find_share};
use kernels_gen::kernels::{self, LEAF};
use kernels_gen::registry::codec;
use support::Random;

const CAPACITY: i32 = 40_000;

/// The unit that is taken, and sequence and split of every share in the order in which blocks take them.
fn shares(m: &DecodeMeta, lens: &[i32], blocks: i32, unit: i32) -> (i32, Vec<(i32, i32)>) {
    let (batch, gl) = (lens.len() as i32, Global::new(lens));
    let (mut counts, mut places, mut found) = (shared::<i32>(2 * LANES * (m.depth + 1)), shared::<i32>(2 * LANES), shared::<i32>(4));
    count_shares(m, &gl, batch, CAPACITY, blocks, unit, &mut counts, &mut places, &mut found);
    let unit = found.at(UNIT as i32);
    let all = (0..found.at(ALL as i32)).map(|item| {
        found.put(0_i32, -1_i32);
        find_share(m, &gl, batch, CAPACITY, &counts, &places, &mut found, unit, item);
        (found.at(0), found.at(1))
    });
    (unit, all.collect())
}

#[test]
fn every_share_is_taken_once_and_large_ones_first() {
    let m = kernels::decode_meta(codec("int4").unwrap(), 128, 4, 64);
    let mut random = Random(5);
    for batch in [1, 2, 31, 32, 33, 64, 200] {
        for unit in m.least()..=m.depth {
            // Lengths around every edge, some of them no lengths at all.
            let len = |random: &mut Random| match random.bits() % 6 {
                0 => 0,
                1 => -1,
                2 => CAPACITY + 1,
                3 => 256 * (random.bits() % 40) as i32,
                _ => (random.bits() % CAPACITY as u64) as i32,
            };
            let lens: Vec<i32> = (0..batch).map(|_| len(&mut random)).collect();
            let (taken, found) = shares(&m, &lens, 33, unit as i32);
            assert_eq!(taken, unit as i32);
            let of_block = (m.warps << unit) as i32;
            let leaves = |s: i32| (if (0..=CAPACITY).contains(&lens[s as usize]) { lens[s as usize] } else { 0 } as usize).div_ceil(LEAF) as i32;
            let mut wanted: Vec<(i32, i32)> = (0..batch as i32).flat_map(|s| (0..((leaves(s) + of_block - 1) / of_block).max(1)).map(move |split| (s, split))).collect();
            let large = |(s, split): &(i32, i32)| 2 * (leaves(*s) - split * of_block) > of_block;
            assert!(found.iter().map(large).is_sorted_by(|a, b| a >= b), "{lens:?}");
            let mut found = found;
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{lens:?}");
        }
    }
}

#[test]
fn the_device_chooses_as_the_host_would() {
    let m = kernels::decode_meta(codec("int4").unwrap(), 128, 4, 64);
    for (batch, len) in [(1, 39_000), (8, 32_768), (32, 8_192), (47, 4_096), (300, 300)] {
        let (unit, found) = shares(&m, &vec![len; batch], 33, -1);
        let host = kernels::best_unit(&m, 8 * batch, len as usize, 8 * 33);
        assert_eq!((unit as usize, found.len()), (host, batch * kernels::splits_of(&m, len as usize, host)), "{batch} x {len}");
    }
}
