//! Who takes what: every share of every sequence and every short sequence once, large shares first, by the unit that ends first.

mod support;

use kernel_dsl::prelude::*;
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::schedule::{ALL, FEW, FOUND, LANES, OWN, PAIRS, PLACES, SECOND, TURNS, UNIT, bundle_of, count_shares, find_shares, find_short, place_in, turn_of};
use kernels_gen::kernels::{self, LEAF};
use kernels_gen::registry::codec;
use support::Random;

const CAPACITY: i32 = 40_000;

/// A batch as a block sees it.
struct Counted<'a> {
    m: &'a DecodeMeta,
    lens: Global<i32>,
    block: i32,
    blocks: i32,
    counts: Shared<i32>,
    places: Shared<i32>,
    found: Shared<i32>,
}

impl<'a> Counted<'a> {
    fn new(m: &'a DecodeMeta, lens: &[i32], kv_heads: i32, [block, blocks]: [i32; 2], unit: i32) -> Self {
        let (lens, batch) = (Global::new(lens), lens.len() as i32);
        let (mut counts, mut places, mut found) = (shared::<i32>(LANES * (2 * m.depth + 3)), shared::<i32>(PLACES), shared::<i32>(FOUND));
        count_shares(m, &lens, batch, CAPACITY, kv_heads, block, blocks, unit, &mut counts, &mut places, &mut found);
        Counted { m, lens, block, blocks, counts, places, found }
    }

    fn batch(&self) -> i32 {
        (self.lens.bytes.len() / 4) as i32
    }

    /// Sequence and split of every share of a head, in the order in which blocks take them.
    fn shares(&mut self) -> Vec<(i32, i32)> {
        let (batch, unit, all) = (self.batch(), self.found.at(UNIT), self.found.at(ALL));
        let of = |item| {
            self.found.put(0_i32, -1_i32);
            find_shares(self.m, &self.lens, batch, CAPACITY, &self.counts, &self.places, &mut self.found, unit, item, all - 1 - item);
            [0, SECOND].map(|at| (self.found.at(at), self.found.at(at + 1)))
        };
        let both: Vec<[(i32, i32); 2]> = (0..all).map(of).collect();
        // The share beside it is found alike.
        assert!(!self.m.pairs() || both.iter().rev().map(|of| of[1]).eq(both.iter().map(|of| of[0])));
        both.into_iter().map(|of| of[0]).collect()
    }

    /// The sequences of a bundle.
    fn bundle(&self, bundle: i32) -> Vec<i32> {
        let mut short = shared::<i32>(self.m.warps);
        find_short(self.m, &self.lens, self.batch(), CAPACITY, &self.places, &self.found, &mut short, bundle);
        (0..self.m.warps).map(|w| short.at(w)).collect()
    }

    /// Shares and bundles that the block takes, each in the order of its turns.
    fn taken(&self) -> (Vec<i32>, Vec<i32>) {
        let (own, turns) = (self.found.at(OWN), self.found.at(TURNS));
        let order = (-turns..0).map(|left| turn_of(left, turns, self.block, self.blocks));
        let (shares, bundles): (Vec<i32>, Vec<i32>) = order.partition(|turn| *turn < own);
        let pairs = self.found.at(PAIRS);
        let of = |turn| match turn {
            0 => [Some(self.block), (self.blocks - 1 - self.block < pairs).then_some(2 * self.blocks - 1 - self.block)],
            _ => [Some(turn * self.blocks + place_in(turn, self.block, self.blocks) + pairs), None],
        };
        let shares = shares.into_iter().flat_map(of).flatten().collect();
        (shares, bundles.into_iter().map(|turn| bundle_of(&self.found, turn, self.blocks)).collect())
    }
}

fn leaves_of(len: i32) -> i32 {
    (if (0..=CAPACITY).contains(&len) { len } else { 0 } as usize).div_ceil(LEAF) as i32
}

