//! Names of PCA codecs: what a user writes, and the settings it stands for.

use super::error::PcaError;
use super::settings::{Grouping, Metric, Norm, Settings, Svd, Table};
use super::table::Published;

/// Keys and values.
#[derive(Clone, PartialEq, Debug)]
pub struct Codec {
    pub name: String,
    pub k: Settings,
    pub v: Settings,
}

/// `pca_v13`, `pca_b3`, with options as `pca_b3_vr100_t2_qp`, or two of them as `KEYS/VALUES`; None for a name of
/// another family.
///
/// `pca_v13` is the published recipe but for its layers: keys of 3 bits before RoPE, preconditioned, outliers from 2, the
/// published table; values of 2 bits with a shared basis and their published table; sketched rank d / 2, ratio 1, heads pooled.
pub fn codec(name: &str) -> Option<Result<Codec, PcaError>> {
    let (k, v) = name.split_once('/').unwrap_or((name, name));
    if !k.starts_with("pca_") && !v.starts_with("pca_") {
        return None;
    }
    let both = side(name, k, true).and_then(|k| Ok((k, side(name, v, false)?)));
    Some(both.map(|(k, v)| Codec { name: name.to_string(), k, v }))
}

fn side(name: &str, text: &str, keys: bool) -> Result<Settings, PcaError> {
    let bad = |word: &str| PcaError::Word { name: name.to_string(), word: word.to_string() };
    let mut words = text.split('_');
    if words.next() != Some("pca") {
        return Err(bad(text));
    }
    let base = words.next().unwrap_or("");
    let number = base.strip_prefix('b').and_then(|bits| bits.parse().ok());
    let mut settings = match (base, number) {
        ("v13", _) => v13(keys),
        (_, Some(bits @ 1..=4)) => Settings { bits, ..Settings::default() },
        _ => return Err(bad(base)),
    };
    for word in words {
        take(&mut settings, word, keys).ok_or_else(|| bad(word))?;
    }
    Ok(settings)
}

fn v13(keys: bool) -> Settings {
    let both = Settings { svd: Svd::Randomized, ratio: 1.0, grouping: Grouping::Pooled, ..Settings::default() };
    match keys {
        true => Settings { bits: 3, table: Table::Published(Published::DsKeys), outliers: Some(2.0), precondition: true, ..both },
        false => Settings { bits: 2, table: Table::Published(Published::DsValues), share_basis: true, ..both },
    }
}

/// One option; None where it is none. What only keys have is passed over for values.
fn take(s: &mut Settings, word: &str, keys: bool) -> Option<()> {
    match word {
        "exact" => s.svd = Svd::Exact,
        "random" => s.svd = Svd::Randomized,
        "gauss" => s.table = Table::Gaussian,
        "fitted" => s.table = Table::Fitted,
        "ds" => s.table = Table::Published(if keys { Published::DsKeys } else { Published::DsValues }),
        "qwen" => s.table = Table::Published(if keys { Published::QwenKeys } else { Published::QwenValues }),
        "qp" => s.precondition = keys,
        "noqp" => s.precondition = false,
        "pre" => s.before_rope = true,
        "post" => (s.before_rope, s.precondition) = (false, false),
        "share" => s.share_basis = true,
        "own" => s.share_basis = false,
        "head" => s.grouping = Grouping::Head,
        "pooled" => s.grouping = Grouping::Pooled,
        "norm" => s.norm = Norm::Corrected,
        "f32" => s.wide = true,
        "mse" => s.metric = Metric::Mse,
        "ip" => s.metric = Metric::InnerProduct,
        "linf" => s.metric = Metric::Linf,
        "compat" => s.compat = true,
        _ => return numbered(s, word),
    }
    Some(())
}

fn numbered(s: &mut Settings, word: &str) -> Option<()> {
    if let Some(layers) = word.strip_prefix("raw") {
        s.raw_layers = layers.split('.').map(|layer| layer.parse().ok()).collect::<Option<_>>()?;
        return Some(());
    }
    if let Some(percent) = word.strip_prefix("vr") {
        s.ratio = percent.parse::<f32>().ok()? / 100.0;
        return Some(());
    }
    if let Some(theta) = word.strip_prefix("theta") {
        s.theta = theta.parse().ok()?;
        return Some(());
    }
    let (letter, rest) = word.split_at_checked(1)?;
    match letter {
        "b" => s.bits = rest.parse().ok()?,
        "k" => s.centres = rest.parse().ok()?,
        "r" => s.rank = Some(rest.parse().ok()?),
        "n" => s.block = rest.parse().ok()?,
        "s" => s.seed = rest.parse().ok()?,
        "t" => s.outliers = Some(rest.parse::<f32>().ok()?).filter(|t| *t != 0.0),
        _ => return None,
    }
    Some(())
}
