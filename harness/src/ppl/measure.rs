//! One passage through the base model and all subjects, side by side.

use std::io::IsTerminal;
use std::ops::Range;
use std::time::Instant;

use candle_core::Tensor;

use super::{Agreement, Backend, LogProbs, Options, PassageRow, Plan, ReadPath, Subject};
use crate::attention::{Counted, Dense, Probe, Tally};
use crate::device::Forward;
use crate::error::{Error, Result};
use crate::model::{Attention, Lane, Logits, Model, Rows, v4};
use crate::run::Journal;

/// Positions whose logits are in memory at once.
const SCORED_AT_ONCE: usize = 256;
/// Positions whose attention outputs are compared with exact ones.
const PROBED: usize = 32;

/// The base model, and where its forward pass runs.
pub enum Base {
    Dense(Model),
    Device(Model, Forward),
    Rows(v4::Model),
}

pub struct Run<'a> {
    pub base: Base,
    pub backend: Box<dyn Backend>,
    pub plan: &'a Plan,
    pub options: &'a Options,
    pub start: Instant,
}

/// A way through the model that belongs to a subject, or repeats it in one chunk to be compared with it.
pub(super) struct Way<A> {
    pub attention: A,
    pub path: ReadPath,
    /// index of the subject
    pub of: usize,
    pub repeats: bool,
}

/// What each subject's own way found, and how its repetition agrees with it.
pub(super) fn rows_of<A>(missing: &[usize], ways: &[Way<A>], tally: impl Fn(&A) -> Tally, scores: &[Vec<super::Score>], seconds: &[f64], agreements: &[Option<Agreement>]) -> Vec<PassageRow> {
    let row = |subject: &usize| {
        let mine = |repeats| ways.iter().position(|way| way.of == *subject && way.repeats == repeats);
        let first = mine(false).unwrap_or_default();
        PassageRow { scores: scores[first].clone(), tally: tally(&ways[first].attention), seconds: seconds[first], agreement: mine(true).and_then(|repeated| agreements[repeated]) }
    };
    missing.iter().map(row).collect()
}

