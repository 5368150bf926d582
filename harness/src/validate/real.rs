//! Rows of the bundled model: its keys and values of one passage, all layers and heads.

use crate::assets;
use crate::attention::Stream;
use crate::corpus::Corpus;
use crate::error::Result;
use crate::model::Model;
use crate::rows::capture;

/// Tokens of the passage that are read.
const TOKENS: usize = 256;

/// Keys and values, rows of `d`.
pub struct Real {
    pub d: usize,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

pub fn real() -> Result<Real> {
    let model = Model::load(&assets::model(assets::BUNDLED_MODEL)?)?;
    let passage = Corpus::read(&assets::passages()?)?;
    let rows = capture(&model, &passage.passage(0)[..TOKENS])?;
    let all = |half| (0..rows.geometry.layers).flat_map(|layer| rows.rows(layer, half)).copied().collect();
    Ok(Real { d: rows.geometry.d, keys: all(Stream::K), values: all(Stream::V) })
}
