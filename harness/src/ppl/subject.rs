//! The rows of a table: the mandatory ones that prove the measurement, and the codecs between them.

use kernels_gen::layout::TILE;

use super::ReadPath;
pub use crate::attention::RAW_BITS;
use crate::attention::{Blocked, ByLayer, Calibrated, Coded, Coder, Counted, Geometry, Grouped, Identity, Kinds, Own, Simulated, Sizes, Stream, Windowed, tokens_read};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Which halves of the cache a row codes, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streams {
    /// K and V, through the packed cache and the decode path where the read path has one
    Cache,
    /// K and V by round trip and exact attention
    Both,
    K,
    V,
    /// rows that serve all heads, of these kinds
    Rows(Kinds),
}

impl Streams {
    /// Whether keys and values are coded.
    pub fn halves(self) -> [bool; 2] {
        [self != Streams::V, self != Streams::K]
    }
}

/// What `--streams` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Ask {
    /// all that the model caches
    #[value(alias = "all")]
    Both,
    K,
    V,
    /// of rows that serve all heads: those of the latest tokens
    Window,
    /// those of groups that an indexer chooses
    Csa,
    /// those of long groups
    Hca,
}

/// Layers with a coder of their own.
pub type Layers = &'static [(usize, Coder)];

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// f32 rows through the paged machinery; must change nothing
    Identity,
    /// the base model in other chunks and another order of sums; its distance is the noise floor
    Noise,
    /// `skip` layers at either end stay raw, `own` ones have another coder
    Coded { coder: Coder, streams: Streams, skip: usize, own: Layers },
    /// a codec read with permuted coordinates; must look bad
    Control(Coder),
}

impl Subject {
    pub fn name(&self) -> String {
        match self {
            Subject::Identity => "identity".into(),
            Subject::Noise => "self".into(),
            Subject::Coded { coder, streams, skip, own } => {
                let streams = match streams {
                    Streams::Cache => String::new(),
                    Streams::Both => ":sim".into(),
                    Streams::K => ":k".into(),
                    Streams::V => ":v".into(),
                    Streams::Rows(kinds) => kinds.suffix(),
                };
                let skip = if *skip == 0 { String::new() } else { format!("+skip{skip}") };
                let own: String = own.iter().map(|(layer, coder)| format!("+{layer}={}", coder.name())).collect();
                format!("{}{streams}{skip}{own}", coder.name())
            }
            Subject::Control(coder) => format!("CONTROL_{}_misread", coder.name()),
        }
    }

