//! What the error of each band costs the model: the divergence of its predictions when that band alone, of one layer's
//! keys or values, is coded and all else is exact. It tells how much a layer matters, which no statistics of its rows do.

use kernels_gen::preset::{Calibration, Costs, Preset};

use crate::attention::{Dense, Fitted, Geometry, Stream};
use crate::corpus::Corpus;
use crate::error::Result;
use crate::model::{Attention, Lane, Model, Rows};
use crate::ppl::LogProbs;
use crate::run::Journal;
use crate::stats::mean;

/// Windows that are read and tokens of each, if there are so many.
const WINDOWS: usize = 2;
const TOKENS: usize = 1024;
/// Positions before this one are not scored: they read few tokens.
const FIRST: usize = 64;
/// Positions whose logits are in memory at once.
const AT_ONCE: usize = 256;

/// Of every layer's keys and values, at the widths of the preset's uniform bands.
pub fn losses(model: &Model, calibration: &Calibration, preset: &'static Preset, (text, windows, ctx): (&Corpus, &[usize], usize), journal: &mut Journal) -> Result<Vec<[Costs; 2]>> {
    let (geometry, tokens) = (Geometry::of(&model.config), ctx.min(TOKENS));
    let uniform = Calibration { bands: Default::default(), ..calibration.clone() };
    let fitted = Fitted::new(&uniform, preset, tokens)?;
    let windows = &windows[..windows.len().min(WINDOWS)];
    let of_layer = |layer: usize| -> Result<Vec<f64>> {
        let bands = |half, widths: &[usize]| (0..widths.len()).map(move |band| (half, band)).collect::<Vec<_>>();
        let all = [bands(Stream::K, preset.keys), bands(Stream::V, preset.values)].concat();
        let mut sums = vec![0.0; all.len()];
        for &window in windows {
            let passage = &text.passage(window)[..tokens];
            let mut base = Dense::new(geometry);
            let mut ways: Vec<OneBand> = all.iter().map(|(half, band)| OneBand { dense: Dense::new(geometry), fitted: &fitted, layer, half: *half, band: *band }).collect();
            let found = divergences(model, passage, layer, &mut base, &mut ways)?;
            sums.iter_mut().zip(found).for_each(|(sum, kl)| *sum += kl / windows.len() as f64);
        }
        Ok(sums)
    };
    let mut all = Vec::new();
    for layer in 0..geometry.layers {
        let piece = format!("losses of layer {layer}");
        let sums = match journal.get::<Vec<f64>>(&piece) {
            Some(sums) => sums,
            None => {
                let sums = of_layer(layer)?;
                journal.put(&piece, &sums)?;
                sums
            }
        };
        let (keys, values) = sums.split_at(preset.keys.len());
        let costs = |widths: &[usize], losses: &[f64]| Costs { widths: widths.to_vec(), losses: losses.to_vec() };
        all.push([costs(preset.keys, keys), costs(preset.values, values)]);
        eprintln!("layer {}/{}", layer + 1, geometry.layers);
    }
    Ok(all)
}

/// Mean KL divergence of each way from the base, with all ways exact below `layer`.
fn divergences(model: &Model, passage: &[u32], layer: usize, base: &mut Dense, ways: &mut [OneBand]) -> Result<Vec<f64>> {
    let whole = || std::iter::once(0..passage.len()).collect();
    let mut lanes = vec![Lane::new(whole(), base)];
    lanes.extend(ways.iter_mut().map(|way| Lane { from: layer, ..Lane::new(whole(), way) }));
    let scored = FIRST.min(passage.len() / 2)..passage.len() - 1;
    let states = model.hidden(passage, scored.clone(), &mut lanes, |_| ())?;
    let (head, gold) = (model.head()?, &passage[scored.start + 1..]);
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); states.len() - 1];
    for first in (0..scored.len()).step_by(AT_ONCE) {
        let count = AT_ONCE.min(scored.len() - first);
        let logits = |at: usize| model.predict(&head, &states[at].narrow(0, first, count)?.contiguous()?);
        let exact = LogProbs::of(&logits(0)?);
        for (at, kl) in found.iter_mut().enumerate() {
            kl.extend(exact.compare(&logits(at + 1)?, &gold[first..first + count]).iter().map(|score| score.kl));
        }
    }
    Ok(found.into_iter().map(mean).collect())
}

/// Exact attention over rows that have the error of one band.
struct OneBand<'a> {
    dense: Dense,
    fitted: &'a Fitted,
    layer: usize,
    half: Stream,
    band: usize,
}

impl Attention for OneBand<'_> {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        if rows.layer != self.layer {
            return self.dense.attend(rows);
        }
        let with_error = |x| self.fitted.one_band(self.half, self.band, rows.layer, rows.start, x);
        match self.half {
            Stream::K => self.dense.attend(&Rows { k: &with_error(rows.k), ..*rows }),
            Stream::V => self.dense.attend(&Rows { v: &with_error(rows.v), ..*rows }),
        }
    }
}
