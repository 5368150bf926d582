//! PCA codecs among the subjects: their settings are checked when the run is planned; what they take from the model,
//! second moments of its queries and levels of its rows, is fitted once the model is loaded.

use std::sync::Arc;

use kernels_gen::pca::{Codec, Coding, Settings, Table, Whitening, gather};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::subject::Streams;
use super::{Options, Plan, ReadPath, Subject};
use crate::assets;
use crate::attention::{Again, Blocked, Blocks, Coder, Dense, Geometry, History, Stream};
use crate::calibrate::gram;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::{Attention, Config, Lane, Model, Rope, Rows};

/// Windows of the text that are read, and tokens of each.
const WINDOWS: usize = 2;
const TOKENS: usize = 2048;

/// What a report says of the fit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FitFacts {
    /// None where no codec took anything from a text
    pub text: Option<String>,
    pub text_sha256: Option<String>,
    pub tokens: usize,
    /// of whitenings and levels: not part of the stored bits, the same for any context
    pub static_bytes: Vec<(String, usize)>,
}

fn all_codecs(subjects: &[Subject]) -> Vec<&'static Codec> {
    let codec = |subject: &Subject| match subject {
        Subject::Coded { coder: Coder::Pca(codec, _), .. } => Some(*codec),
        _ => None,
    };
    subjects.iter().filter_map(codec).collect()
}

/// A subject's codec, and whether it is read in pages, where the newest tokens are raw.
fn in_pages(subject: &Subject, geometry: &Geometry) -> Option<(&'static Codec, bool)> {
    match subject {
        Subject::Coded { coder: Coder::Pca(codec, _), streams, .. } => Some((*codec, *streams == Streams::Cache && Blocked::serves(codec, geometry))),
        _ => None,
    }
}

fn preconditioned(codec: &Codec) -> bool {
    codec.k.precondition
}

fn fits_levels(settings: &Settings) -> bool {
    settings.table == Table::Fitted
}

/// Refuses what cannot run; returns the text that is needed, if any.
pub fn checked(subjects: &[Subject], options: &Options, geometry: &Geometry, config: &Config) -> Result<Option<Corpus>> {
    let codecs = all_codecs(subjects);
    for (codec, paged) in subjects.iter().filter_map(|subject| in_pages(subject, geometry)) {
        if matches!(options.read_path, ReadPath::Decode | ReadPath::Serving) && !(paged && options.read_path.packed()) {
            return Err(Error::Usage(format!("{}: blocks are coded once they are full, so it has no read path {}; use all, in-forward or snapshot", codec.name, options.read_path.name())));
        }
    }
    for codec in &codecs {
        for settings in [&codec.k, &codec.v] {
            settings.check(geometry.d)?;
            if let Some(layer) = settings.raw_layers.iter().find(|layer| **layer >= geometry.layers) {
                return Err(Error::Usage(format!("{}: raw layer {layer} of {} layers", codec.name, geometry.layers)));
            }
        }
    }
    let needed = codecs.iter().any(|c| preconditioned(c) || fits_levels(&c.k) || fits_levels(&c.v));
    if !needed {
        return Ok(None);
    }
    let text = Corpus::read(&options.fit_text.clone().map_or_else(assets::calibration_text, Ok)?)?;
    text.check(text.passages().min(WINDOWS), text.length.min(TOKENS), config.vocab_size)?;
    Ok(Some(text))
}

/// Gives the PCA codecs what they need of the model, for contexts up to `tokens`; it is kept for the rest of the program.
pub fn equip(plan: &mut Plan, model: &Model, tokens: usize) -> Result<Option<FitFacts>> {
    let mut codecs: Vec<&'static Codec> = Vec::new();
    for codec in all_codecs(&plan.subjects) {
        if codecs.iter().all(|known| known.name != codec.name) {
            codecs.push(codec);
        }
    }
    if codecs.is_empty() {
        return Ok(None);
    }
    let seen = plan.fit_text.as_ref().map(|text| Seen::of(model, plan.geometry, text)).transpose()?;
    let made = fitted(&codecs, model, plan.geometry, seen.as_ref(), tokens)?;
    for subject in &mut plan.subjects {
        let Subject::Coded { coder: Coder::Pca(codec, blocks), .. } = subject else { continue };
        *blocks = made.iter().find(|own| own.codec.name == codec.name).copied();
    }
    let text = plan.fit_text.as_ref();
    Ok(Some(FitFacts {
        text: text.map(|text| text.path.display().to_string()),
        text_sha256: text.map(|text| text.sha256.clone()),
        tokens: seen.map_or(0, |seen| seen.tokens),
        static_bytes: made.iter().map(|b| (b.codec.name.clone(), b.static_bytes())).collect(),
    }))
}

