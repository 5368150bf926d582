//! The fewest bits whose error stays within a multiple of the baseline's. Three answers to each: from the means, from
//! the codec's own interval (both as published), and from the paired ratio, which is the fair one: both see the same
//! passages, so most of the spread cancels.

use serde::Serialize;

use super::Point;
use crate::stats::{LEVEL, mean_with_interval};

#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    pub name: &'static str,
    /// allowed error over the baseline's
    pub times: f64,
}

pub const THRESHOLDS: [Threshold; 3] = [Threshold { name: "A", times: 1.00 }, Threshold { name: "B", times: 1.05 }, Threshold { name: "C", times: 1.20 }];

/// What one threshold leaves on one half of the cache. None: no codec of the sweep is good enough.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    pub stream: String,
    pub threshold: &'static str,
    pub times: f64,
    /// by the means
    pub point: Option<Choice>,
    /// mean plus half width within the limit
    pub ci_safe: Option<Choice>,
    /// upper end of the mean per-passage ratio within the limit; needs two passages
    pub paired: Option<Choice>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    pub codec: String,
    pub bits: f64,
    /// of the mean errors
    pub ratio: f64,
    pub compression_vs_bf16: f64,
    pub compression_vs_baseline: f64,
}

pub fn answers(points: &[Point], baseline: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for stream in ["k", "v"] {
        let Some(base) = points.iter().find(|p| p.stream == stream && p.codec == baseline) else { continue };
        let mut family: Vec<&Point> = points.iter().filter(|p| p.stream == stream && p.codec != baseline).collect();
        family.sort_by(|a, b| a.bits.total_cmp(&b.bits));
        for threshold in THRESHOLDS {
            let first = |good: &dyn Fn(&Point) -> bool| family.iter().find(|p| good(p)).map(|p| choice(p, base));
            let limit = threshold.times * base.rel_mse;
            answers.push(Answer {
                stream: stream.into(),
                threshold: threshold.name,
                times: threshold.times,
                point: first(&|p| p.rel_mse <= limit),
                ci_safe: first(&|p| p.rel_mse + p.rel_mse_halfwidth <= limit),
                paired: first(&|p| upper_ratio(p, base) <= threshold.times),
            });
        }
    }
    answers
}

/// Upper end of the interval of the mean ratio; NaN, which is within no limit, for one passage.
fn upper_ratio(point: &Point, base: &Point) -> f64 {
    let ratios: Vec<f64> = point.by_passage.iter().zip(&base.by_passage).map(|(a, b)| a / b).collect();
    let (mean, half) = mean_with_interval(&ratios, LEVEL);
    mean + half
}

fn choice(point: &Point, base: &Point) -> Choice {
    Choice { codec: point.codec.clone(), bits: point.bits, ratio: point.rel_mse / base.rel_mse, compression_vs_bf16: 16.0 / point.bits, compression_vs_baseline: base.bits / point.bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(codec: &str, bits: f64, by_passage: &[f64]) -> Point {
        let (rel_mse, rel_mse_halfwidth) = mean_with_interval(by_passage, LEVEL);
        Point { codec: codec.into(), stream: "k".into(), bits, rel_mse, rel_mse_halfwidth, rel_mse_centred: rel_mse, cosine: 1.0, by_layer: Vec::new(), by_passage: by_passage.to_vec() }
    }

    #[test]
    fn pairing_sees_what_single_intervals_hide() {
        // passages differ by half, the codec is 2 % better in each
        let base = [1.0, 1.5, 2.0, 1.2];
        let better = base.map(|v| 0.98 * v);
        let points = [point("fp8", 8.0, &base), point("fine", 6.0, &better), point("coarse", 4.0, &base.map(|v| 1.1 * v))];
        let answers = answers(&points, "fp8");
        let [a, b, c] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(a.point.as_ref().unwrap().codec, "fine");
        assert_eq!(a.ci_safe, None);
        assert_eq!(a.paired.as_ref().unwrap().codec, "fine");
        assert_eq!(b.paired.as_ref().unwrap().codec, "fine");
        assert_eq!(c.point.as_ref().unwrap().codec, "coarse");
        assert_eq!(c.paired.as_ref().unwrap().compression_vs_baseline, 2.0);
    }

    #[test]
    fn one_passage_has_no_safe_answer() {
        let points = [point("fp8", 8.0, &[1.0]), point("fine", 6.0, &[0.5])];
        let answers = answers(&points, "fp8");
        assert!(answers.iter().all(|a| a.point.is_some() && a.ci_safe.is_none() && a.paired.is_none()));
    }
}
