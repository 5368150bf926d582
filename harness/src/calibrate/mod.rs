//! Fits the coordinates of the calibrated codecs to one model: runs it over calibration text, collects what its keys,
//! values and queries look like, and writes the file that `ppl` and the kernels take.

mod fit;
mod losses;
mod moments;
mod open;
mod watch;
mod without;

use std::path::PathBuf;
use std::time::Instant;

use kernels_gen::preset::{Bands, Calibration, Costs, PRESETS, Shape, share};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use moments::gram;
pub use open::{Facts, Opened, open};
pub use without::Without;

use crate::attention::Geometry;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::{Config, Lane, Model, Weights, rope_speeds};
use crate::stats::Random;
use crate::{assets, report, run};

/// Windows that are read when none are asked for: twice as many as make a difference on the bundled model.
const WINDOWS: usize = 8;
/// Schedules of bands for keys, and as many for values, that the layers of a preset share: each is a kernel to compile.
const SCHEDULES: usize = 4;
/// The preset whose bands tell what errors cost, for all presets: large enough errors to be measured in one window,
/// small enough to add up. Measuring each preset by itself gave the same divergences.
const PROBED: usize = 1;

/// A piece of work.
const FIT: &str = "fit";

/// The command line of `calibrate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// model folder, or the name of a bundled model
    #[arg(long, default_value = assets::BUNDLED_MODEL)]
    pub model: String,
    /// token ids [window, token] as .npy; the bundled calibration text when left out
    #[arg(long)]
    pub text: Option<PathBuf>,
    /// the file to write; kvfuse.calibration in the model's folder when left out
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// windows of the text to read, drawn without repetition; 8, or all if there are fewer
    #[arg(long)]
    pub windows: Option<usize>,
    /// tokens of a window
    #[arg(long, default_value_t = 2048)]
    pub ctx: usize,
    /// of the choice of windows
    #[arg(long, default_value_t = run::SEED)]
    pub seed: u64,
    /// the same bands for all layers: spares the passes that tell how much each layer matters
    #[arg(long)]
    pub alike: bool,
    /// print json instead of a table
    #[arg(long)]
    pub json: bool,
    /// keep what an earlier run with the same settings finished; its progress lies beside the file to write
    #[arg(long)]
    pub resume: bool,
    /// check everything, say what would be done, do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    pub file: PathBuf,
    pub bytes: usize,
    pub tokens: usize,
    pub seconds: f64,
    /// none where layers were asked to be alike
    pub presets: Vec<Shared>,
}

/// How a preset's bits are shared out, and what that is expected to cost: the sum of the divergences that the bands
/// cause one by one.
#[derive(Clone, Debug, Serialize)]
pub struct Shared {
    pub preset: &'static str,
    /// of every layer
    pub bands: Vec<String>,
    pub loss: f64,
    /// with the same bands in all layers
    pub uniform_loss: f64,
}

/// A checked wish.
struct Plan {
    text: Corpus,
    folder: PathBuf,
    out: PathBuf,
    windows: Vec<usize>,
}

impl Plan {
    fn of(options: &Options) -> Result<Plan> {
        let text = Corpus::read(&options.text.clone().map_or_else(assets::calibration_text, Ok)?)?;
        let folder = assets::model(&options.model)?;
        let out = options.out.clone().unwrap_or_else(|| folder.join(assets::CALIBRATION));
        let windows = windows(options, &text, &Config::read(&folder.join("config.json"))?)?;
        Ok(Plan { text, folder, out, windows })
    }

    /// Beside the file: `NAME.progress`.
    fn progress(&self) -> PathBuf {
        let name = self.out.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        self.out.with_file_name(format!("{name}.progress"))
    }
}

/// What `--dry-run` prints.
pub fn describe(options: &Options) -> Result<Value> {
    let plan = Plan::of(options)?;
    let config = Config::read(&plan.folder.join("config.json"))?;
    let passes = if options.alike { 0 } else { config.num_hidden_layers };
    Ok(json!({
        "model": plan.folder.display().to_string(), "text": plan.text.path.display().to_string(), "windows": plan.windows,
        "ctx": options.ctx, "tokens": plan.windows.len() * options.ctx, "layers_probed": passes,
        "writes": plan.out.display().to_string(),
    }))
}

