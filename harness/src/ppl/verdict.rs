//! When a run may not be believed. A machinery that changes exact rows, or that does not notice a broken codec,
//! says nothing about the codecs between them.

use super::{Row, Streams, Subject};

/// Mean KL that another order of f32 sums may cause in the base model.
pub const NOISE_FLOOR: f64 = 1e-7;
/// The control must raise the perplexity more than this in every passage,
pub const CONTROL_RATIO: f64 = 1.05;
/// or diverge more than this: a model that predicts nothing cannot predict worse.
pub const CONTROL_KL: f64 = 0.1;

/// Share of a codec's own loss that decoding token by token may differ by from all tokens at once: a last bit of a
/// row may tip a code.
const AGREEMENT: f64 = 0.05;

/// Empty for a valid run.
pub fn reasons(subjects: &[Subject], rows: &[Row]) -> Vec<String> {
    let mut reasons = Vec::new();
    for (subject, row) in subjects.iter().zip(rows) {
        let finite = row.ppl_ratio.is_finite() && row.kl_mean.is_finite();
        if !finite && !matches!(subject, Subject::Control(_)) {
            reasons.push(format!("{} gave numbers that are not finite", row.codec));
        }
        reasons.extend(reason(subject, row));
        reasons.extend(unproved(row));
        reasons.extend(unused(subject, row));
    }
    reasons.extend(halves(subjects, rows));
    reasons
}

fn reason(subject: &Subject, row: &Row) -> Option<String> {
    match subject {
        Subject::Identity if row.kl_max != 0.0 || row.rel_mse_k != 0.0 || row.rel_mse_v != 0.0 => Some(format!("identity changed the result: KL reaches {:.2e} where it must be exactly 0", row.kl_max)),
        Subject::Noise if row.kl_mean.is_nan() || row.kl_mean > NOISE_FLOOR => Some(format!("the base model differs from itself by KL {:.2e}, more than the noise floor {NOISE_FLOOR:.0e}", row.kl_mean)),
        Subject::Control(_) => {
            let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
            let (ratio, kl) = (least(&row.dlnppl).exp(), least(&row.kl));
            (ratio <= CONTROL_RATIO && kl <= CONTROL_KL).then(|| format!("{} looks good: ratio {ratio:.4} and KL {kl:.1e} in its best passage, where a broken codec must exceed {CONTROL_RATIO} or {CONTROL_KL}", row.codec))
        }
        _ => None,
    }
}

/// Bytes that do not add up, or a decode that differs from what it repeats.
fn unproved(row: &Row) -> Option<String> {
    if let Some(proof) = row.proof {
        let pairs = [("wrote", proof.bytes_written, proof.bytes_written_expected), ("read", proof.bytes_read, proof.bytes_read_expected)];
        if let Some((did, bytes, expected)) = pairs.into_iter().find(|(_, bytes, expected)| bytes != expected) {
            return Some(format!("{} {did} {bytes} bytes of codes where its sizes ask for {expected}", row.codec));
        }
        let seen = proof.counted_by_kernels;
        if let Some(seen) = seen.filter(|seen| seen.stored_alike != proof.bytes_written_expected) {
            return Some(format!("{}: of {} bytes the kernel that counts stored {} as the one that serves", row.codec, proof.bytes_written_expected, seen.stored_alike));
        }
        if let Some(seen) = seen.filter(|seen| seen.outputs_apart != 0) {
            return Some(format!("{}: the kernel that counts gives {} bytes of outputs that the one that serves does not", row.codec, seen.outputs_apart));
        }
    }
    let agreement = row.decode_agreement?;
    let allowed = NOISE_FLOOR.max(AGREEMENT * row.kl_mean);
    (!agreement.exact && (agreement.kl_mean.is_nan() || agreement.kl_mean > allowed)).then(|| format!("{} token by token differs from all tokens at once by KL {:.2e}, more than {allowed:.1e}", row.codec, agreement.kl_mean))
}

/// What comes back out of a packed cache is neither what went in, bit for bit, nor nothing.
fn unused(subject: &Subject, row: &Row) -> Option<String> {
    if let Some(kind) = row.latent.iter().flat_map(|l| &l.kinds).find(|k| k.coded && !(k.rel_mse > 0.0 && k.rel_mse < 1.0)) {
        let name = &row.codec;
        let coded = matches!(subject, Subject::Coded { .. });
        return coded.then(|| format!("{} rows of {name} come back with a relative error of {}: the codec is not in use", kind.kind, kind.rel_mse));
    }
    if !matches!(subject, Subject::Coded { streams: Streams::Cache, .. }) {
        return None;
    }
    let (half, error) = [("keys", row.rel_mse_k), ("values", row.rel_mse_v)].into_iter().find(|(_, error)| !(*error > 0.0 && *error < 1.0))?;
    Some(format!("{} of {} come back with a relative error of {error}: the codec is not in use", half, row.codec))
}

/// Keys alone, values alone and both must not give the same numbers: then one of them is not coded at all.
fn halves(subjects: &[Subject], rows: &[Row]) -> Vec<String> {
    let coded = |subject: &Subject| match subject {
        Subject::Coded { streams: Streams::Rows(kinds), .. } => Some((subject.name().replace(&kinds.suffix(), ""), Streams::Rows(*kinds))),
        Subject::Coded { streams, .. } => Some((subject.name().replace(":k", "").replace(":v", ""), *streams)),
        _ => None,
    };
    let mut reasons = Vec::new();
    for (at, (subject, row)) in subjects.iter().zip(rows).enumerate() {
        for (other, other_row) in subjects.iter().zip(rows).skip(at + 1) {
            let (Some((name, one)), Some((other_name, two))) = (coded(subject), coded(other)) else {
                continue;
            };
            let halves = [one, two].iter().any(|s| matches!(s, Streams::K | Streams::V | Streams::Rows(_)));
            if halves && name == other_name && row.dlnppl == other_row.dlnppl {
                reasons.push(format!("{} and {} give the same numbers: one of them is not in use", row.codec, other_row.codec));
            }
        }
    }
    reasons
}