/// All of them, each table of levels fitted once.
fn fitted(codecs: &[&'static Codec], model: &Model, geometry: Geometry, seen: Option<&Seen>, tokens: usize) -> Result<Vec<&'static Blocks>> {
    let (longest, missing) = (tokens.max(TOKENS), || Error::Data("no text to fit the pca codecs on was read".into()));
    let mut whitenings: Vec<Vec<Whitening>> = Vec::new();
    if codecs.iter().any(|codec| preconditioned(codec)) {
        let of = |moments: &Vec<f64>| Ok(Whitening::of(moments, geometry.d)?);
        let layers = seen.ok_or_else(missing)?.queries.iter();
        whitenings = layers.map(|heads| heads.iter().map(of).collect()).collect::<Result<_>>()?;
    }
    let again = Arc::new(Again::default());
    let blocks = |codec: &'static Codec, levels| {
        let own = if preconditioned(codec) { whitenings.clone() } else { Vec::new() };
        Blocks::new(codec, geometry, levels, own, Rope::of(&model.config, longest)?, &again)
    };
    let mut tables: Vec<(Stream, Blocks)> = Vec::new();
    for codec in codecs.iter().copied() {
        for half in Stream::ALL {
            let settings = if half == Stream::K { &codec.k } else { &codec.v };
            let known = |(of, own): &(Stream, Blocks)| *of == half && own.coding(half).settings == *settings;
            if fits_levels(settings) && !tables.iter().any(known) {
                tables.push((half, blocks(codec, [None, None])?));
            }
        }
    }
    let levels = |(half, bare): &(Stream, Blocks)| seen.ok_or_else(missing)?.levels(bare, *half, geometry);
    let levels: Vec<Vec<f32>> = tables.par_iter().map(levels).collect::<Result<_>>()?;
    let of = |half: Stream, settings: &Settings| {
        let table = |(of, own): &(Stream, Blocks)| *of == half && own.coding(half).settings == *settings;
        tables.iter().position(table).map(|at| levels[at].clone())
    };
    let made = |codec: &&'static Codec| -> Result<&'static Blocks> { Ok(Box::leak(Box::new(blocks(codec, [of(Stream::K, &codec.k), of(Stream::V, &codec.v)])?))) };
    codecs.iter().map(made).collect()
}

/// What the base model did on the text.
struct Seen {
    dense: Dense,
    geometry: Geometry,
    rope: Rope,
    tokens: usize,
    /// Sum of `q q^T` before RoPE over all tokens and the heads of the group, then the mean. `[layer][kv head][d, d]`
    queries: Vec<Vec<Vec<f64>>>,
    /// keys after RoPE and values of each window
    windows: Vec<History>,
}

impl Seen {
    fn of(model: &Model, geometry: Geometry, text: &Corpus) -> Result<Seen> {
        let Geometry { layers, kv_heads, d, heads, .. } = geometry;
        let (windows, tokens) = (text.passages().min(WINDOWS), text.length.min(TOKENS).min(model.config.positions()));
        let mut seen = Seen { dense: Dense::new(geometry), geometry, rope: Rope::of(&model.config, tokens)?, tokens: windows * tokens, queries: vec![vec![vec![0.0; d * d]; kv_heads]; layers], windows: Vec::new() };
        for window in 0..windows {
            eprintln!("fitting the pca codecs: window {}/{windows}", window + 1);
            seen.dense = Dense::new(geometry);
            seen.windows.push(History::default());
            model.hidden(&text.passage(window)[..tokens], 0..1, &mut [Lane::whole(tokens, &mut seen)], |_| ())?;
        }
        let share = 1.0 / (seen.tokens * heads / kv_heads) as f64;
        seen.queries.iter_mut().flatten().flatten().for_each(|sum| *sum *= share);
        Ok(seen)
    }

    /// Levels of one half over all layers, under the very settings that they are for.
    fn levels(&self, blocks: &Blocks, half: Stream, geometry: Geometry) -> Result<Vec<f32>> {
        let (coding, d): (&Coding, usize) = (blocks.coding(half), geometry.d);
        let jobs: Vec<(usize, usize)> = (0..self.windows.len()).flat_map(|window| (0..geometry.layers).map(move |layer| (window, layer))).collect();
        let samples = |(window, layer): (usize, usize)| -> Result<Vec<f32>> {
            let [k, v] = self.windows[window].layer(layer);
            let rows = blocks.prepared(half, layer, 0, if half == Stream::K { k } else { v });
            let mut found = Vec::new();
            for stream in gather(coding.settings.grouping, &rows, geometry.kv_heads, d) {
                found.extend(coding.samples(&stream)?);
            }
            Ok(found)
        };
        let kept = jobs.into_iter().filter(|(_, layer)| !coding.settings.raw_layers.contains(layer)).collect::<Vec<_>>();
        let found = kept.into_par_iter().map(samples).collect::<Result<Vec<_>>>()?.concat();
        if found.is_empty() {
            let why = format!("{}: the text to fit on has no full block of {} rows", blocks.codec.name, coding.settings.block);
            return Err(Error::Usage(why));
        }
        Ok(coding.fitted(&found))
    }
}

impl Attention for Seen {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let Geometry { heads, kv_heads, d, .. } = self.geometry;
        let (group, rope) = (heads / kv_heads, &self.rope);
        self.queries[rows.layer].par_iter_mut().enumerate().try_for_each(|(head, sum)| -> Result<()> {
            let mut queries = Vec::with_capacity(rows.tokens * group * d);
            for token in 0..rows.tokens {
                let at = queries.len();
                queries.extend_from_slice(&rows.q[(token * heads + head * group) * d..][..group * d]);
                queries[at..].chunks_exact_mut(d).for_each(|q| rope.turn_back(q, rows.start + token));
            }
            sum.iter_mut().zip(gram(&queries, d)?).for_each(|(sum, x)| *sum += x);
            Ok(())
        })?;
        if let Some(window) = self.windows.last_mut() {
            window.push(rows.layer, rows.k, rows.v);
        }
        self.dense.attend(rows)
    }
}
