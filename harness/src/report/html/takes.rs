//! What a reader should take from a run, in sentences made of its numbers.

use crate::ppl::Row;
use crate::report::Report;

pub fn sentences(reports: &[Report]) -> Vec<String> {
    reports
        .iter()
        .enumerate()
        .flat_map(|(run, report)| {
            let number = if reports.len() > 1 { format!("Run {}: ", run + 1) } else { String::new() };
            of_run(report).into_iter().map(move |sentence| capital(&format!("{number}{sentence}")))
        })
        .collect()
}

fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn of_run(report: &Report) -> Vec<String> {
    let codecs: Vec<&Row> = report.rows.iter().filter(|r| !["identity", "self"].contains(&r.codec.as_str()) && !r.codec.starts_with("CONTROL_")).collect();
    let mut sentences = Vec::new();
    if !report.valid {
        return vec!["a control failed, so no number of this run says anything about a codec.".into()];
    }
    let decided: Vec<&&Row> = codecs.iter().filter(|r| r.gate.pass.is_some()).collect();
    let passing = decided.iter().filter(|r| r.gate.pass == Some(true));
    match passing.min_by(|a, b| a.stored_bits_per_element.total_cmp(&b.stored_bits_per_element)) {
        Some(best) => sentences.push(format!(
            "the smallest cache within the limits of its class is {} at {:.3} bits: {:.2} times smaller than bf16, perplexity {:+.2} %, KL {:.1e}.",
            best.codec,
            best.stored_bits_per_element,
            best.compression_vs_bf16,
            100.0 * (best.ppl_ratio - 1.0),
            best.kl_mean
        )),
        None if !decided.is_empty() => sentences.push("no codec stays within the limits of its class.".into()),
        None => sentences.push(format!("nothing is passed or failed: the read path is {}, with {} passages.", report.read_path, report.corpus.passages)),
    }
    let failing: Vec<&str> = decided.iter().filter(|r| r.gate.pass == Some(false)).map(|r| r.codec.as_str()).collect();
    if !failing.is_empty() {
        sentences.push(format!("outside the limits: {}.", failing.join(", ")));
    }
    let unsure: Vec<&str> = codecs.iter().filter(|r| r.ppl_ratio_ci95[0] <= 1.0 && r.ppl_ratio_ci95[1] >= 1.0).map(|r| r.codec.as_str()).collect();
    if !unsure.is_empty() {
        sentences.push(format!("perplexity alone cannot tell from the raw cache: {}. Their KL can.", unsure.join(", ")));
    }
    for row in &codecs {
        let split: Vec<&&Row> = codecs.iter().filter(|r| [format!("{}:k", row.codec), format!("{}:v", row.codec)].contains(&r.codec)).collect();
        if let [k, v] = split[..] {
            let (k, v) = if k.codec.ends_with(":k") { (k, v) } else { (v, k) };
            sentences.push(format!("of {}, coded keys alone cost KL {:.1e} and coded values alone {:.1e}.", row.codec, k.kl_mean, v.kl_mean));
        }
    }
    sentences
}
