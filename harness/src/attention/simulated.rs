//! Rows that make a round trip through a codec and are then attended to exactly: no packed bytes, no decode
//! kernel. Separates keys from values, and tells the codec's own loss from the arithmetic of the read path.

use super::{Coder, Counted, Dense, Distortion, Geometry, History, Misread, Sizes, Stream, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

/// What a query sees of the tokens that came in the same call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Own {
    /// coded, like everything else
    Coded,
    /// as they are: they are coded after the call, as an engine does that prefills with raw rows
    Raw,
}

pub struct Simulated {
    dense: Dense,
    coders: [Option<Coder>; 2],
    own: Own,
    misread: Misread,
    /// rows as later queries see them
    past: History,
    tally: Tally,
}

impl Simulated {
    pub fn new(geometry: Geometry, k: Option<Coder>, v: Option<Coder>, own: Own) -> Simulated {
        let (misread, past, tally) = (Misread::default(), History::default(), Tally::default());
        Simulated { dense: Dense::new(geometry), coders: [k, v], own, misread, past, tally }
    }

    /// Broken on purpose.
    pub fn misreading(self) -> Simulated {
        let misread = Misread::of(self.dense.geometry.d);
        Simulated { misread, ..self }
    }
}

impl Simulated {
    /// Rows of one half as a reader sees them.
    fn read(&self, half: Stream, rows: &Rows, x: &[f32]) -> Result<(Vec<f32>, Sizes)> {
        let Some(coder) = self.coders[half as usize] else { return Ok((x.to_vec(), Sizes::default())) };
        if coder.leaves_raw(self.own, rows.start) {
            return Ok((x.to_vec(), Sizes::default()));
        }
        let (read, sizes) = coder.round_trip(half, (rows.layer, rows.start), x, self.dense.geometry.d)?;
        Ok((self.misread.read(read), sizes))
    }
}

impl Attention for Simulated {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let d = self.dense.geometry.d;
        let own = &*self;
        let (k, v) = rayon::join(|| own.read(Stream::K, rows, rows.k), || own.read(Stream::V, rows, rows.v));
        let ((k, key_sizes), (v, value_sizes)) = (k?, v?);
        self.tally.sizes += key_sizes;
        self.tally.sizes += value_sizes;
        let layer = self.tally.layer(rows.layer);
        layer.k += Distortion::of_rows(rows.k, &k, d);
        layer.v += Distortion::of_rows(rows.v, &v, d);
        let (own_k, own_v) = if self.own == Own::Coded { (&k[..], &v[..]) } else { (rows.k, rows.v) };
        let [all_k, all_v] = self.past.push(rows.layer, own_k, own_v);
        let out = self.dense.over(rows, all_k, all_v)?;
        if self.own == Own::Raw {
            self.past.replace(rows, &k, &v);
        }
        Ok(out)
    }
}

impl Counted for Simulated {
    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}