impl Run<'_> {
    /// Results of all subjects; what the journal has is not measured again.
    pub fn passage(&self, index: usize, journal: &mut Journal) -> Result<Vec<PassageRow>> {
        let subjects = &self.plan.subjects;
        let piece = |subject: &Subject| format!("{} passage {index}", subject.name());
        let mut found: Vec<Option<PassageRow>> = subjects.iter().map(|s| journal.get(&piece(s))).collect();
        let missing: Vec<usize> = (0..subjects.len()).filter(|i| found[*i].is_none()).collect();
        if !missing.is_empty() {
            let rows = match &self.base {
                Base::Dense(model) => self.measure(model, index, &missing)?,
                Base::Device(model, forward) => self.measure_on((model, forward), index, &missing)?,
                Base::Rows(model) => self.measure_rows(model, index, &missing)?,
            };
            for (at, row) in missing.iter().zip(rows) {
                journal.put(&piece(&subjects[*at]), &row)?;
                found[*at] = Some(row);
            }
        }
        let (of, passed) = (self.options.text.passages, self.start.elapsed().as_secs_f64());
        let left = passed / (index + 1) as f64 * (of - index - 1) as f64;
        let back = if std::io::stderr().is_terminal() { "\r" } else { "" };
        eprintln!("{back}passage {}/{of}  done after {passed:.0} s, about {left:.0} s left", index + 1);
        Ok(found.into_iter().flatten().collect())
    }

    fn measure(&self, model: &Model, index: usize, missing: &[usize]) -> Result<Vec<PassageRow>> {
        let (plan, text) = (self.plan, &self.options.text);
        let passage = plan.corpus.passage(index);
        let ids = &passage[..text.ctx];
        let gold = &passage[plan.score.start + 1..plan.score.end + 1];
        let mut base = Dense::new(plan.geometry);
        let mut ways = self.ways(missing)?;
        let mut lanes = vec![self.lane(self.options.read_path, &mut base)];
        for way in &mut ways {
            lanes.push(Lane::new(self.chunks(way.path, way.of), &mut way.attention));
        }
        let states = model.hidden(ids, plan.score.clone(), &mut lanes, |layer| self.tell(index, layer))?;
        let seconds: Vec<f64> = lanes.iter().skip(1).map(|lane| lane.seconds).collect();
        drop(lanes);
        let head = model.head()?;
        let repeats: Vec<bool> = ways.iter().map(|way| way.repeats).collect();
        let (scores, agreements) = self.score(index, &states, &repeats, gold, |rows| model.predict(&head, rows))?;
        Ok(rows_of(missing, &ways, |attention| attention.tally(), &scores, &seconds, &agreements))
    }

    /// How the tokens of a passage come to a subject; to the noise row in chunks of its own.
    pub(super) fn chunks(&self, path: ReadPath, of: usize) -> Vec<Range<usize>> {
        let ctx = self.options.text.ctx;
        if !matches!(self.plan.subjects[of], Subject::Noise) {
            return path.chunks(ctx, &self.plan.score, self.options.chunk);
        }
        let half = (ctx / 2 + 1).min(ctx);
        [0..half, half..ctx].into_iter().filter(|chunk| !chunk.is_empty()).collect()
    }

    /// Which layer begins.
    pub(super) fn tell(&self, index: usize, layer: usize) {
        let (text, layers) = (&self.options.text, self.plan.geometry.layers);
        match (text.stream, std::io::stderr().is_terminal()) {
            (true, _) => eprintln!("passage {}  layer {}/{layers}", index + 1, layer + 1),
            (false, true) => eprint!("\rpassage {}/{}  layer {}/{layers}  ", index + 1, text.passages, layer + 1),
            (false, false) => {}
        }
    }

    /// Positions whose attention outputs are compared.
    pub(super) fn sampled(&self) -> Vec<usize> {
        let score = &self.plan.score;
        (0..PROBED).map(|i| score.start + i * score.len() / PROBED).collect()
    }

    fn lane<'a>(&self, path: ReadPath, attention: &'a mut dyn Attention) -> Lane<'a> {
        Lane::new(path.chunks(self.options.text.ctx, &self.plan.score, self.options.chunk), attention)
    }

    fn ways(&self, missing: &[usize]) -> Result<Vec<Way<Box<dyn Counted>>>> {
        let (plan, ctx, path) = (self.plan, self.options.text.ctx, self.options.read_path);
        let sampled = self.sampled();
        let mut ways = Vec::new();
        for &of in missing {
            let subject = &plan.subjects[of];
            let attention = |path| -> Result<Box<dyn Counted>> {
                Ok(match subject.attention(path, self.backend.as_ref(), plan.geometry, ctx)? {
                    Some(inner) => Box::new(Probe::new(inner, plan.geometry, sampled.clone())),
                    None => Box::new(Uncounted(Dense::reordered(plan.geometry))),
                })
            };
            ways.push(Way { attention: attention(path)?, path, of, repeats: false });
            if path == ReadPath::Decode && subject.is_packed(path) {
                let path = ReadPath::All;
                ways.push(Way { attention: attention(path)?, path, of, repeats: true });
            }
        }
        Ok(ways)
    }

    /// Scores of every way against the base (the first state), and how far a repetition is from what it repeats, the way
    /// before it.
    #[allow(clippy::type_complexity)]
    pub(super) fn score(&self, index: usize, states: &[Tensor], ways: &[bool], gold: &[u32], predict: impl Fn(&Tensor) -> Result<Logits>) -> Result<(Vec<Vec<super::Score>>, Vec<Option<Agreement>>)> {
        let mut scores: Vec<Vec<super::Score>> = ways.iter().map(|_| Vec::new()).collect();
        let mut apart: Vec<(bool, Vec<f64>)> = ways.iter().map(|_| (true, Vec::new())).collect();
        for first in (0..gold.len()).step_by(SCORED_AT_ONCE) {
            let count = SCORED_AT_ONCE.min(gold.len() - first);
            let gold = &gold[first..first + count];
            let logits = |at: usize| predict(&states[at].narrow(0, first, count)?.contiguous()?);
            let base = LogProbs::of(&logits(0)?);
            if !base.is_finite() {
                return Err(Error::Data(format!("the base model gives logits that are not finite on passage {index}; the checkpoint is damaged")));
            }
            let mut original = None;
            for (at, repeats) in ways.iter().enumerate() {
                let coded = logits(at + 1)?;
                scores[at].extend(base.compare(&coded, gold));
                if let (true, Some(original)) = (*repeats, &original) {
                    let (exact, kl) = &mut apart[at];
                    *exact &= coded.values == *original;
                    let theirs = Logits { vocab: coded.vocab, values: Vec::clone(original) };
                    kl.extend(LogProbs::of(&coded).compare(&theirs, gold).iter().map(|s| s.kl));
                }
                original = Some(coded.values);
            }
        }
        let agreement = |(repeats, (exact, kl)): (&bool, (bool, Vec<f64>))| {
            let kl_mean = crate::stats::mean(kl.iter().copied());
            repeats.then(|| Agreement { exact, kl_mean, kl_max: kl.into_iter().fold(0.0, f64::max) })
        };
        Ok((scores, ways.iter().zip(apart).map(agreement).collect()))
    }
}

/// The base attention among counted ones: it stores nothing.
struct Uncounted(Dense);

impl Attention for Uncounted {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        self.0.attend(rows)
    }
}

impl Counted for Uncounted {
    fn tally(&self) -> Tally {
        Tally::default()
    }
}
