//! What a run will measure: every wish checked before the first forward pass, so that a mistake costs no time.

use std::ops::Range;

use kernels_gen::registry::{CodecInfo, codec};

use crate::attention::{Coded, Counted, Geometry, Identity, Pages, Simulated};
use crate::backend::Backend;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::Config;

pub const PAGE_TOKENS: usize = 64;
pub const DEFAULT_CODECS: &str = "bf16,int4,e8w4,e8q38";

/// Which halves of the cache a row codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streams {
    /// K and V, through the packed cache and the decode path
    Cache,
    /// K and V by round trip and exact attention
    Both,
    K,
    V,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// f32 rows through the paged machinery; must change nothing
    Identity,
    /// the base model with another order of sums; its distance is the noise floor
    Noise,
    Codec(&'static CodecInfo, Streams),
    /// a codec read with permuted coordinates; must look bad
    Control(&'static CodecInfo),
}

impl Subject {
    pub fn name(&self) -> String {
        match self {
            Subject::Identity => "identity".into(),
            Subject::Noise => "self".into(),
            Subject::Codec(codec, Streams::Cache) => codec.name.into(),
            Subject::Codec(codec, Streams::Both) => format!("{}:sim", codec.name),
            Subject::Codec(codec, Streams::K) => format!("{}:k", codec.name),
            Subject::Codec(codec, Streams::V) => format!("{}:v", codec.name),
            Subject::Control(codec) => format!("CONTROL_{}_misread", codec.name),
        }
    }

    /// Bits that one element of K and V takes, scales included; rows that are not coded count 32.
    pub fn stored_bits(&self, d: usize) -> f64 {
        match self {
            Subject::Identity | Subject::Noise => 32.0,
            Subject::Codec(codec, Streams::K | Streams::V) => 0.5 * (codec.stored_bits_per_element(d) + 32.0),
            Subject::Codec(codec, _) | Subject::Control(codec) => codec.stored_bits_per_element(d),
        }
    }

    /// None for the noise row, which is the base attention itself.
    pub fn attention(
        &self,
        backend: &dyn Backend,
        geometry: Geometry,
        tokens: usize,
    ) -> Result<Option<Box<dyn Counted>>> {
        let pages = Pages::new(tokens, PAGE_TOKENS);
        Ok(match self {
            Subject::Identity => Some(Box::new(Identity::new(geometry, pages))),
            Subject::Noise => None,
            Subject::Codec(codec, Streams::Cache) => Some(Box::new(Coded::new(backend, codec, geometry, pages)?)),
            Subject::Codec(codec, Streams::Both) => Some(Box::new(Simulated::new(geometry, Some(codec), Some(codec)))),
            Subject::Codec(codec, Streams::K) => Some(Box::new(Simulated::new(geometry, Some(codec), None))),
            Subject::Codec(codec, Streams::V) => Some(Box::new(Simulated::new(geometry, None, Some(codec)))),
            Subject::Control(codec) => Some(Box::new(Coded::new(backend, codec, geometry, pages)?.misreading())),
        })
    }
}

/// identity and self first, then what was asked for, then the control.
pub fn subjects(names: &str) -> Result<Vec<Subject>> {
    let mut subjects = vec![Subject::Identity, Subject::Noise];
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let subject = match name.split_once(':') {
            None if name == "identity" || name == "self" => continue,
            None => Subject::Codec(codec(name)?, Streams::Cache),
            Some((name, "sim")) => Subject::Codec(codec(name)?, Streams::Both),
            Some((name, "k")) => Subject::Codec(codec(name)?, Streams::K),
            Some((name, "v")) => Subject::Codec(codec(name)?, Streams::V),
            Some((_, other)) => {
                return Err(Error::Usage(format!(
                    "{name}: {other:?} is no way to run a codec; write :k, :v, :sim or nothing"
                )));
            }
        };
        if subjects.iter().all(|s| s.name() != subject.name()) {
            subjects.push(subject);
        }
    }
    let control = subjects.iter().find_map(|s| match s {
        Subject::Codec(codec, _) if codec.exact() => Some(*codec),
        _ => None,
    });
    subjects.push(Subject::Control(control.map_or_else(|| codec("int4"), Ok)?));
    Ok(subjects)
}

/// Half-open range of scored positions, as `first..end`; position p scores token p + 1.
pub fn score_range(text: Option<&str>, ctx: usize, length: usize) -> Result<Range<usize>> {
    let shown = text.map_or_else(|| format!("{}..{ctx}", ctx / 2), str::to_string);
    let bad = |why: String| Error::ScoreRange { text: shown.clone(), why };
    let parse = |part: &str| part.trim().parse::<usize>().map_err(|_| bad(format!("{part:?} is not a number")));
    let Some((first, end)) = shown.split_once("..") else { return Err(bad("there is no .. in it".into())) };
    let range = parse(first)?..parse(end)?;
    if range.is_empty() {
        return Err(bad("it holds no position".into()));
    }
    if range.end > ctx {
        return Err(bad(format!("it ends behind ctx {ctx}")));
    }
    if range.end >= length {
        return Err(bad(format!(
            "passages have {length} tokens, so position {} has no next token to score",
            range.end - 1
        )));
    }
    Ok(range)
}

pub fn check_sizes(passages: usize, ctx: usize, corpus: &Corpus, config: &Config) -> Result<()> {
    if passages == 0 || passages > corpus.passages() {
        let (path, has) = (corpus.path.display(), corpus.passages());
        return Err(Error::Usage(format!("--passages {passages}: {path} holds {has}; ask for 1 to {has}")));
    }
    if ctx == 0 || ctx > corpus.length {
        return Err(Error::Usage(format!(
            "--ctx {ctx}: passages have {} tokens; ask for 1 to {}",
            corpus.length, corpus.length
        )));
    }
    if ctx > config.max_position_embeddings {
        return Err(Error::Usage(format!(
            "--ctx {ctx}: the model was made for {} positions",
            config.max_position_embeddings
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_ranges() {
        assert_eq!(score_range(None, 128, 2560).unwrap(), 64..128);
        assert_eq!(score_range(Some("0..1"), 128, 2560).unwrap(), 0..1);
        for (text, why) in [
            ("5", "no .."),
            ("a..9", "not a number"),
            ("9..9", "no position"),
            ("9..4", "no position"),
            ("0..129", "behind ctx"),
        ] {
            let message = score_range(Some(text), 128, 2560).unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
        assert!(score_range(Some("0..128"), 128, 128).unwrap_err().to_string().contains("no next token"));
    }

    #[test]
    fn mandatory_rows_surround_the_codecs() {
        let names = |text: &str| subjects(text).unwrap().iter().map(Subject::name).collect::<Vec<_>>();
        assert_eq!(names("bf16"), ["identity", "self", "bf16", "CONTROL_int4_misread"]);
        assert_eq!(names("e8w4, e8w4,int4:k"), ["identity", "self", "e8w4", "int4:k", "CONTROL_e8w4_misread"]);
        assert!(subjects("int4:q").unwrap_err().to_string().contains(":sim"));
        assert_eq!(subjects("e8w5").unwrap_err().exit_code(), 2);
    }
}