#[test]
fn every_share_and_every_short_sequence_is_found_once() {
    let mut random = Random(5);
    for (name, batch) in ["int4", "e8q38", "bf16"].into_iter().flat_map(|c| [1, 2, 31, 32, 33, 64, 200].map(|n| (c, n))) {
        let m = kernels::decode_meta(codec(name).unwrap(), 128, 4, 64);
        for unit in m.least()..=m.depth {
            // Lengths around every edge, some of them no lengths at all.
            let len = |random: &mut Random| match random.bits() % 7 {
                0 => 0,
                1 => -1,
                2 => CAPACITY + 1,
                3 => 256 * (random.bits() % 40) as i32,
                4 => (random.bits() % 600) as i32,
                _ => (random.bits() % CAPACITY as u64) as i32,
            };
            let lens: Vec<i32> = (0..batch).map(|_| len(&mut random)).collect();
            let what = format!("{name} unit {unit}: {lens:?}");
            let mut counted = Counted::new(&m, &lens, 1, [0, 33], unit as i32);
            assert_eq!(counted.found.at(UNIT), unit as i32);
            let of_block = (m.warps << unit) as i32;
            let leaves = |s: i32| leaves_of(lens[s as usize]);
            let (short, long): (Vec<i32>, Vec<i32>) = (0..batch).partition(|s| leaves(*s) <= 1);
            // Few short ones are shares as well.
            let bundled = short.len() > 2 * 33;
            let (short, long) = if bundled { (short, long) } else { (vec![], (0..batch).collect()) };
            let wanted: Vec<(i32, i32)> = long.iter().flat_map(|&s| (0..((leaves(s) + of_block - 1) / of_block).max(1)).map(move |split| (s, split))).collect();
            let mut found = counted.shares();
            assert!(found.iter().map(|(s, split)| 2 * (leaves(*s) - split * of_block) > of_block).is_sorted_by(|a, b| a >= b), "{what}");
            found.sort_unstable();
            assert_eq!(found, wanted, "{what}");
            assert_eq!(counted.found.at(FEW), short.len() as i32, "{what}");
            let mut found: Vec<i32> = (0..(short.len().div_ceil(m.warps)) as i32).flat_map(|i| counted.bundle(i)).collect();
            assert!(found.iter().skip(short.len()).all(|s| *s == -1), "{what}");
            found.truncate(short.len());
            assert_eq!(found, short, "{what}");
        }
    }
}

#[test]
fn everything_has_one_block_and_short_sequences_find_those_that_are_free() {
    let m = kernels::decode_meta(codec("int4").unwrap(), 128, 4, 64);
    for (long, short) in [(32, 32), (33, 32), (20, 200), (65, 90), (40, 40), (0, 300), (33, 0), (0, 3), (47, 1)] {
        let lens = [vec![4096; long], vec![100; short]].concat();
        for (unit, blocks) in [(0, 264), (1, 264), (1, 7), (2, 264), (-1, 250), (-1, 5)] {
            let (mut shares, mut bundles, mut all) = (vec![], vec![], 0);
            for block in 0..blocks {
                let counted = Counted::new(&m, &lens, 8, [block, blocks], unit);
                let (own, others) = counted.taken();
                all = counted.found.at(ALL);
                shares.extend(own);
                bundles.extend(others);
            }
            shares.sort_unstable();
            bundles.sort_unstable();
            let what = format!("{long} x 4096 and {short} x 100, unit {unit}, {blocks} blocks");
            assert_eq!(shares, (0..8 * all).collect::<Vec<i32>>(), "{what}");
            let wanted = if 8 * short as i32 > 2 * blocks { 8 * short.div_ceil(m.warps) } else { 0 };
            assert_eq!(bundles, (0..wanted as i32).collect::<Vec<i32>>(), "{what}");
        }
    }
    let taken = |short: usize, block| Counted::new(&m, &[vec![4096; 32], vec![128; short]].concat(), 8, [block, 264], 1).taken();
    // A few are shares: 512 of them, of which the first 256 are long. Half of the blocks begin with theirs, the others end with it.
    for block in 0..264 {
        let shares = taken(32, block).0;
        assert_eq!(shares.len(), if block < 16 { 1 } else { 2 }, "block {block}");
        assert!(shares.is_sorted() == (block < 132) || block < 16, "block {block}: {shares:?}");
    }
    // 256 shares and 72 bundles: eight blocks are free, and two bundles take as long as a share. The others are everybody's.
    for block in 0..264 {
        let (shares, bundles) = taken(72, block);
        assert_eq!((shares.len(), bundles.len()), (usize::from(block < 256), if block < 256 { usize::from(block < 56) } else { 2 }), "block {block}");
    }
}