    /// The codec's name without how it is used; None for rows that code nothing.
    pub fn codec(&self) -> Option<&'static str> {
        match self {
            Subject::Identity | Subject::Noise => None,
            Subject::Coded { coder, .. } => Some(coder.name()),
            Subject::Control(coder) => Some(coder.name()),
        }
    }

    /// Bits that one element of K and V takes over all layers, scales included. What stays raw counts as bf16;
    /// rows that code nothing at all hold f32.
    pub fn stored_bits(&self, geometry: &Geometry) -> f64 {
        self.bits(geometry, f64::NAN)
    }

    /// `measured` are those of the coded halves of a codec without fixed sizes.
    fn bits(&self, geometry: &Geometry, measured: f64) -> f64 {
        match self {
            Subject::Identity | Subject::Noise => 32.0,
            Subject::Control(coder) => 0.5 * (coder.stored_bits(Stream::K, 0, geometry.d) + coder.stored_bits(Stream::V, 0, geometry.d)),
            Subject::Coded { streams, .. } => {
                let of_layer = |layer| {
                    let Some(coder) = self.coder_of(layer, geometry.layers) else { return RAW_BITS };
                    let of = |half| match coder {
                        Coder::Pca(..) | Coder::Kivi(_) => measured,
                        _ => coder.stored_bits(half, layer, geometry.d),
                    };
                    let (k, v) = match streams {
                        Streams::K => (of(Stream::K), RAW_BITS),
                        Streams::V => (RAW_BITS, of(Stream::V)),
                        Streams::Cache | Streams::Both | Streams::Rows(_) => (of(Stream::K), of(Stream::V)),
                    };
                    0.5 * (k + v)
                };
                (0..geometry.layers).map(of_layer).sum::<f64>() / geometry.layers as f64
            }
        }
    }

    /// The same, where the rows decide what the codec takes of an element.
    pub fn measured_bits(&self, geometry: &Geometry, sizes: &Sizes) -> f64 {
        self.bits(geometry, sizes.bits().unwrap_or(f64::NAN))
    }

    /// Runs through the packed cache and its decode path.
    pub fn is_packed(&self, path: ReadPath) -> bool {
        path.packed() && matches!(self, Subject::Control(_) | Subject::Coded { coder: Coder::Codec(_) | Coder::Preset(..) | Coder::Kivi(_), streams: Streams::Cache, .. })
    }

    /// What codes a layer, of `layers`; None where it stays raw.
    fn coder_of(&self, layer: usize, layers: usize) -> Option<Coder> {
        match self {
            Subject::Coded { coder, skip, own, .. } => {
                let coder = own.iter().find(|(at, _)| *at == layer).map_or(*coder, |(_, coder)| *coder);
                let inside = layer >= *skip && layer + skip < layers;
                (inside && !matches!(coder, Coder::Raw)).then_some(coder)
            }
            Subject::Control(coder) => Some(*coder),
            Subject::Identity | Subject::Noise => None,
        }
    }

    /// The coders of this row, each with its layers, and for each layer the index of its coder; None where it stays raw.
    pub(crate) fn ways(&self, layers: usize) -> (Vec<(Coder, Vec<usize>)>, Vec<Option<usize>>) {
        let mut found: Vec<(Coder, Vec<usize>)> = Vec::new();
        for (layer, coder) in (0..layers).filter_map(|layer| Some((layer, self.coder_of(layer, layers)?))) {
            match found.iter_mut().find(|(known, _)| known.name() == coder.name()) {
                Some((_, layers)) => layers.push(layer),
                None => found.push((coder, vec![layer])),
            }
        }
        let of = (0..layers).map(|layer| found.iter().position(|(_, layers)| layers.contains(&layer))).collect();
        (found, of)
    }

    /// Bytes of codes that `tokens` tokens take in all coded layers, and those that their queries read, by the codecs' own sizes; None
    /// where nothing is packed.
    pub fn packed_bytes(&self, path: ReadPath, geometry: &Geometry, tokens: usize) -> Option<[u64; 2]> {
        let Geometry { layers, kv_heads, d, .. } = *geometry;
        let of = |token: usize, whole| [tokens as u64, tokens_read(0..tokens, whole)].map(|n| n * (token * kv_heads) as u64);
        let of_layer = |layer| match self.coder_of(layer, layers)? {
            Coder::Kivi(kivi) => Grouped::serves(geometry).then(|| Grouped::tile_bytes(kivi, geometry, tokens)),
            coder => coder.codec(layer).map(|codec| of(codec.token_bytes(d), TILE)),
        };
        match self {
            Subject::Identity => Some(of(8 * d * layers, 1)),
            _ if !self.is_packed(path) => None,
            _ => Some((0..layers).filter_map(of_layer).fold([0, 0], |[a, b], [c, d]| [a + c, b + d])),
        }
    }

    /// None for the noise row, which is the base attention itself.
    pub fn attention(&self, path: ReadPath, backend: &dyn Backend, geometry: Geometry, tokens: usize) -> Result<Option<Box<dyn Counted>>> {
        let own = if path.raw_own() { Own::Raw } else { Own::Coded };
        let all: Vec<usize> = (0..geometry.layers).collect();
        let simulated = |k, v| Simulated::new(geometry, k, v, own);
        Ok(Some(match *self {
            Subject::Identity => Box::new(Identity::new(geometry, tokens)),
            Subject::Noise => return Ok(None),
            Subject::Control(Coder::Codec(codec)) if self.is_packed(path) => Box::new(Coded::new(backend, codec, geometry, all, tokens)?.misreading()),
            Subject::Control(coder) => Box::new(simulated(Some(coder), Some(coder)).misreading()),
            Subject::Coded { streams: Streams::Rows(_), coder, .. } => {
                return Err(Error::Usage(format!("{}: this model caches keys and values, not rows", coder.name())));
            }
            Subject::Coded { streams, .. } => {
                let one = |coder: Coder, layers: Vec<usize>| -> Result<Box<dyn Counted>> {
                    Ok(match (coder, streams) {
                        (Coder::Codec(codec), Streams::Cache) if path.packed() => Box::new(Coded::new(backend, codec, geometry, layers, tokens)?),
                        (Coder::Preset(_, Some(fitted)), Streams::Cache) if path.packed() => Box::new(Calibrated::new(backend, fitted, geometry, &layers, tokens)?),
                        (Coder::Kivi(codec), Streams::Cache) if path.packed() && Grouped::serves(&geometry) => Box::new(Grouped::new(codec, geometry)),
                        (Coder::Pca(codec, blocks), Streams::Cache) if path.packed() => match Blocked::pages(codec, blocks, &geometry) {
                            Some(pages) => Box::new(Blocked::new(pages, geometry, blocks)),
                            None => Box::new(simulated(Some(coder), Some(coder))),
                        },
                        (Coder::Kivi(codec), _) => Box::new(Windowed::new(codec, geometry, streams.halves(), own)),
                        (_, Streams::K) => Box::new(simulated(Some(coder), None)),
                        (_, Streams::V) => Box::new(simulated(None, Some(coder))),
                        _ => Box::new(simulated(Some(coder), Some(coder))),
                    })
                };
                let (found, of) = self.ways(geometry.layers);
                let mut ways = found.into_iter().map(|(coder, layers)| one(coder, layers)).collect::<Result<Vec<_>>>()?;
                match ways.len() {
                    1 if of.iter().all(Option::is_some) => ways.remove(0),
                    _ => Box::new(ByLayer::new(geometry, ways, of)),
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ask;
    use super::super::names::{coder, subjects};
    use super::*;

    #[test]
    fn raw_halves_and_layers_count_as_bf16() {
        let geometry = Geometry { layers: 4, heads: 1, kv_heads: 1, d: 128, scale: 1.0 };
        let bits = |text: &str, skip| {
            let all = subjects(text, &[Ask::Both], &[skip], &[]).unwrap();
            all[2].stored_bits(&geometry)
        };
        assert_eq!(bits("int4", 0), 4.125);
        assert_eq!(bits("int4:k", 0), (4.125 + 16.0) / 2.0);
        assert_eq!(bits("int4", 1), (4.125 + 16.0) / 2.0);
        assert_eq!(bits("int4", 2), 16.0);
        assert_eq!(bits("fp8", 0), 8.5);
    }

    #[test]
    fn layers_of_their_own_count_as_what_they_are() {
        let geometry = Geometry { layers: 4, heads: 1, kv_heads: 1, d: 128, scale: 1.0 };
        let own: Layers = vec![(0, coder("bf16").unwrap()), (3, coder("raw").unwrap())].leak();
        let all = subjects("int4", &[Ask::Both, Ask::K], &[0], &[own]).unwrap();
        let names: Vec<String> = all[2..6].iter().map(Subject::name).collect();
        assert_eq!(names, ["int4", "int4+0=bf16+3=raw", "int4:k", "int4:k+0=bf16+3=raw"]);
        assert_eq!(all[3].stored_bits(&geometry), (2.0 * 4.125 + 2.0 * 16.0) / 4.0);
        assert_eq!(all[3].packed_bytes(ReadPath::All, &geometry, 32), Some([1, 32].map(|n| 32 * n * (2 * 66 * 2 + 256 * 2))));
        assert_eq!(all[5].packed_bytes(ReadPath::All, &geometry, 32), None);
    }
}
