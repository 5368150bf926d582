//! Fits the coordinates of the calibrated codecs to one model: runs it over calibration text, collects what its keys,
//! values and queries look like, and writes the file that `ppl` and the kernels take.

mod fit;
mod moments;
mod open;
mod watch;

use std::path::PathBuf;
use std::time::Instant;

use kernels_gen::layout::Operand;
use kernels_gen::preset::{Calibration, ERRORS, PRESETS, Preset, Shape, schedule};
use serde::Serialize;

pub use open::{Facts, Opened, open};

use crate::attention::Geometry;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::{Config, Lane, Model, Weights, rope_speeds};
use crate::stats::Random;
use crate::{assets, report, run};

/// Windows that are read when none are asked for: twice as many as make a difference on the bundled model.
const WINDOWS: usize = 8;

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
    /// print json instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    pub file: PathBuf,
    pub bytes: usize,
    pub tokens: usize,
    pub seconds: f64,
    pub presets: Vec<Expected>,
}

/// How well a preset's bands suit the model. Errors are shares of the energy in the metric that counts them, mean
/// over layers and heads, under the assumption that coordinates are Gaussian.
#[derive(Clone, Debug, Serialize)]
pub struct Expected {
    pub preset: &'static str,
    pub keys: Half,
    pub values: Half,
}

#[derive(Clone, Debug, Serialize)]
pub struct Half {
    pub bands: Vec<usize>,
    pub error: f64,
    /// the bands that would suit this model best at the same bits
    pub best: Vec<usize>,
    pub best_error: f64,
}

/// Fits and writes.
pub fn run(options: &Options) -> Result<Done> {
    let start = Instant::now();
    let text = Corpus::read(&options.text.clone().map_or_else(assets::calibration_text, Ok)?)?;
    let folder = assets::model(&options.model)?;
    let out = options.out.clone().unwrap_or_else(|| folder.join(assets::CALIBRATION));
    let windows = windows(options, &text, &Config::read(&folder.join("config.json"))?)?;
    let model = Model::load(&folder)?;
    let calibration = fitted(&model, &folder, &text, &windows, options.ctx)?;
    let bytes = calibration.to_bytes()?;
    std::fs::write(&out, &bytes).map_err(Error::writing(&out))?;
    let presets = PRESETS.iter().map(|preset| expected(&calibration, preset)).collect();
    Ok(Done { file: out, bytes: bytes.len(), tokens: calibration.tokens, seconds: start.elapsed().as_secs_f64(), presets })
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
pub fn fitted(
    model: &Model,
    folder: &std::path::Path,
    text: &Corpus,
    windows: &[usize],
    ctx: usize,
) -> Result<Calibration> {
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
    Ok(Calibration {
        shape: shape(&geometry),
        model: report::ModelFacts::of(folder, model).sha256,
        text: text.sha256.clone(),
        tokens: windows.len() * ctx,
        speeds,
        keys,
        values,
        bands: std::collections::BTreeMap::new(),
    })
}

pub fn shape(geometry: &Geometry) -> Shape {
    Shape { layers: geometry.layers, kv_heads: geometry.kv_heads, d: geometry.d }
}

fn expected(calibration: &Calibration, preset: &'static Preset) -> Expected {
    let half = |operand, bands: &[usize]| {
        let energies = calibration.band_energies(operand, bands.len());
        let total: f64 = energies.iter().sum();
        let error = |widths: &[usize]| energies.iter().zip(widths).map(|(e, w)| e * ERRORS[*w]).sum::<f64>() / total;
        let best = schedule(&energies, bands.iter().sum()).unwrap_or_else(|| bands.to_vec());
        Half { bands: bands.to_vec(), error: error(bands), best_error: error(&best), best }
    };
    Expected { preset: preset.name, keys: half(Operand::K, preset.keys), values: half(Operand::V, preset.values) }
}

impl Done {
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Data(format!("the result cannot be written as json: {e}")))
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "wrote {} ({} bytes) from {} tokens in {:.1} s\n\n| preset | keys: bands | error | best bands | error | values: bands | error | best bands | error |\n|---|---|--:|---|--:|---|--:|---|--:|\n",
            self.file.display(), self.bytes, self.tokens, self.seconds
        );
        for e in &self.presets {
            let half = |h: &Half| format!("{:?} | {:.2e} | {:?} | {:.2e}", h.bands, h.error, h.best, h.best_error);
            text += &format!("| {} | {} | {} |\n", e.preset, half(&e.keys), half(&e.values));
        }
        text
    }
}
