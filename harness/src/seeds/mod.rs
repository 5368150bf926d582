//! The experiment behind the published PCA recipe, repeated on one model with one machinery: how much of the loss is the
//! codec's, how much comes from errors that layers pass on to each other, and how much the kernel adds.
//!
//! Two runs of `ppl` over the same positions of the same passages. In both, tokens before the scored ones are coded and the
//! scored ones are read raw until they fill a block: `snapshot` codes a cache that was filled exactly, `in-forward` codes
//! while the model runs, so that every layer sees what the codec did to those before it. For our codecs the packed cache and
//! its own attention are measured beside round trips of the same rows under exact attention: the difference is what the
//! fused kernel's arithmetic costs.

mod cells;
mod table;

use std::path::Path;
use std::time::Instant;

use kernels_gen::registry::codec;
use serde::Serialize;
use serde_json::{Value, json};

use crate::assets;
use crate::backend::Choice;
use crate::error::{Error, Result};
use crate::ppl::{self, Ask, ReadPath, Row, Text};
use crate::report::{CorpusFacts, Environment, ModelFacts, Report, html, write_files};
use crate::run::Output;

pub use cells::{Cell, FUSED, cells};

/// The command line of `seeds`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// model folder, or the name of a bundled model
    #[arg(long, default_value = assets::BUNDLED_MODEL)]
    pub model: String,
    /// token ids [passage, token] as .npy; the bundled passages when left out
    #[arg(long)]
    pub corpus: Option<std::path::PathBuf>,
    /// token ids [window, token] as .npy to fit the codecs on; the bundled calibration text when left out
    #[arg(long)]
    pub fit_text: Option<std::path::PathBuf>,
    #[arg(long, default_value_t = 8)]
    pub passages: usize,
    /// tokens that are coded, whole blocks of 512
    #[arg(long, default_value_t = 1024)]
    pub prefix: usize,
    /// tokens after them that are scored
    #[arg(long, default_value_t = 256)]
    pub scored: usize,
    /// codec names to keep, comma separated; all cells when left out
    #[arg(long)]
    pub only: Option<String>,
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: Choice,
    #[command(flatten)]
    pub output: Output,
}

/// One cell in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// mean over passages of (codec's perplexity - base's) / base's
    pub ppl_change: f64,
    pub ppl_ratio: f64,
    pub ppl_ratio_ci95: [f64; 2],
    pub kl: f64,
    pub kl_ci95: [f64; 2],
    pub top1: f64,
    pub rel_mse_k: f64,
    pub rel_mse_v: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct CellRow {
    pub what: &'static str,
    pub codec: String,
    /// of the coded prefix, layers and halves that stay raw included
    pub bits: f64,
    pub compression_vs_bf16: f64,
    /// of full blocks in coded layers alone: the figure that is usually quoted
    pub bits_of_coded: Option<f64>,
    pub snapshot: Loss,
    pub in_forward: Loss,
}

/// Where the loss of a fused codec comes from.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    pub codec: &'static str,
    /// KL of decoded rows under exact attention
    pub codec_kl: f64,
    /// what the attention over codes adds to it
    pub attention_kl: f64,
    /// what the GPU adds to the scalar reference; None where it did not run on a GPU. The same rows give the same bits; where
    /// the whole forward pass runs on the GPU, its f32 sums have another order and the rows differ in their last bits
    pub gpu_kl: Option<f64>,
    /// every passage has the same digits on both
    pub gpu_equal: Option<bool>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Found {
    pub kind: &'static str,
    pub valid: bool,
    pub invalid: Vec<String>,
    pub cells: Vec<CellRow>,
    pub shares: Vec<Share>,
    pub ppl_base: f64,
    pub model: ModelFacts,
    pub corpus: CorpusFacts,
    pub environment: Environment,
    pub backend: String,
    pub seed: u64,
    pub command: String,
    pub date: String,
    pub seconds: f64,
}

fn kept(options: &Options, layers: usize) -> Result<Vec<Cell>> {
    let all = cells(layers);
    let Some(only) = &options.only else { return Ok(all) };
    let names: Vec<&str> = only.split(',').map(str::trim).collect();
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|cell| cell.codec != **name)) {
        let known: Vec<&str> = all.iter().map(|cell| cell.codec.as_str()).collect();
        return Err(Error::Usage(format!("--only {unknown}: it is no cell; the cells are {}", known.join(", "))));
    }
    Ok(all.into_iter().filter(|cell| names.contains(&cell.codec.as_str())).collect())
}

fn ppl_options(options: &Options, codec: String, path: ReadPath, backend: Choice) -> ppl::Options {
    let ctx = options.prefix + options.scored;
    ppl::Options {
        text: Text {
            model: options.model.clone(),
            corpus: options.corpus.clone(),
            passages: options.passages,
            ctx,
            stream: false,
        },
        codec,
        streams: vec![Ask::Both],
        skip_layers: "0".into(),
        layers: Vec::new(),
        read_path: path,
        chunk: 256,
        score: Some(format!("{}..{ctx}", options.prefix)),
        calibration: None,
        fit_text: options.fit_text.clone(),
        backend,
        output: Output { seed: options.output.seed, ..Output::default() },
    }
}

/// What `--dry-run` prints.
pub fn describe(options: &Options) -> Result<Value> {
    let (cells, plan) = checked(options)?;
    Ok(json!({
        "cells": cells.iter().map(|cell| &cell.codec).collect::<Vec<_>>(), "twice": FUSED,
        "runs": ["in-forward", "snapshot"], "plan": plan,
    }))
}

