//! Rows that make a round trip through a codec and are then attended to exactly: no packed bytes, no decode
//! kernel. Separates keys from values, and tells the codec's own loss from the arithmetic of the read path.

use kernels_gen::registry::{CodecInfo, Half};
use rayon::prelude::*;

use super::{Counted, Dense, Geometry, SquaredError, Tally};
use crate::error::Result;
use crate::model::{Attention, Rows};

pub struct Simulated {
    dense: Dense,
    k: Option<&'static CodecInfo>,
    v: Option<&'static CodecInfo>,
    tally: Tally,
}

impl Simulated {
    pub fn new(geometry: Geometry, k: Option<&'static CodecInfo>, v: Option<&'static CodecInfo>) -> Simulated {
        Simulated { dense: Dense::new(geometry), k, v, tally: Tally::default() }
    }
}

impl Attention for Simulated {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let d = self.dense.geometry.d;
        let k = round_trip(self.k.map(|c| &c.k), rows.k, d);
        let v = round_trip(self.v.map(|c| &c.v), rows.v, d);
        self.tally.k = self.tally.k + SquaredError::of_row(rows.k, &k);
        self.tally.v = self.tally.v + SquaredError::of_row(rows.v, &v);
        self.dense.attend(&Rows { k: &k, v: &v, ..*rows })
    }
}

impl Counted for Simulated {
    fn tally(&self) -> Tally {
        self.tally
    }
}

fn round_trip(codec: Option<&Half>, rows: &[f32], d: usize) -> Vec<f32> {
    match codec {
        Some(codec) => rows.par_chunks_exact(d).flat_map_iter(|x| codec.decode_row(&codec.encode_row(x), d)).collect(),
        None => rows.to_vec(),
    }
}
