//! The rows of a table: the mandatory ones that prove the measurement, and the codecs between them.

use kernels_gen::preset::preset;
use kernels_gen::registry::{CodecInfo, codec};

use super::ReadPath;
use crate::attention::{Boundary, Calibrated, Coded, Coder, Counted, FP8, Geometry, Identity, Own, Simulated, Stream};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Bits of an element that is not coded: engines keep it as bf16.
pub const RAW_BITS: f64 = 16.0;

/// Which halves of the cache a row codes, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Streams {
    /// K and V, through the packed cache and the decode path where the read path has one
    Cache,
    /// K and V by round trip and exact attention
    Both,
    K,
    V,
}

/// What `--streams` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Ask {
    Both,
    K,
    V,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// f32 rows through the paged machinery; must change nothing
    Identity,
    /// the base model in other chunks and another order of sums; its distance is the noise floor
    Noise,
    /// `skip` layers at either end stay raw
    Coded { coder: Coder, streams: Streams, skip: usize },
    /// a codec read with permuted coordinates; must look bad
    Control(&'static CodecInfo),
}

impl Subject {
    pub fn name(&self) -> String {
        match self {
            Subject::Identity => "identity".into(),
            Subject::Noise => "self".into(),
            Subject::Coded { coder, streams, skip } => {
                let streams = match streams {
                    Streams::Cache => "",
                    Streams::Both => ":sim",
                    Streams::K => ":k",
                    Streams::V => ":v",
                };
                let skip = if *skip == 0 { String::new() } else { format!("+skip{skip}") };
                format!("{}{streams}{skip}", coder.name())
            }
            Subject::Control(codec) => format!("CONTROL_{}_misread", codec.name),
        }
    }

    /// The codec's name without how it is used; None for rows that code nothing.
    pub fn codec(&self) -> Option<&'static str> {
        match self {
            Subject::Identity | Subject::Noise => None,
            Subject::Coded { coder, .. } => Some(coder.name()),
            Subject::Control(codec) => Some(codec.name),
        }
    }

    /// Bits that one element of K and V takes over all layers, scales included. What stays raw counts as bf16;
    /// rows that code nothing at all hold f32.
    pub fn stored_bits(&self, geometry: &Geometry) -> f64 {
        match self {
            Subject::Identity | Subject::Noise => 32.0,
            Subject::Control(codec) => codec.stored_bits_per_element(geometry.d),
            Subject::Coded { coder, streams, .. } => {
                let of_layer = |layer| {
                    let of = |half| coder.stored_bits(half, layer, geometry.d);
                    let (k, v) = match streams {
                        Streams::K => (of(Stream::K), RAW_BITS),
                        Streams::V => (RAW_BITS, of(Stream::V)),
                        Streams::Cache | Streams::Both => (of(Stream::K), of(Stream::V)),
                    };
                    if self.codes_layer(layer, geometry.layers) { 0.5 * (k + v) } else { RAW_BITS }
                };
                (0..geometry.layers).map(of_layer).sum::<f64>() / geometry.layers as f64
            }
        }
    }

    /// Runs through the packed cache and its decode path.
    pub fn is_packed(&self, path: ReadPath) -> bool {
        path.packed()
            && matches!(
                self,
                Subject::Control(_)
                    | Subject::Coded { coder: Coder::Codec(_) | Coder::Preset(..), streams: Streams::Cache, .. }
            )
    }

    /// Whether this row codes a layer of `layers`.
    fn codes_layer(&self, layer: usize, layers: usize) -> bool {
        match self {
            Subject::Coded { skip, .. } => layer >= *skip && layer + skip < layers,
            _ => true,
        }
    }

    /// Bytes of a token of one kv head over all coded layers, by the codecs' own sizes; None where nothing is packed.
    pub fn token_bytes(&self, path: ReadPath, geometry: &Geometry) -> Option<u64> {
        let of_layer = |layer: usize| match self {
            Subject::Identity => Some(8 * geometry.d),
            Subject::Control(codec) if self.is_packed(path) => Some(codec.token_bytes(geometry.d)),
            Subject::Coded { coder, .. } if self.is_packed(path) => {
                coder.codec(layer).map(|codec| codec.token_bytes(geometry.d))
            }
            _ => None,
        };
        let layers = (0..geometry.layers).filter(|layer| self.codes_layer(*layer, geometry.layers));
        layers.map(|layer| of_layer(layer).map(|bytes| bytes as u64)).sum()
    }

    /// None for the noise row, which is the base attention itself.
    pub fn attention(
        &self,
        path: ReadPath,
        backend: &dyn Backend,
        geometry: Geometry,
        tokens: usize,
    ) -> Result<Option<Box<dyn Counted>>> {
        let own = if path.raw_own() { Own::Raw } else { Own::Coded };
        let simulated = |k, v| Simulated::new(geometry, k, v, own);
        let inner: Box<dyn Counted> = match *self {
            Subject::Identity => Box::new(Identity::new(geometry, tokens)),
            Subject::Noise => return Ok(None),
            Subject::Control(codec) if self.is_packed(path) => {
                Box::new(Coded::new(backend, codec, geometry, tokens)?.misreading())
            }
            Subject::Control(codec) => {
                let coder = Some(Coder::Codec(codec));
                Box::new(simulated(coder, coder).misreading())
            }
            Subject::Coded { coder: Coder::Codec(codec), .. } if self.is_packed(path) => {
                Box::new(Coded::new(backend, codec, geometry, tokens)?)
            }
            Subject::Coded { coder: Coder::Preset(_, Some(fitted)), .. } if self.is_packed(path) => {
                Box::new(Calibrated::new(fitted, geometry, tokens)?)
            }
            Subject::Coded { coder, streams: Streams::K, .. } => Box::new(simulated(Some(coder), None)),
            Subject::Coded { coder, streams: Streams::V, .. } => Box::new(simulated(None, Some(coder))),
            Subject::Coded { coder, .. } => Box::new(simulated(Some(coder), Some(coder))),
        };
        Ok(Some(match *self {
            Subject::Coded { skip, .. } if skip > 0 => Box::new(Boundary::new(geometry, skip, inner)),
            _ => inner,
        }))
    }
}

