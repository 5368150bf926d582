//! Which bits go where in one layer. Layers differ in how much the model cares for them, so a calibration may give
//! each its own bands; a layer's cache has the layout of its own bands.

use std::fmt;
use std::str::FromStr;

use crate::codecs::places::Places;
use crate::layout::Operand;
use crate::registry::{CodecInfo, UnknownCodec, codec};

/// Widths of the bands of a layer's keys and values, in bits a coordinate; the first band has the largest energies. Every
/// block of eight has the same share of each, see [`crate::codecs::IntC`]. Written as `6+4+4+2/7+5+3+1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Bands {
    pub keys: Vec<usize>,
    pub values: Vec<usize>,
}

impl Bands {
    /// The codes of these bands and their layout.
    pub fn codec(&self) -> Result<&'static CodecInfo, UnknownCodec> {
        codec(&self.codec_name())
    }

    /// What the registry calls them: `intc6442/intc7531`.
    pub fn codec_name(&self) -> String {
        let side = |widths: &[usize]| format!("intc{}", widths.iter().map(usize::to_string).collect::<String>());
        format!("{}/{}", side(&self.keys), side(&self.values))
    }

    /// Where the coordinates of keys or values stand in a row of `d`, largest energies first.
    pub fn order(&self, operand: Operand, d: usize) -> Vec<usize> {
        let widths = if operand == Operand::K { &self.keys } else { &self.values };
        Places::of(widths).map_or_else(Vec::new, |places| (0..d).map(|rank| places.coordinate(rank, d)).collect())
    }

    /// Mean bits of the code of a coordinate, scales left out, over keys and values.
    pub fn bits(&self) -> f64 {
        let mean = |widths: &[usize]| widths.iter().sum::<usize>() as f64 / widths.len() as f64;
        0.5 * (mean(&self.keys) + mean(&self.values))
    }
}

impl fmt::Display for Bands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |widths: &[usize]| widths.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
        write!(f, "{}/{}", side(&self.keys), side(&self.values))
    }
}

impl FromStr for Bands {
    type Err = String;

    /// Refuses what no codec serves.
    fn from_str(text: &str) -> Result<Bands, String> {
        let bad = || format!("{text:?} is no pair of bands like 6+4+4+2/7+5+3+1");
        let side = |part: &str| part.split('+').map(|w| w.parse().map_err(|_| bad())).collect::<Result<Vec<usize>, String>>();
        let (keys, values) = text.split_once('/').ok_or_else(bad)?;
        let bands = Bands { keys: side(keys)?, values: side(values)? };
        bands.codec().map_err(|why| format!("{}: {why}", bad()))?;
        Ok(bands)
    }
}
