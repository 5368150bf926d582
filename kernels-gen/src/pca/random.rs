//! The random source of the published implementation, bit for bit: xoshiro256++ seeded as rand 0.8 seeds its small
//! generator, and the draws that the codec makes of it.

/// xoshiro256++ (Blackman and Vigna).
#[derive(Clone, Debug)]
pub struct Small([u64; 4]);

impl Small {
    /// The seed's 32 bytes come from a PCG stream, as rand_core 0.6 fills them.
    pub fn new(seed: u64) -> Small {
        let mut state = seed;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(11_634_580_027_462_260_723);
            let x = (((state >> 18) ^ state) >> 27) as u32;
            u64::from(x.rotate_right((state >> 59) as u32))
        };
        Small(std::array::from_fn(|_| word() | word() << 32))
    }

    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// 1 or -1 by the top bit.
    pub fn sign(&mut self) -> f32 {
        if self.bits() >> 63 == 1 { 1.0 } else { -1.0 }
    }

    /// One of `0..n`, every one alike.
    pub fn below(&mut self, n: u64) -> u64 {
        let zone = (n << n.leading_zeros()).wrapping_sub(1);
        loop {
            let wide = u128::from(self.bits()) * u128::from(n);
            if wide as u64 <= zone {
                return (wide >> 64) as u64;
            }
        }
    }

    /// From `low` to 1.
    fn share(&mut self, low: f32) -> f32 {
        let mantissa = (self.bits() >> 32) as u32 >> 9;
        (f32::from_bits(mantissa | 0x3f80_0000) - 1.0) * (1.0 - low) + low
    }

    /// N(0, 1) by Box and Muller, in f32.
    pub fn gaussian(&mut self) -> f32 {
        let (u, v) = (self.share(f32::EPSILON), self.share(0.0));
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }
}