fn checked(options: &Options) -> Result<(Vec<Cell>, Value)> {
    if options.prefix == 0 || !options.prefix.is_multiple_of(512) {
        return Err(Error::Usage(format!("--prefix {}: give a multiple of 512", options.prefix)));
    }
    let config = crate::model::Config::read(&assets::model(&options.model)?.join("config.json"))?;
    let cells = kept(options, config.num_hidden_layers)?;
    let names = cells.iter().map(|cell| cell.codec.as_str()).collect::<Vec<_>>().join(",");
    let wish = ppl_options(options, names, ReadPath::Snapshot, options.backend);
    let plan = ppl::Plan::of(&wish)?.describe(&wish);
    Ok((cells, plan))
}

/// Measures all cells both ways.
pub fn run(options: &Options) -> Result<Found> {
    let start = Instant::now();
    let (cells, _) = checked(options)?;
    options.output.folder()?;
    let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(",");
    let names = || cells.iter().map(|cell| cell.codec.clone());
    let fused: Vec<&str> = FUSED.into_iter().filter(|f| cells.iter().any(|cell| cell.codec == **f)).collect();
    let plain = || fused.iter().map(|name| format!("{name}:sim"));
    let ppl = |names, path, backend| ppl::run(&ppl_options(options, names, path, backend));
    let forward = ppl(list(&mut names().chain(plain())), ReadPath::All, options.backend)?;
    let snapshot = ppl(list(&mut names()), ReadPath::Snapshot, options.backend)?;
    let reference = match forward.backend.starts_with("gpu") && !fused.is_empty() {
        true => Some(ppl(fused.join(","), ReadPath::All, Choice::Cpu)?),
        false => None,
    };
    let rows: Vec<CellRow> = cells.iter().map(|cell| cell_row(cell, &forward, &snapshot)).collect::<Result<_>>()?;
    let shares = fused.iter().map(|name| share(name, &forward, reference.as_ref())).collect::<Result<_>>()?;
    let invalid: Vec<String> = [Some(&forward), Some(&snapshot), reference.as_ref()]
        .into_iter()
        .flatten()
        .flat_map(|run| run.invalid.iter().map(|why| format!("read path {}: {why}", run.read_path)))
        .collect();
    Ok(Found {
        kind: "seeds",
        valid: invalid.is_empty(),
        invalid,
        cells: rows,
        shares,
        ppl_base: forward.ppl_base,
        backend: forward.backend,
        model: forward.model,
        corpus: forward.corpus,
        environment: forward.environment,
        seed: forward.seed,
        command: forward.command,
        date: forward.date,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn row<'a>(run: &'a Report, name: &str) -> Result<&'a Row> {
    // rows are named with the way they run
    let named =
        |row: &&Row| row.codec == name || row.codec == format!("{name}:sim") || row.codec == format!("{name}_e4m3_64");
    let missing = || Error::Data(format!("the run of read path {} has no row {name}", run.read_path));
    run.rows.iter().find(named).ok_or_else(missing)
}

fn loss(row: &Row) -> Loss {
    Loss {
        ppl_change: row.seed_verdict.change,
        ppl_ratio: row.ppl_ratio,
        ppl_ratio_ci95: row.ppl_ratio_ci95,
        kl: row.kl_mean,
        kl_ci95: row.kl_mean_ci95,
        top1: row.top1,
        rel_mse_k: row.rel_mse_k,
        rel_mse_v: row.rel_mse_v,
    }
}

fn cell_row(cell: &Cell, forward: &Report, snapshot: &Report) -> Result<CellRow> {
    let (forward, snapshot) = (row(forward, &cell.codec)?, row(snapshot, &cell.codec)?);
    Ok(CellRow {
        what: cell.what,
        codec: cell.codec.clone(),
        bits: snapshot.stored_bits_per_element,
        compression_vs_bf16: snapshot.compression_vs_bf16,
        bits_of_coded: snapshot.sizes.coded_bits(),
        snapshot: loss(snapshot),
        in_forward: loss(forward),
    })
}

/// `reference` is the same run on the CPU, if `forward` ran on a GPU.
fn share(name: &&'static str, forward: &Report, reference: Option<&Report>) -> Result<Share> {
    let (packed, plain) = (row(forward, name)?, row(forward, &format!("{name}:sim"))?);
    // with the forward pass on the CPU the maps of calibrated codecs are the scalar reference's: nothing to compare
    let whole = forward.backend.contains("; ");
    let reference = reference.filter(|_| whole || codec(name).is_ok()).map(|run| row(run, name)).transpose()?;
    Ok(Share {
        codec: name,
        codec_kl: plain.kl_mean,
        attention_kl: packed.kl_mean - plain.kl_mean,
        gpu_kl: reference.map(|cpu| packed.kl_mean - cpu.kl_mean),
        gpu_equal: reference.map(|cpu| packed.kl == cpu.kl && packed.dlnppl == cpu.dlnppl),
    })
}

impl Found {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Error::Data(format!("the result cannot be written as json: {e}")))
    }

    pub fn table(&self) -> String {
        table::table(self)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let page = html::prose("The published PCA recipe beside ours", &self.table(), &[]);
        write_files(folder, "seeds", &self.json()?, &self.table(), &page)
    }

    /// Ok for a run that may be believed.
    pub fn check(&self) -> Result<()> {
        if self.valid { Ok(()) } else { Err(Error::Invalid { reasons: self.invalid.clone() }) }
    }
}
