//! The experiment behind the published PCA recipe, repeated on one model with one machinery: how much of the loss is the
//! codec's, how much comes from errors that layers pass on to each other, and how much the kernel adds.
//!
//! Two runs of `ppl` over the same positions of the same passages. In both, tokens before the scored ones are coded and the
//! scored ones are read raw until they fill a block: `snapshot` codes a cache that was filled exactly, `in-forward` codes
//! while the model runs, so that every layer sees what the codec did to those before it. For cells that kernels read the packed cache and
//! its own attention are measured beside round trips of the same rows under exact attention: the difference is what the
//! fused kernel's arithmetic costs.

mod cells;
mod found;
mod plot;
mod table;

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::assets;
use crate::backend::{self, Choice};
use crate::device::Place;
use crate::error::{Error, Result};
use crate::ppl::{self, Ask, ReadPath, Text};
use crate::report::{Report, html, write_files};
use crate::run::Output;

pub use cells::{Cell, FUSED, cells};
use found::cell_row;
pub use found::{Apart, CellRow, Found, Kernel, Loss, Parts};

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

/// Of one of the runs; each keeps its progress in a folder of its own.
fn ppl_options(options: &Options, what: &str, codec: String, path: ReadPath, backend: Choice) -> ppl::Options {
    let ctx = options.prefix + options.scored;
    let Output { seed, resume, .. } = options.output;
    let out = options.output.out.as_ref().map(|out| out.join(what));
    ppl::Options {
        text: Text { model: options.model.clone(), corpus: options.corpus.clone(), passages: options.passages, ctx, stream: false },
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
        output: Output { seed, resume, out, ..Output::default() },
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
    let wish = ppl_options(options, "snapshot", names, ReadPath::Snapshot, options.backend);
    let plan = ppl::Plan::of(&wish)?.describe(&wish);
    Ok((cells, plan))
}

/// What the runs of `ppl` found.
struct Runs {
    forward: Report,
    snapshot: Report,
    /// kernels and scalar reference within one forward pass on the CPU
    kernels: Option<[Report; 2]>,
}

impl Runs {
    /// Each starts when the one before has ended: on a CPU they would only be in each other's way.
    fn one_by_one(options: &Options, [all, once, _]: [&str; 3]) -> Result<Runs> {
        let forward = ppl_run(options, "in-forward", all, ReadPath::All, options.backend, Place::asked())?;
        let snapshot = ppl_run(options, "snapshot", once, ReadPath::Snapshot, options.backend, Place::asked())?;
        Ok(Runs { forward, snapshot, kernels: None })
    }

    /// With a GPU, whose runs leave most cores idle. Kernels and reference have the same forward pass, so that the kernels alone
    /// can differ; equality needs no long passages.
    fn side_by_side(options: &Options, [all, once, fused]: [&str; 3]) -> Result<Runs> {
        let short = Options { prefix: options.prefix.min(512), scored: options.scored.min(128), ..options.clone() };
        let twice = |what, backend| ppl_run(&short, what, fused, ReadPath::All, backend, Place::Cpu);
        let stopped = |_| Error::Data("one of the runs stopped early; see above".into());
        std::thread::scope(|scope| {
            let snapshot = scope.spawn(|| ppl_run(options, "snapshot", once, ReadPath::Snapshot, options.backend, Place::asked()));
            let reference = scope.spawn(|| if fused.is_empty() { Ok(None) } else { twice("reference", Choice::Cpu).map(Some) });
            let forward = ppl_run(options, "in-forward", all, ReadPath::All, options.backend, Place::asked())?;
            let kernel = if fused.is_empty() { None } else { Some(twice("kernel", Choice::Gpu)?) };
            let (snapshot, reference) = (snapshot.join().map_err(stopped)??, reference.join().map_err(stopped)??);
            Ok(Runs { forward, snapshot, kernels: kernel.zip(reference).map(<[Report; 2]>::from) })
        })
    }
}

fn ppl_run(options: &Options, what: &str, names: &str, path: ReadPath, backend: Choice, place: Place) -> Result<Report> {
    let start = Instant::now();
    eprintln!("seeds: {what} begins");
    let report = ppl::run_at(&ppl_options(options, what, names.into(), path, backend), place)?;
    eprintln!("seeds: {what} done after {:.0} s", start.elapsed().as_secs_f64());
    Ok(report)
}

/// Measures all cells both ways.
pub fn run(options: &Options) -> Result<Found> {
    let start = Instant::now();
    let (cells, _) = checked(options)?;
    options.output.folder()?;
    let names: Vec<&str> = cells.iter().map(|cell| cell.codec.as_str()).collect();
    let fused: Vec<&str> = FUSED.into_iter().filter(|name| names.contains(name)).collect();
    let plain: Vec<String> = fused.iter().map(|name| format!("{name}:sim")).collect();
    let once = names.join(",");
    let all = [&[once.clone()], &plain[..]].concat().join(",");
    let lists = [all.as_str(), once.as_str(), &fused.join(",")];
    let on_device = backend::open(options.backend)?.device().is_some();
    let Runs { forward, snapshot, kernels } = if on_device { Runs::side_by_side(options, lists)? } else { Runs::one_by_one(options, lists)? };
    let (gpu, reference) = kernels.map_or((None, None), |[gpu, reference]| (Some(gpu), Some(reference)));
    let both = gpu.as_ref().zip(reference.as_ref());
    let rows: Vec<CellRow> = cells.iter().map(|cell| cell_row(cell, &forward, &snapshot, both)).collect::<Result<_>>()?;
    let invalid: Vec<String> = [Some(&forward), Some(&snapshot), gpu.as_ref(), reference.as_ref()].into_iter().flatten().flat_map(|run| run.invalid.iter().map(|why| format!("read path {}: {why}", run.read_path))).collect();
    Ok(Found {
        kind: "seeds",
        valid: invalid.is_empty(),
        invalid,
        cells: rows,
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

impl Found {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Data(format!("the result cannot be written as json: {e}")))
    }

    pub fn table(&self) -> String {
        table::table(self)
    }

    pub fn write(&self, folder: &Path) -> Result<()> {
        let drawing = html::Drawing { title: "Rate and divergence".into(), note: "Full: coded while the model runs; hollow: a filled cache coded once.", svg: plot::plot(self), half: false };
        let page = html::prose("The published PCA recipe beside ours", &self.table(), &[drawing]);
        write_files(folder, "seeds", &self.json()?, &self.table(), &page)
    }

    /// Ok for a run that may be believed.
    pub fn check(&self) -> Result<()> {
        if self.valid { Ok(()) } else { Err(Error::Invalid { reasons: self.invalid.clone() }) }
    }
}
