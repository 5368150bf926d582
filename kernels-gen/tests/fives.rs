//! Numbers below 5 and below 11, packed as fractions, come back: every pair and every three of them at every place.

use kernels_gen::codecs::{elevens, fives};

/// Bytes of two words.
fn bytes(n: [u32; 8]) -> [u32; 2] {
    [0, 1].map(|w| (0..4).fold(0, |word, i| word | n[4 * w + i] << (8 * i)))
}

/// Byte k of a code as word k.
fn words(code: u32) -> [u32; 4] {
    std::array::from_fn(|k| code >> (8 * k) & 255)
}

/// Eight numbers below `bound` of which three neighbours, from each place on, are all there can be.
fn rows(bound: u32) -> impl Iterator<Item = [u32; 8]> {
    (0..6).flat_map(move |at| (0..bound.pow(3)).map(move |n| std::array::from_fn(|i| if (at..at + 3).contains(&i) { n / bound.pow((i - at) as u32) % bound } else { (n * 7 + 3 * i as u32) % bound })))
}

#[test]
fn numbers_below_five_come_back() {
    for n in rows(5) {
        for up in 1..5 {
            let raised = bytes(n).map(|w| w << up);
            assert_eq!(fives::pack19(raised, up), fives::pack19(bytes(n), 0), "{n:?} by {up}");
            assert_eq!(fives::pack20(raised, up).0, fives::pack20(bytes(n), 0).0, "{n:?} by {up}");
        }
        let code = fives::pack19(bytes(n), 0);
        assert!(code >> 19 == 0, "{n:?}: {code:x}");
        assert_eq!(fives::unpack19(words(code)).map(|x| x >> 5 & 7), n);
        let (code, kept) = fives::pack20(bytes(n), 0);
        let kept = (kept[0] >> 24 & 1) | (kept[1] >> 24 & 1) << 1;
        assert!(code >> 18 == 0 && kept >> 2 == 0, "{n:?}: {code:x}, {kept:x}");
        assert_eq!(fives::unpack20(words(code), kept << 3).map(|x| x >> 5 & 7), n);
    }
}

#[test]
fn numbers_below_eleven_come_back() {
    for n in rows(11) {
        let code = elevens::pack28(bytes(n));
        assert!(code >> 28 == 0, "{n:?}: {code:x}");
        let w = words(code);
        assert_eq!(elevens::unpack28(w, w[3] << 4).map(|x| x & 255), n);
    }
}