/// Fits and writes. The fit is one piece of work, the losses of each layer another.
pub fn run(options: &Options) -> Result<Done> {
    let start = Instant::now();
    let plan = Plan::of(options)?;
    let Plan { text, folder, out, windows } = &plan;
    let model = Model::load(folder)?;
    let settings = json!({
        "version": env!("CARGO_PKG_VERSION"), "model": report::ModelFacts::of(folder, &model).sha256, "text": text.sha256,
        "windows": windows, "ctx": options.ctx,
    });
    let progress = run::Output { out: Some(plan.progress()), resume: options.resume, ..run::Output::default() };
    let mut journal = run::Journal::open(&progress, &settings)?;
    let mut calibration = match journal.get::<Vec<u8>>(FIT) {
        Some(bytes) => Calibration::from_bytes(&bytes)?,
        None => {
            let made = fitted(&model, folder, text, windows, options.ctx)?;
            journal.put(FIT, &made.to_bytes()?)?;
            made
        }
    };
    let presets = match options.alike {
        true => Vec::new(),
        false => share_out(&model, &mut calibration, text, windows, options.ctx, &mut journal)?,
    };
    let bytes = calibration.to_bytes()?;
    std::fs::write(out, &bytes).map_err(Error::writing(out))?;
    std::fs::remove_dir_all(plan.progress()).map_err(Error::writing(&plan.progress()))?;
    Ok(Done { file: out.clone(), bytes: bytes.len(), tokens: calibration.tokens, seconds: start.elapsed().as_secs_f64(), presets })
}

/// Which windows to read: every wish is checked before the model runs.
fn windows(options: &Options, text: &Corpus, config: &Config) -> Result<Vec<usize>> {
    let (has, path) = (text.passages(), text.path.display());
    let windows = options.windows.unwrap_or(has.min(WINDOWS));
    if windows == 0 || windows > has {
        return Err(Error::Usage(format!("--windows {windows}: {path} holds {has}; ask for 1 to {has}")));
    }
    let longest = text.length.min(config.positions());
    if options.ctx < 64 || options.ctx > longest {
        return Err(Error::Usage(format!("--ctx {}: ask for 64 to {longest} tokens", options.ctx)));
    }
    text.check(has, options.ctx, config.vocab_size)?;
    let mut all: Vec<usize> = (0..has).collect();
    Random::new(options.seed).shuffle(&mut all);
    all.truncate(windows);
    all.sort_unstable();
    Ok(all)
}

/// The calibration of a model by windows of a text.
pub fn fitted(model: &Model, folder: &std::path::Path, text: &Corpus, windows: &[usize], ctx: usize) -> Result<Calibration> {
    let geometry = Geometry::of(&model.config);
    let speeds = rope_speeds(&model.config)?;
    let mut watch = watch::Watch::new(geometry, &speeds, ctx);
    for (index, &window) in windows.iter().enumerate() {
        watch.next_window();
        model.hidden(&text.passage(window)[..ctx], 0..1, &mut [Lane::new(vec![0..ctx], &mut watch)], |_| ())?;
        eprintln!("window {}/{}", index + 1, windows.len());
    }
    let weights = Weights::read(folder)?;
    let (keys, values) = fit::fits(&watch, &model.config, &weights)?;
    Ok(Calibration { shape: shape(&geometry), model: report::ModelFacts::of(folder, model).sha256, text: text.sha256.clone(), tokens: windows.len() * ctx, speeds, keys, values, bands: std::collections::BTreeMap::new() })
}

pub fn shape(geometry: &Geometry) -> Shape {
    Shape { layers: geometry.layers, kv_heads: geometry.kv_heads, d: geometry.d }
}

/// Gives every layer its own bands under every preset, by what the model loses to each band.
pub fn share_out(model: &Model, calibration: &mut Calibration, text: &Corpus, windows: &[usize], ctx: usize, journal: &mut run::Journal) -> Result<Vec<Shared>> {
    let mut found = Vec::new();
    let losses = losses::losses(model, calibration, &PRESETS[PROBED], (text, windows, ctx), journal)?;
    for preset in &PRESETS {
        let bands = share(&losses, preset, SCHEDULES);
        let loss = |of: &dyn Fn(usize) -> Bands| -> f64 {
            let layer = |(layer, [k, v]): (usize, &[Costs; 2])| k.of(&of(layer).keys) + v.of(&of(layer).values);
            losses.iter().enumerate().map(layer).sum()
        };
        found.push(Shared { preset: preset.name, loss: loss(&|layer| bands[layer].clone()), uniform_loss: loss(&|_| preset.uniform()), bands: bands.iter().map(Bands::to_string).collect() });
        calibration.bands.insert(preset.name.to_string(), bands);
    }
    Ok(found)
}

impl Done {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Data(format!("the result cannot be written as json: {e}")))
    }

    pub fn table(&self) -> String {
        let (file, Done { bytes, tokens, seconds, .. }) = (self.file.display(), self);
        let mut text = format!("wrote {file} ({bytes} bytes) from {tokens} tokens in {seconds:.1} s\n");
        if !self.presets.is_empty() {
            text += "\n| preset | expected loss | alike | bands of the layers, keys/values |\n|---|--:|--:|---|\n";
        }
        for p in &self.presets {
            text += &format!("| {} | {:.2e} | {:.2e} | {} |\n", p.preset, p.loss, p.uniform_loss, p.bands.join(" "));
        }
        text
    }
}
