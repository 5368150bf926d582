//! One passage through a model that caches rows which serve all heads: the base and all subjects side by side.

use std::rc::Rc;

use super::measure::{Run, Way, rows_of};
use super::{PassageRow, ReadPath, Streams, Subject};
use crate::attention::{Coder, Kinds, Latent, LatentKernels, Own, Passage, Through};
use crate::device::Place;
use crate::error::Result;
use crate::model::v4::{Config, Lane, Model};

impl Run<'_> {
    pub(super) fn measure_rows(&self, model: &Model, index: usize, missing: &[usize]) -> Result<Vec<PassageRow>> {
        let (plan, text) = (self.plan, &self.options.text);
        let passage = plan.corpus.passage(index);
        let (ids, gold) = (&passage[..text.ctx], &passage[plan.score.start + 1..plan.score.end + 1]);
        let shared = self.shared(&model.config);
        let mut base = Latent::new(&shared, Through::Nothing, Kinds::ALL, Own::Coded).leading();
        let mut ways = self.row_ways(&shared, missing)?;
        let chunks = self.options.read_path.chunks(text.ctx, &plan.score, self.options.chunk);
        let mut lanes = vec![Lane::new(chunks, &mut base)];
        for way in &mut ways {
            lanes.push(Lane::new(self.chunks(way.path, way.of), &mut way.attention));
        }
        let states = model.hidden(ids, plan.score.clone(), &mut lanes, |layer| self.tell(index, layer))?;
        let seconds: Vec<f64> = lanes.iter().skip(1).map(|lane| lane.seconds).collect();
        drop(lanes);
        let head = model.head()?;
        let repeats: Vec<bool> = ways.iter().map(|way| way.repeats).collect();
        let (scores, agreements) = self.score(index, &states, &repeats, gold, |rows| model.predict(&head, rows))?;
        Ok(rows_of(missing, &ways, Latent::tally, &scores, &seconds, &agreements))
    }

    fn shared(&self, config: &Config) -> Passage {
        Passage { config: config.clone(), scored: self.plan.score.clone(), sampled: self.sampled(), kept: Default::default() }
    }

    fn row_ways(&self, shared: &Passage, missing: &[usize]) -> Result<Vec<Way<Latent>>> {
        let path = self.options.read_path;
        let mut ways = Vec::new();
        for &of in missing {
            let subject = &self.plan.subjects[of];
            let kernels = self.row_kernels(subject)?;
            let made = |path: ReadPath| match &kernels {
                Some(kernels) if path.packed() => cache(subject, shared, path).on_device(kernels),
                _ => Ok(cache(subject, shared, path)),
            };
            ways.push(Way { attention: made(path)?, path, of, repeats: false });
            if path == ReadPath::Decode && matches!(subject, Subject::Coded { .. } | Subject::Control(_)) {
                ways.push(Way { attention: made(ReadPath::All)?, path: ReadPath::All, of, repeats: true });
            }
        }
        Ok(ways)
    }

    /// The kernels of a format that codes all rows, where there is a device for them.
    fn row_kernels(&self, subject: &Subject) -> Result<Option<Rc<LatentKernels>>> {
        match (self.backend.device(), subject) {
            (Some(device), Subject::Coded { coder: Coder::Latent(format), streams, .. }) if Place::asked() == Place::Device => match streams {
                Streams::Rows(kinds) if *kinds != Kinds::ALL => Ok(None),
                _ => LatentKernels::of(device, format),
            },
            _ => Ok(None),
        }
    }
}

/// The cache of a row of the table.
fn cache(subject: &Subject, shared: &Passage, path: ReadPath) -> Latent {
    let own = if path.raw_own() { Own::Raw } else { Own::Coded };
    match *subject {
        Subject::Identity => Latent::new(shared, Through::Exact, Kinds::ALL, own),
        Subject::Noise => Latent::new(shared, Through::Nothing, Kinds::ALL, own).reordered(),
        Subject::Control(coder) => Latent::new(shared, Through::Coder(coder), Kinds::ALL, own).misreading(),
        Subject::Coded { coder, streams, .. } => {
            let kinds = if let Streams::Rows(kinds) = streams { kinds } else { Kinds::ALL };
            Latent::new(shared, Through::Coder(coder), kinds, own)
        }
    }
}
