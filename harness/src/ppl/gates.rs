//! Verdicts on a codec. Ours holds a row to the limits of its class of bits; the seeds' rule is printed beside it,
//! because published tables use it.

use serde::{Deserialize, Serialize};

use super::ReadPath;
use crate::report::number::{nan, nan_pair};
use crate::stats::{LEVEL, mean, mean_with_interval};

/// Limits of a class of stored bits.
struct Class {
    name: &'static str,
    /// a row belongs to the first class whose bits it reaches
    from_bits: f64,
    ratio: f64,
    kl: f64,
    kl_p999: f64,
    top1: f64,
}

const CLASSES: [Class; 3] = [
    Class { name: "4-bit", from_bits: 3.75, ratio: 1.005, kl: 0.01, kl_p999: 0.5, top1: 0.95 },
    Class { name: "3-bit", from_bits: 2.75, ratio: 1.02, kl: 0.03, kl_p999: 1.0, top1: 0.92 },
    Class { name: "2-bit", from_bits: 0.0, ratio: 1.06, kl: 0.10, kl_p999: 2.5, top1: 0.85 },
];

/// What is held to the limits.
pub struct Measured {
    pub bits: f64,
    /// upper end of its interval; NaN without one
    pub ratio_upper: f64,
    pub kl: f64,
    pub kl_p999: f64,
    /// lower end of its interval
    pub top1_lower: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    pub class: String,
    /// None where the read path or the number of passages cannot decide
    pub pass: Option<bool>,
    /// what fails, or why nothing is decided
    pub why: Vec<String>,
}

pub fn gate(path: ReadPath, found: &Measured) -> Gate {
    let class = CLASSES.iter().find(|c| found.bits >= c.from_bits).unwrap_or(&CLASSES[2]);
    let undecided = |why: String| Gate { class: class.name.into(), pass: None, why: vec![why] };
    if !path.gates() {
        return undecided(format!("read path {} is reported, never gated", path.name()));
    }
    if found.ratio_upper.is_nan() {
        return undecided("one passage has no interval".into());
    }
    let limits = [
        ("ppl ratio, upper end", found.ratio_upper, class.ratio, found.ratio_upper <= class.ratio),
        ("KL mean", found.kl, class.kl, found.kl <= class.kl),
        ("KL p99.9", found.kl_p999, class.kl_p999, found.kl_p999 <= class.kl_p999),
        ("top-1, lower end", found.top1_lower, class.top1, found.top1_lower >= class.top1),
    ];
    let why: Vec<String> = limits.iter().filter(|l| !l.3).map(|(what, is, limit, _)| format!("{what} {is:.4} against {limit}")).collect();
    Gate { class: class.name.into(), pass: Some(why.is_empty()), why }
}

/// The seeds' rule on the mean relative change of perplexity over passages, and top-1 agreement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedVerdict {
    /// mean over passages of (codec's perplexity - base's) / base's
    #[serde(deserialize_with = "nan")]
    pub change: f64,
    /// the same of its magnitude, as later tables have it, and the half width of its interval
    #[serde(deserialize_with = "nan_pair")]
    pub magnitude: [f64; 2],
    /// ACCEPT within 1 % and top-1 from 95 %, MARGINAL within 3 % and from 85 %, else REJECT
    pub strict: String,
    /// the looser rule of the Qwen3 snapshot tables, on the signed change: PASS to 10 % and 80 %, MARGINAL to 20 % and 70 %
    pub relaxed: String,
}

/// `dlnppl` are the passages' mean differences of ln perplexity.
pub fn seed_verdict(dlnppl: &[f64], top1: f64) -> SeedVerdict {
    let changes: Vec<f64> = dlnppl.iter().map(|d| d.exp() - 1.0).collect();
    let magnitudes: Vec<f64> = changes.iter().map(|c| c.abs()).collect();
    let (magnitude, half) = mean_with_interval(&magnitudes, LEVEL);
    let change = mean(changes);
    let (strict, relaxed) = verdicts(change, top1);
    SeedVerdict { change, magnitude: [magnitude, half], strict: strict.into(), relaxed: relaxed.into() }
}

fn verdicts(change: f64, top1: f64) -> (&'static str, &'static str) {
    let strict = match (change.abs(), top1) {
        (change, top1) if change <= 0.01 && top1 >= 0.95 => "ACCEPT",
        (change, top1) if change <= 0.03 && top1 >= 0.85 => "MARGINAL",
        _ => "REJECT",
    };
    let relaxed = match (change, top1) {
        (change, top1) if change <= 0.10 && top1 >= 0.80 => "PASS",
        (change, top1) if change <= 0.20 && top1 >= 0.70 => "MARGINAL",
        _ => "REJECT",
    };
    (strict, relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_of_the_class() {
        let found = Measured { bits: 4.125, ratio_upper: 1.004, kl: 0.009, kl_p999: 0.4, top1_lower: 0.96 };
        assert_eq!(gate(ReadPath::All, &found).pass, Some(true));
        let worse = Measured { kl: 0.02, ..found };
        let gated = gate(ReadPath::All, &worse);
        assert!(gated.pass == Some(false) && gated.why[0].contains("KL mean 0.0200 against 0.01"), "{gated:?}");
        assert_eq!(gate(ReadPath::All, &Measured { bits: 3.2, ..worse }).pass, Some(true));
        assert_eq!(gate(ReadPath::Serving, &worse).pass, None);
        assert_eq!(gate(ReadPath::All, &Measured { ratio_upper: f64::NAN, ..worse }).pass, None);
        // a number that is not one fails
        assert_eq!(gate(ReadPath::All, &Measured { kl: f64::NAN, ..worse }).pass, Some(false));
    }

    #[test]
    fn published_cells_get_their_verdicts() {
        // +7.82 % and 78.97 % printed REJECT; +0.09 % and 100 % is the bar to beat
        assert_eq!(verdicts(0.0782, 0.7897).0, "REJECT");
        assert_eq!(verdicts(0.0009, 1.0).0, "ACCEPT");
        assert_eq!(verdicts(-0.02, 0.90), ("MARGINAL", "PASS"));
        assert_eq!(verdicts(f64::NAN, 0.99).0, "REJECT");
        let found = seed_verdict(&[0.02_f64.ln_1p(), -(0.02_f64.ln_1p())], 0.96);
        assert!(found.change.abs() < 3e-4 && (found.magnitude[0] - 0.02).abs() < 3e-4, "{found:?}");
    }
}
