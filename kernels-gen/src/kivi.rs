//! KIVI's cache: keys coded a channel at a time over groups of 32 tokens, values a token at a time over groups of 32
//! channels, the latest tokens left as they are.
//!
//! A group of 32 numbers is `least + step * code`, both f16, codes of 1 to 8 bits. As published, and simulated, keys are coded
//! `window` tokens at a time once so many are there, a value once `window` newer ones are. The kernels ([`crate::kernels::kivi`])
//! have tiles ([`KiviLayout`]): 32 tokens' keys and values are coded together, once `window` newer tokens are there; numbers and
//! codes are the same.
//! Source: Liu et al., KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, 2024.

mod layout;

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use half::f16;
use kernel_dsl::math::{fmax, fmin, sanitise};

pub use layout::KiviLayout;

use crate::codec::Codec;
use crate::codecs::Steps;
use crate::registry::CodecInfo;

/// Numbers under one scale: tokens of a channel, or channels of a token.
pub const GROUP: usize = 32;

/// Keys and values, and how many tokens stay raw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kivi {
    pub name: String,
    pub key_bits: usize,
    pub value_bits: usize,
    pub window: usize,
}

/// `kivi_k2v2`, or with a window other than 128, a multiple of 32, `kivi_k2v2_r64`. None for another name.
pub fn codec(name: &str) -> Option<Kivi> {
    let (bits, window) = name.strip_prefix("kivi_k")?.split_once("_r").map_or((&name[6..], Some(128)), |(bits, r)| (bits, r.parse().ok()));
    let (k, v) = bits.split_once('v')?;
    let width = |text: &str| text.parse::<usize>().ok().filter(|w| (1..=8).contains(w));
    let window = window.filter(|r| *r > 0 && r % GROUP == 0)?;
    Some(Kivi { name: name.into(), key_bits: width(k)?, value_bits: width(v)?, window })
}

/// Everything that was opened by name; entries live as long as the program.
static OPENED: Mutex<BTreeMap<String, &'static Kivi>> = Mutex::new(BTreeMap::new());

/// As [`codec`], kept for the rest of the program.
pub fn open(name: &str) -> Option<&'static Kivi> {
    let mut known = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(name) {
        return Some(found);
    }
    let made: &'static Kivi = Box::leak(Box::new(codec(name)?));
    known.insert(name.to_string(), made);
    Some(made)
}

/// The codes of keys and values by their bits.
static STEPS: LazyLock<[[CodecInfo; 8]; 8]> = LazyLock::new(|| {
    let codecs: [&'static dyn Codec; 8] = std::array::from_fn(|i| -> &'static dyn Codec { Box::leak(Box::new(Steps::new(i + 1))) });
    codecs.map(|k| codecs.map(|v| CodecInfo::pair(k, v)))
});

impl Kivi {
    /// The codes of keys and values; steps and least values are apart.
    pub fn halves(&self) -> &'static CodecInfo {
        &STEPS[self.key_bits - 1][self.value_bits - 1]
    }

    /// Of `tokens` tokens, how many keys are coded.
    pub fn coded_keys(&self, tokens: usize) -> usize {
        tokens / self.window * self.window
    }

    /// How many values are.
    pub fn coded_values(&self, tokens: usize) -> usize {
        tokens.saturating_sub(self.window)
    }

    /// Of `tokens` tokens, those that the kernels' cache keeps coded: whole tiles, once `window` newer tokens are there.
    pub fn coded_tiles(&self, tokens: usize) -> usize {
        tokens.saturating_sub(self.window) / GROUP * GROUP
    }

    /// Bytes of a coded group.
    pub fn group_bytes(bits: usize) -> usize {
        4 + GROUP * bits / 8
    }

    /// Keys `[GROUP, width]` as a reader sees them: each of the `width` columns is a group. Through bytes and back.
    pub fn keys(&self, rows: &[f32]) -> Vec<f32> {
        let width = rows.len() / GROUP;
        let mut out = vec![0.0; rows.len()];
        for c in 0..width {
            let column: [f32; GROUP] = std::array::from_fn(|t| rows[t * width + c]);
            let back = read(&write(&column, self.key_bits), self.key_bits);
            back.iter().enumerate().for_each(|(t, x)| out[t * width + c] = *x);
        }
        out
    }

    /// Values `[.., channels]`, a multiple of 32 of these.
    pub fn values(&self, rows: &[f32]) -> Vec<f32> {
        rows.as_chunks::<GROUP>().0.iter().flat_map(|x| read(&write(x, self.value_bits), self.value_bits)).collect()
    }
}

/// A group of numbers, coded.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Group {
    pub step: f16,
    pub least: f16,
    pub digits: [u8; GROUP],
}

impl Group {
    /// NaN becomes 0, the rest is clamped to f16. `least` is never a negative zero.
    pub fn of(x: &[f32; GROUP], bits: usize) -> Group {
        let sound = x.map(|x| sanitise(x, 65504.0));
        let (least, most) = sound.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (fmin(a, *x), fmax(b, *x)));
        let top = ((1 << bits) - 1) as f32;
        let (step, least) = (f16::from_f32(fmin((most - least) / top, 65504.0)), f16::from_f32(least + 0.0));
        let digit = |x: f32| if step > f16::ZERO { fmin(fmax((x - least.to_f32()) / step.to_f32(), 0.0), top).round_ties_even() as u8 } else { 0 };
        Group { step, least, digits: sound.map(digit) }
    }

    /// The numbers that a reader sees.
    pub fn numbers(&self) -> [f32; GROUP] {
        self.digits.map(|digit| f32::from(digit).mul_add(self.step.to_f32(), self.least.to_f32()))
    }
}

/// `[step][least][codes]`, the lowest bits first.
fn write(x: &[f32; GROUP], bits: usize) -> Vec<u8> {
    let group = Group::of(x, bits);
    let mut bytes = [group.step.to_le_bytes(), group.least.to_le_bytes()].concat();
    bytes.resize(Kivi::group_bytes(bits), 0);
    for (i, digit) in group.digits.iter().enumerate() {
        (0..bits).for_each(|b| bytes[4 + (i * bits + b) / 8] |= (digit >> b & 1) << ((i * bits + b) % 8));
    }
    bytes
}

fn read(bytes: &[u8], bits: usize) -> [f32; GROUP] {
    let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let bit = |n: usize| bytes[4 + n / 8] >> (n % 8) & 1;
    let digits = std::array::from_fn(|i| (0..bits).fold(0, |code, b| code | bit(i * bits + b) << b));
    Group { step: half(0), least: half(2), digits }.numbers()
}
