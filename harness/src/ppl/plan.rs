//! What a run will measure: every wish checked before the first forward pass, so that a mistake costs no time.

use std::ops::Range;

use super::ReadPath;
use super::names::any_coder;
use super::subject::Layers;
use crate::attention::Coder;
use crate::corpus::Corpus;
use crate::error::{Error, Result};

/// Half-open range of scored positions, as `first..end`; position p scores token p + 1.
pub fn score_range(text: Option<&str>, path: ReadPath, ctx: usize, length: usize) -> Result<Range<usize>> {
    let shown = text.map_or_else(
        || {
            let Range { start, end } = path.default_score(ctx);
            format!("{start}..{end}")
        },
        str::to_string,
    );
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
        return Err(bad(format!("passages have {length} tokens, so position {} has no next token to score", range.end - 1)));
    }
    if path == ReadPath::Snapshot && range.start == 0 {
        return Err(bad("a snapshot needs a prefix that is not scored".into()));
    }
    Ok(range)
}

/// `positions` is the model's longest context.
pub fn check_sizes(passages: usize, ctx: usize, corpus: &Corpus, positions: usize) -> Result<()> {
    if passages == 0 || passages > corpus.passages() {
        let (path, has) = (corpus.path.display(), corpus.passages());
        return Err(Error::Usage(format!("--passages {passages}: {path} holds {has}; ask for 1 to {has}")));
    }
    if ctx == 0 || ctx > corpus.length {
        return Err(Error::Usage(format!("--ctx {ctx}: passages have {} tokens; ask for 1 to {}", corpus.length, corpus.length)));
    }
    if ctx > positions {
        return Err(Error::Usage(format!("--ctx {ctx}: the model was made for {positions} positions")));
    }
    Ok(())
}

/// A comma-separated list of numbers of layers; at least one layer must stay coded.
pub fn skip_list(text: &str, layers: usize) -> Result<Vec<usize>> {
    let mut skips = Vec::new();
    for part in text.split(',').map(str::trim) {
        let skip = part.parse::<usize>().map_err(|_| Error::Usage(format!("--skip-layers {text}: {part:?} is not a number; write for example 0,1,2")))?;
        if 2 * skip >= layers {
            return Err(Error::Usage(format!("--skip-layers {skip}: the model has {layers} layers, so {skip} at either end leave none to code")));
        }
        if !skips.contains(&skip) {
            skips.push(skip);
        }
    }
    Ok(skips)
}

/// Layers with a coder of their own, as `0=bf16,11=raw`; `layers` is the model's number of them.
pub fn own_layers(text: &str, layers: usize) -> Result<Layers> {
    let bad = |why: String| Error::Usage(format!("--layers {text}: {why}; write for example 0=bf16,11=raw"));
    let mut own: Vec<(usize, Coder)> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (layer, name) = part.split_once('=').ok_or_else(|| bad(format!("there is no = in {part:?}")))?;
        let layer = layer.trim().parse::<usize>().map_err(|_| bad(format!("{layer:?} is not a number")))?;
        if layer >= layers || own.iter().any(|(known, _)| *known == layer) {
            return Err(bad(format!("layer {layer} is named twice or is none of the model's {layers}")));
        }
        own.push((layer, any_coder(name.trim(), None)?));
    }
    own.sort_by_key(|(layer, _)| *layer);
    Ok(own.leak())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_ranges() {
        let all = ReadPath::All;
        assert_eq!(score_range(None, all, 128, 2560).unwrap(), 64..128);
        assert_eq!(score_range(None, ReadPath::Snapshot, 1024, 2560).unwrap(), 960..1024);
        assert_eq!(score_range(Some("0..1"), all, 128, 2560).unwrap(), 0..1);
        for (text, why) in [("5", "no .."), ("a..9", "not a number"), ("9..9", "no position"), ("9..4", "no position"), ("0..129", "behind ctx")] {
            let message = score_range(Some(text), all, 128, 2560).unwrap_err().to_string();
            assert!(message.contains(why), "{text}: {message}");
        }
        assert!(score_range(Some("0..128"), all, 128, 128).unwrap_err().to_string().contains("no next token"));
        assert!(score_range(Some("0..9"), ReadPath::Snapshot, 128, 2560).unwrap_err().to_string().contains("prefix"));
    }

    #[test]
    fn layers_of_their_own() {
        let own = own_layers("5=raw, 0 = bf16", 6).unwrap();
        assert_eq!(own.iter().map(|(layer, coder)| (*layer, coder.name())).collect::<Vec<_>>(), [(0, "bf16"), (5, "raw")]);
        for (text, why) in [("6=raw", "none of the model's 6"), ("1=raw,1=bf16", "named twice"), ("x=raw", "not a number"), ("0", "no =")] {
            let message = own_layers(text, 6).unwrap_err().to_string();
            assert!(message.contains(why) && message.contains("0=bf16,11=raw"), "{message}");
        }
        assert!(own_layers("0=nothing", 6).unwrap_err().to_string().contains("unknown codec"));
    }

    #[test]
    fn skips() {
        assert_eq!(skip_list("0, 1,1,2", 6).unwrap(), [0, 1, 2]);
        assert!(skip_list("3", 6).unwrap_err().to_string().contains("leave none"));
        assert!(skip_list("x", 6).unwrap_err().to_string().contains("not a number"));
    }
}
