//! Levels of a coordinate: of least squared error for a Gaussian, as published for some models, or fitted to samples.

use super::error::PcaError;

/// Lloyd-Max levels of N(0, 1) for 1 to 4 bits, as the published implementation rounds them.
pub const GAUSSIAN: [&[f32]; 4] = [
    &[-0.798_156, 0.798_156],
    &[-1.5100, -0.4528, 0.4528, 1.5100],
    &[-2.151_945, -1.343_757, -0.756_268, -0.244_943, 0.244_943, 0.756_268, 1.343_757, 2.151_945],
    &[-2.7322, -2.0690, -1.6177, -1.2563, -0.9422, -0.6566, -0.3885, -0.1281, 0.1281, 0.3885, 0.6566, 0.9422, 1.2563, 1.6177, 2.0690, 2.7322],
];

/// Tables that the original's authors fitted: DeepSeek-R1-Distill-Qwen-1.5B (`Ds`) and Qwen3-4B, keys and values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    DsKeys,
    DsValues,
    QwenKeys,
    QwenValues,
}

/// All of them.
pub const PUBLISHED: [(Published, &[f32]); 5] = [
    (Published::DsKeys, &[-1.230_102, -0.495_326, 0.544_908, 1.221_557]),
    (Published::DsKeys, &[-1.633_589, -1.111_172_8, -0.717_257_2, -0.251_476_14, 0.306_230_7, 0.766_333_04, 1.138_077_5, 1.629_785_9]),
    (Published::DsValues, &[-1.499_748_6, -0.454_083_32, 0.450_394_78, 1.497_457_6]),
    (Published::QwenKeys, &[-2.091_757, -1.322_068, -0.748_392, -0.242_372, 0.244_429, 0.749_608, 1.324_411, 2.095_721]),
    (Published::QwenValues, &[-1.502_062, -0.451_819, 0.453_167, 1.502_948]),
];

impl Published {
    pub fn levels(self, bits: usize) -> Result<Vec<f32>, PcaError> {
        let found = PUBLISHED.iter().find(|(which, levels)| *which == self && levels.len() == 1 << bits);
        found.map(|(_, levels)| levels.to_vec()).ok_or_else(|| PcaError::Setting { what: "table", is: format!("the published one for {self:?}"), wanted: format!("gauss or fitted: none of {bits} bits was published") })
    }
}

/// The level of least squared error, the first of equals.
pub fn nearest(levels: &[f32], v: f32) -> u16 {
    let mut best = (0, f32::INFINITY);
    for (index, level) in levels.iter().enumerate() {
        let cost = (v - level) * (v - level);
        if cost < best.1 {
            best = (index, cost);
        }
    }
    best.0 as u16
}

/// Levels of least squared error for `samples`, found from `start` by Lloyd's iteration in f64: borders half way between
/// levels, levels in the mean of their cell, until none moves by 1e-6 or 200 turns are over. A sample on a border belongs
/// to the lower cell; an empty cell keeps its level.
pub fn lloyd(samples: &[f32], start: &[f32]) -> Vec<f32> {
    let mut sorted: Vec<f64> = samples.iter().map(|x| f64::from(*x)).collect();
    sorted.sort_by(f64::total_cmp);
    let mut levels: Vec<f64> = start.iter().map(|x| f64::from(*x)).collect();
    for _ in 0..200 {
        let mut first = 0;
        let mut moved = 0.0_f64;
        let borders: Vec<f64> = levels.windows(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect();
        for (index, level) in levels.iter_mut().enumerate() {
            let end = borders.get(index).map_or(sorted.len(), |border| sorted.partition_point(|x| x <= border));
            if end > first {
                let mean = sorted[first..end].iter().sum::<f64>() / (end - first) as f64;
                moved = moved.max((mean - *level).abs());
                *level = mean;
            }
            first = end.max(first);
        }
        if moved < 1e-6 {
            break;
        }
    }
    levels.into_iter().map(|x| x as f32).collect()
}
