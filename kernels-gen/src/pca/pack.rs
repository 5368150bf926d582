//! Numbers of a few bits as a stream of bytes, the first number in the lowest bits.

/// `ceil(n bits / 8)` bytes.
pub fn pack(numbers: &[u16], bits: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; (numbers.len() * bits).div_ceil(8)];
    for (index, number) in numbers.iter().enumerate() {
        for bit in (0..bits).filter(|bit| number >> bit & 1 == 1) {
            let at = index * bits + bit;
            bytes[at / 8] |= 1 << (at % 8);
        }
    }
    bytes
}

/// The first `n` numbers; `bytes` holds at least that many.
pub fn unpack(bytes: &[u8], bits: usize, n: usize) -> Vec<u16> {
    let bit = |at: usize| u16::from(bytes[at / 8] >> (at % 8) & 1);
    (0..n).map(|index| (0..bits).fold(0, |sum, b| sum | bit(index * bits + b) << b)).collect()
}
