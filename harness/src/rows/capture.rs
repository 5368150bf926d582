//! One exact forward pass with somebody watching.

use crate::attention::{Dense, Geometry, History, Stream};
use crate::error::Result;
use crate::model::{Attention, Lane, Model, Rows};

/// K after RoPE and V of all tokens of one passage.
pub struct Capture {
    rows: History,
    pub geometry: Geometry,
}

impl Capture {
    /// [token, kv head, d]: rows of d, those of all heads together.
    pub fn rows(&self, layer: usize, stream: Stream) -> &[f32] {
        let [k, v] = self.rows.layer(layer);
        if stream == Stream::K { k } else { v }
    }
}

pub fn capture(model: &Model, ids: &[u32]) -> Result<Capture> {
    let geometry = Geometry::of(&model.config);
    let mut watch = Watch { dense: Dense::new(geometry), rows: History::default() };
    model.hidden(ids, 0..1, &mut [Lane::whole(ids.len(), &mut watch)], |_| ())?;
    Ok(Capture { rows: watch.rows, geometry })
}

struct Watch {
    dense: Dense,
    rows: History,
}

impl Attention for Watch {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        self.rows.push(rows.layer, rows.k, rows.v);
        self.dense.attend(rows)
    }
}
