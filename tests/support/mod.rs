//! Shared by the cross-crate tests: data makers, the device or the reason there is none, bitwise comparison.
#![allow(dead_code)]

use runtime::{Device, Memory, Stream};

/// Seeded noise (splitmix64). Gaussian values are sums of four uniforms.
pub struct Noise(pub u64);

impl Noise {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }
    pub fn gauss(&mut self) -> f32 {
        let x = self.bits();
        (0..4).map(|i| (x >> (16 * i) & 0xffff) as f32 / 65536.0 - 0.5).sum::<f32>() * 1.73
    }
    /// Rows of a mixed kind: Gaussian, heavy-tailed, one huge channel, tiny, zero, non-finite.
    pub fn row(&mut self, d: usize) -> Vec<f32> {
        let mut x: Vec<f32> = (0..d).map(|_| self.gauss()).collect();
        match self.below(16) {
            0 => x.iter_mut().for_each(|v| *v = v.powi(5)),
            1 => x[self.below(d)] *= 300.0,
            2 => x.iter_mut().for_each(|v| *v *= 1e-6),
            3 => x.fill(0.0),
            4 => x[self.below(d)] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38, 1e-40][self.below(5)],
            5 => x.fill(self.gauss()),
            6 => x.iter_mut().for_each(|v| *v *= 1e4),
            _ => {}
        }
        x
    }
    pub fn rows(&mut self, n: usize, d: usize) -> Vec<f32> {
        (0..n).flat_map(|_| self.row(d)).collect()
    }
    /// 0..n in random order.
    pub fn shuffled(&mut self, n: usize) -> Vec<usize> {
        let mut v: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            v.swap(i, self.below(i + 1));
        }
        v
    }
}

/// The GPU and a stream, or a printed reason: a test that skips says so.
pub fn gpu(test: &str) -> Option<(Device, Stream)> {
    match Device::open(0).and_then(|d| Ok((d.clone(), d.stream()?))) {
        Ok(pair) => Some(pair),
        Err(e) if std::env::var_os("KVF_REQUIRE_GPU").is_some() => panic!("{test}: a GPU is required here: {e}"),
        Err(e) => {
            println!("SKIPPED {test}: {e}");
            None
        }
    }
}

/// One of `all`, or of those that a variable names with commas.
pub fn one_of(variable: &str, all: &[usize], noise: &mut Noise) -> usize {
    let named: Option<Vec<usize>> = std::env::var(variable).ok().map(|s| s.split(',').map(|n| n.parse().unwrap_or_else(|_| panic!("{variable}: {n}; write numbers with commas"))).collect());
    let of = named.as_deref().unwrap_or(all);
    of[noise.below(of.len())]
}

/// Cases to run: `KVF_CASES` or the default.
pub fn cases(default: usize) -> usize {
    std::env::var("KVF_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

/// Where two buffers differ first: index, both bit patterns, and how many differ.
pub fn first_difference(got: &[u32], want: &[u32]) -> Option<String> {
    let bad: Vec<usize> = (0..want.len()).filter(|&i| got.get(i) != Some(&want[i])).collect();
    let i = *bad.first()?;
    Some(format!("{} of {} differ, first at {i}: {:08x?} ({}), wanted {:08x} ({})", bad.len(), want.len(), got.get(i), got.get(i).map_or(f32::NAN, |b| f32::from_bits(*b)), want[i], f32::from_bits(want[i])))
}

pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Device memory with 64 KiB of a known pattern on both sides.
pub struct Guarded {
    memory: Memory,
    bytes: usize,
}

const ZONE: usize = 65536;

impl Guarded {
    pub fn new(device: &Device, stream: &Stream, bytes: usize, fill: u8) -> Guarded {
        let memory = Memory::zeroed(device, bytes + 2 * ZONE).expect("memory");
        memory.fill(stream, 0xc3).expect("fill");
        let g = Guarded { memory, bytes };
        g.upload(stream, &vec![fill; bytes]);
        g
    }
    pub fn upload(&self, stream: &Stream, values: &[u8]) {
        self.memory.upload(stream, ZONE, values).expect("upload");
    }
    pub fn span(&self) -> runtime::Span<'_> {
        self.memory.span().part(ZONE as u64, self.bytes as u64).expect("part")
    }
    pub fn download<T: runtime::cuda::Plain>(&self, stream: &Stream, count: usize) -> Vec<T> {
        self.memory.download(stream, ZONE, count).expect("download")
    }
    /// Panics if a byte outside was written.
    pub fn check(&self, stream: &Stream, what: &str) {
        for at in [0, ZONE + self.bytes] {
            let zone: Vec<u8> = self.memory.download(stream, at, ZONE).expect("download");
            let bad = zone.iter().position(|b| *b != 0xc3);
            assert_eq!(bad, None, "{what}: a byte outside the buffer was written");
        }
    }
}
