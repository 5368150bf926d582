//! When a run may not be believed. A machinery that changes exact rows, or that does not notice a broken codec,
//! says nothing about the codecs between them.

use super::{PassageRow, Row, Subject};

/// Mean KL that another order of f32 sums may cause in the base model.
pub const NOISE_FLOOR: f64 = 1e-7;
/// The control must raise the perplexity more than this in every passage.
pub const CONTROL_RATIO: f64 = 1.05;

/// Empty for a valid run. `stored` is the number of (layer, token) pairs of one passage.
pub fn reasons(subjects: &[Subject], rows: &[Row], passages: &[Vec<PassageRow>], stored: usize) -> Vec<String> {
    let mut reasons = Vec::new();
    for ((subject, row), passages) in subjects.iter().zip(rows).zip(passages) {
        let finite = row.ppl_ratio.is_finite() && row.kl_mean.is_finite();
        if !finite && !matches!(subject, Subject::Control(_)) {
            reasons.push(format!("{} gave numbers that are not finite", row.codec));
        }
        reasons.extend(reason(subject, row));
        if let Some(count) = passages.iter().map(|p| p.tally.stored).find(|n| *n != 0 && *n != stored as u64) {
            reasons.push(format!("{} stored {count} rows in a passage instead of {stored}", row.codec));
        }
    }
    reasons
}

fn reason(subject: &Subject, row: &Row) -> Option<String> {
    match subject {
        Subject::Identity if row.kl_max != 0.0 || row.rel_mse_k != 0.0 || row.rel_mse_v != 0.0 => {
            Some(format!("identity changed the result: KL reaches {:.2e} where it must be exactly 0", row.kl_max))
        }
        Subject::Noise if row.kl_mean.is_nan() || row.kl_mean > NOISE_FLOOR => Some(format!(
            "the base model differs from itself by KL {:.2e}, more than the noise floor {NOISE_FLOOR:.0e}",
            row.kl_mean
        )),
        Subject::Control(_) => {
            let smallest = row.dlnppl.iter().fold(f64::INFINITY, |a, b| a.min(*b)).exp();
            (smallest <= CONTROL_RATIO)
                .then(|| format!("{} looks good: ratio {smallest:.4} in one passage where a broken codec must exceed {CONTROL_RATIO}", row.codec))
        }
        _ => None,
    }
}
