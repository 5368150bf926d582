//! One passage through the base model and all subjects on a GPU.

use std::rc::Rc;

use runtime::Memory;

use super::measure::{Run, Way};
use super::{Agreement, PassageRow, ReadPath, Score, Subject};
use crate::device::{Attend, Exact, Forward, Lane, Probe, attention, prepare};
use crate::error::{Error, Result};
use crate::model::{Config, Model};

/// Positions whose logits are in memory at once.
const SCORED_AT_ONCE: usize = 512;

/// What was found on one way.
#[derive(Default)]
struct Found {
    scores: Vec<Score>,
    /// logits of a repetition have the bits of what it repeats
    exact: bool,
    apart: Vec<f64>,
}

impl Run<'_> {
    pub(super) fn measure_on(&self, (model, forward): (&Model, &Forward), index: usize, missing: &[usize]) -> Result<Vec<PassageRow>> {
        let (plan, text) = (self.plan, &self.options.text);
        let passage = plan.corpus.passage(index);
        let (ids, gold) = (&passage[..text.ctx], &passage[plan.score.start + 1..plan.score.end + 1]);
        let mut base = Exact::new(forward.machine.clone(), plan.geometry);
        let mut ways = self.ways_on(forward, missing)?;
        let chunks = self.options.read_path.chunks(text.ctx, &plan.score, self.options.chunk);
        let mut lanes = vec![Lane { chunks, attention: &mut base, seconds: 0.0 }];
        for way in &mut ways {
            let chunks = self.chunks(way.path, way.of);
            lanes.push(Lane { chunks, attention: way.attention.as_mut(), seconds: 0.0 });
        }
        let told = |layer| self.tell(index, layer);
        let states = forward.hidden(model, ids, plan.score.clone(), &mut lanes, told)?;
        let seconds: Vec<f64> = lanes.iter().skip(1).map(|lane| lane.seconds).collect();
        drop(lanes);
        let found = self.score_on((&model.config, forward), index, &states, &ways, gold)?;
        let mut tallies = ways.iter_mut().map(|way| way.attention.tally()).collect::<Result<Vec<_>>>()?;
        let row = |subject: &usize| {
            let mine = |repeats| ways.iter().position(|way| way.of == *subject && way.repeats == repeats);
            let first = mine(false).unwrap_or_default();
            PassageRow { scores: found[first].scores.clone(), tally: std::mem::take(&mut tallies[first]), seconds: seconds[first], agreement: mine(true).map(|repeated| found[repeated].agreement()) }
        };
        Ok(missing.iter().map(row).collect())
    }

    fn ways_on(&self, forward: &Forward, missing: &[usize]) -> Result<Vec<Way<Box<dyn Attend>>>> {
        let (plan, path) = (self.plan, self.options.read_path);
        prepare(&forward.machine, missing.iter().map(|of| &plan.subjects[*of]), path, &plan.geometry)?;
        let mut ways = Vec::new();
        for &of in missing {
            let subject = &plan.subjects[of];
            let made = |path| -> Result<Box<dyn Attend>> {
                let (machine, geometry) = (&forward.machine, plan.geometry);
                let inner = attention(machine, subject, path, geometry, self.options.text.ctx)?;
                Ok(match subject {
                    Subject::Noise => inner,
                    _ => Box::new(Probe::new(inner, Rc::clone(machine), geometry, self.sampled())),
                })
            };
            ways.push(Way { attention: made(path)?, path, of, repeats: false });
            if path == ReadPath::Decode && subject.is_packed(path) {
                ways.push(Way { attention: made(ReadPath::All)?, path: ReadPath::All, of, repeats: true });
            }
        }
        Ok(ways)
    }

    fn score_on(&self, (config, forward): (&Config, &Forward), index: usize, states: &[Memory], ways: &[Way<Box<dyn Attend>>], gold: &[u32]) -> Result<Vec<Found>> {
        let mut found: Vec<Found> = ways.iter().map(|_| Found { exact: true, ..Found::default() }).collect();
        for first in (0..gold.len()).step_by(SCORED_AT_ONCE) {
            let count = SCORED_AT_ONCE.min(gold.len() - first);
            let gold = &gold[first..first + count];
            let base = forward.logits(config, "base logits", &states[0], first, count)?;
            for (at, way) in ways.iter().enumerate() {
                // what a repetition repeats came just before it, and stays where it is
                let name = if way.repeats { "repeated logits" } else { "coded logits" };
                let coded = forward.logits(config, name, &states[at + 1], first, count)?;
                let scores = forward.compare(&base, &coded, gold)?;
                if scores.iter().any(Option::is_none) && !forward.fetch_logits(&base)?.values.iter().all(|v| v.is_finite()) {
                    return Err(Error::Data(format!("the base model gives logits that are not finite on passage {index}; the checkpoint is damaged")));
                }
                found[at].scores.extend(scores.into_iter().map(|s| s.unwrap_or(Score::NONE)));
                if way.repeats {
                    let original = forward.logits(config, "coded logits", &states[at], first, count)?;
                    let same = forward.fetch_logits(&coded)?.values == forward.fetch_logits(&original)?.values;
                    found[at].exact &= same;
                    let apart = forward.compare(&coded, &original, gold)?;
                    found[at].apart.extend(apart.into_iter().map(|s| s.map_or(f64::NAN, |s| s.kl)));
                }
            }
        }
        Ok(found)
    }
}

impl Found {
    fn agreement(&self) -> Agreement {
        let kl_mean = crate::stats::mean(self.apart.iter().copied());
        let kl_max = self.apart.iter().fold(0.0, |top, kl| kl.max(top));
        Agreement { exact: self.exact, kl_mean, kl_max }
    }
}
