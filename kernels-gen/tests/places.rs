//! Where the digits of a calibrated code word lie: each bit is of one digit, each coordinate has its place.

use kernels_gen::codecs::places::Places;

#[test]
fn every_bit_of_a_block_belongs_to_one_digit() {
    let mut whole = 0;
    for n in 0..8_usize.pow(4) {
        let widths: [usize; 4] = std::array::from_fn(|i| n / 8_usize.pow(i as u32) % 8 + 1);
        if !widths.is_sorted_by(|a, b| a >= b) {
            continue;
        }
        let Some(p) = Places::of(&widths) else {
            assert!(widths.iter().sum::<usize>() % 4 != 0, "{widths:?}");
            continue;
        };
        let mut bits = vec![0; p.bits()];
        let mut take = |byte: usize, bit: usize, n: usize| {
            assert!(bit + n <= 8, "{widths:?} {p:?}");
            (0..n).for_each(|k| bits[8 * byte + bit + k] += 1);
        };
        (0..8).for_each(|i| take(p.byte[i], p.bit[i], p.main[i]));
        (0..p.parts).for_each(|i| take(p.part_byte[i], p.part_bit[i], p.part_bits[i]));
        assert!(bits.iter().all(|n| *n == 1), "{widths:?} {p:?}");
        // order names each place once, and the widths are those of the bands
        let mut places = p.order;
        places.sort();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!((0..8).all(|e| p.widths[p.order[e]] == widths[e / 2]), "{widths:?} {p:?}");
        assert!(p.raised.is_sorted() && (0..8).all(|i| p.raised[i] == p.raised[i & 6] && p.widths[i] + p.raised[i] <= 8), "{widths:?} {p:?}");
        whole += usize::from(p.parts == 0);
    }
    assert!(whole > 40, "{whole}");
    assert_eq!(Places::of(&[6, 4, 4, 2]).map(|p| (p.raised, p.widths)), Some(([0, 0, 0, 0, 2, 2, 4, 4], [4, 4, 2, 2, 6, 6, 4, 4])));
    assert!(Places::of(&[6, 4, 4, 1]).is_none() && Places::of(&[9, 4, 2, 1]).is_none() && Places::of(&[]).is_none());
}

#[test]
fn coordinates_are_dealt_out() {
    let p = Places::of(&[6, 4, 4, 2]).unwrap();
    let mut all: Vec<usize> = (0..128).map(|rank| p.coordinate(rank, 128)).collect();
    assert!((0..32).all(|rank| p.widths[all[rank] % 8] == 6) && (96..128).all(|rank| p.widths[all[rank] % 8] == 2));
    all.sort();
    assert!(all.iter().enumerate().all(|(i, c)| i == *c));
}
