//! One passage through a model that caches rows which serve all heads: the base and all subjects side by side.

use super::measure::{Run, Way, rows_of};
use super::{PassageRow, ReadPath, Streams, Subject};
use crate::attention::{Kinds, Latent, Own, Passage, Through};
use crate::error::Result;
use crate::model::v4::{Config, Lane, Model};

impl Run<'_> {
    pub(super) fn measure_rows(&self, model: &Model, index: usize, missing: &[usize]) -> Result<Vec<PassageRow>> {
        let (plan, text) = (self.plan, &self.options.text);
        let passage = plan.corpus.passage(index);
        let (ids, gold) = (&passage[..text.ctx], &passage[plan.score.start + 1..plan.score.end + 1]);
        let shared = self.shared(&model.config);
        let mut base = Latent::new(&shared, Through::Nothing, Kinds::ALL, Own::Coded).leading();
        let mut ways = self.row_ways(&shared, missing);
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
        Passage {
            config: config.clone(),
            scored: self.plan.score.clone(),
            sampled: self.sampled(),
            kept: Default::default(),
        }
    }

    fn row_ways(&self, shared: &Passage, missing: &[usize]) -> Vec<Way<Latent>> {
        let path = self.options.read_path;
        let mut ways = Vec::new();
        for &of in missing {
            let subject = &self.plan.subjects[of];
            ways.push(Way { attention: cache(subject, shared, path), path, of, repeats: false });
            if path == ReadPath::Decode && matches!(subject, Subject::Coded { .. } | Subject::Control(_)) {
                ways.push(Way { attention: cache(subject, shared, ReadPath::All), path: ReadPath::All, of, repeats: true });
            }
        }
        ways
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