#[test]
fn the_device_chooses_as_the_host_would() {
    let m = kernels::decode_meta(codec("int4").unwrap(), 128, 4, 64);
    for (batch, len) in [(1, 32_768), (1, 39_000), (8, 32_768), (32, 8_192), (47, 4_096), (300, 300)] {
        let mut counted = Counted::new(&m, &vec![len; batch], 8, [0, 8 * 33], -1);
        let (unit, found) = (counted.found.at(UNIT), counted.shares());
        let host = kernels::best_unit(&m, 8 * batch, len as usize, 8 * 33);
        assert_eq!((unit as usize, found.len()), (host, batch * kernels::splits_of(&m, len as usize, host)), "{batch} x {len}");
        // No more blocks than there can be shares: a launch of few sequences has fewer than run at once, and chooses alike.
        let most = (8 * batch * kernels::splits_of(&m, len as usize, m.least())).min(8 * 33) as i32;
        assert_eq!(Counted::new(&m, &vec![len; batch], 8, [0, most], -1).found.at(UNIT), unit, "{batch} x {len} in {most} blocks");
    }
}

#[test]
fn two_smaller_blocks_serve_whole_sequences_that_fill_the_device() {
    let of = |name: &str| kernels::halved(&kernels::decode_meta(codec(name).unwrap(), 128, 4, 64));
    for name in ["e8q38", "int6", "int8"] {
        let m = of(name).unwrap_or_else(|| panic!("{name}: two blocks"));
        assert_eq!((m.warps, m.min_blocks, m.depth), (4, 2, 3), "{name}");
        // 264 blocks run at once.
        let fills = |rows, capacity| kernels::fills(&m, rows, capacity, 264);
        assert!(fills(264, 4096) && fills(512, 4096) && fills(256, 8192), "{name}");
        // The last turn is half empty; few rows; sequences of many blocks.
        assert!(!fills(376, 4096) && !fills(8, 4096) && !fills(264, 65_536) && !fills(0, 4096), "{name}");
    }
    assert!(of("int4").is_none() && of("bf16").is_none());
}

#[test]
fn lone_blocks_serve_launches_that_have_no_more() {
    let of = |name: &str, group| kernels::decode_meta(codec(name).unwrap(), 128, group, 64);
    // 132 multiprocessors.
    let serves = |name: &str, group, rows, capacity| {
        let m = of(name, group);
        kernels::lone(&m).is_some_and(|lone| kernels::scatters(&m, &lone, rows, capacity, 132))
    };
    for name in ["int4", "e8w4"] {
        let m = kernels::lone(&of(name, 4)).unwrap_or_else(|| panic!("{name}: one block"));
        assert_eq!((m.warps, m.min_blocks, m.stages), (8, 1, 3), "{name}");
        // One sequence of 32768 tokens has 128 blocks at most; a whole one has nothing to scatter.
        assert!(serves(name, 4, 8, 32_768) && serves(name, 4, 32, 8_192) && !serves(name, 4, 8, 131_072) && !serves(name, 4, 8, 2_048), "{name}");
    }
    // Eight rows have four warps a block: sequences of many blocks are better off with eight too, while they are few.
    assert!(serves("int4", 8, 8, 32_768) && serves("int4", 8, 8, 131_072) && serves("int8", 8, 32, 32_768) && !serves("int4", 8, 256, 8_192));
    // What decodes slowly has two blocks, or one already.
    assert!(["turboquant_4bit_nc", "int2", "e8q38", "bf16"].iter().all(|name| kernels::lone(&of(name, 4)).is_none()));
}

#[test]
fn deep_blocks_serve_whole_sequences_that_two_have_no_room_for() {
    let m = kernels::decode_meta(codec("int5").unwrap(), 128, 4, 64);
    let deep = kernels::deep(&m).expect("one block");
    assert_eq!((m.warps, m.min_blocks, m.depth, deep.min_blocks, deep.depth), (8, 2, 1, 1, 2));
    let serves = |rows, capacity| kernels::deepens(&m, &deep, rows, capacity, [264, 132]);
    assert!(serves(256, 8_192) && !serves(512, 4_096) && !serves(8, 8_192) && !serves(256, 65_536));
    assert!(["int4", "nvfp4"].iter().all(|name| kernels::deep(&kernels::decode_meta(codec(name).unwrap(), 128, 4, 64)).is_none()));
}