/// The coder of that name.
pub fn coder(name: &str) -> Result<Coder> {
    if preset(name).is_some() {
        return Err(Error::Usage(format!("{name} is calibrated to a model's layers; only `ppl` runs it")));
    }
    if name == FP8 || name == "fp8" { Ok(Coder::Fp8) } else { Ok(Coder::Codec(codec(name)?)) }
}

/// identity and self first, then every codec with every choice of halves and layers, then the control.
pub fn subjects(names: &str, streams: &[Ask], skips: &[usize]) -> Result<Vec<Subject>> {
    let mut subjects = vec![Subject::Identity, Subject::Noise];
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let fixed = match name.split_once(':') {
            None if name == "identity" || name == "self" => continue,
            None => None,
            Some((_, "sim")) => Some(Streams::Both),
            Some((_, "k")) => Some(Streams::K),
            Some((_, "v")) => Some(Streams::V),
            Some((_, other)) => {
                return Err(Error::Usage(format!(
                    "{name}: {other:?} is no way to run a codec; write :k, :v, :sim or nothing"
                )));
            }
        };
        let plain = name.split(':').next().unwrap_or(name);
        let coder = preset(plain).map_or_else(|| coder(plain), |preset| Ok(Coder::Preset(preset, None)))?;
        let asked = |ask: &Ask| match ask {
            Ask::Both => Streams::Cache,
            Ask::K => Streams::K,
            Ask::V => Streams::V,
        };
        for streams in fixed.map_or_else(|| streams.iter().map(asked).collect(), |fixed| vec![fixed]) {
            for &skip in skips {
                let subject = Subject::Coded { coder, streams, skip };
                if subjects.iter().all(|s| s.name() != subject.name()) {
                    subjects.push(subject);
                }
            }
        }
    }
    let control = subjects.iter().find_map(|s| match s {
        Subject::Coded { coder: Coder::Codec(codec), .. } if codec.exact() => Some(*codec),
        _ => None,
    });
    subjects.push(Subject::Control(control.map_or_else(|| codec("int4"), Ok)?));
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, streams: &[Ask], skips: &[usize]) -> Vec<String> {
        subjects(text, streams, skips).unwrap().iter().map(Subject::name).collect()
    }

    #[test]
    fn mandatory_rows_surround_the_codecs() {
        assert_eq!(names("bf16", &[Ask::Both], &[0]), ["identity", "self", "bf16", "CONTROL_int4_misread"]);
        assert_eq!(
            names("e8w4, e8w4,int4:k", &[Ask::Both], &[0]),
            ["identity", "self", "e8w4", "int4:k", "CONTROL_e8w4_misread"]
        );
        assert_eq!(
            names("int4,fp8", &[Ask::Both, Ask::K], &[0, 1])[2..6],
            ["int4", "int4+skip1", "int4:k", "int4:k+skip1"]
        );
        assert!(subjects("int4:q", &[Ask::Both], &[0]).unwrap_err().to_string().contains(":sim"));
        assert_eq!(subjects("e8w9", &[Ask::Both], &[0]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn raw_halves_and_layers_count_as_bf16() {
        let geometry = Geometry { layers: 4, heads: 1, kv_heads: 1, d: 128, scale: 1.0 };
        let bits = |text: &str, skip| {
            let all = subjects(text, &[Ask::Both], &[skip]).unwrap();
            all[2].stored_bits(&geometry)
        };
        assert_eq!(bits("int4", 0), 4.125);
        assert_eq!(bits("int4:k", 0), (4.125 + 16.0) / 2.0);
        assert_eq!(bits("int4", 1), (4.125 + 16.0) / 2.0);
        assert_eq!(bits("int4", 2), 16.0);
        assert_eq!(bits("fp8", 0), 8.5);
    }
}
