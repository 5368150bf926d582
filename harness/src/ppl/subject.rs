//! The rows of a table: the mandatory ones that prove the measurement, and the codecs between them.

use kernels_gen::{kivi, pca};
use kernels_gen::preset::preset;
use kernels_gen::registry::{CodecInfo, codec};

use super::ReadPath;
pub use crate::attention::RAW_BITS;
use crate::attention::{
    ByLayer, Calibrated, Coded, Coder, Counted, FP8, Geometry, Identity, Own, RAW, Simulated, Sizes, Stream, Variant, Windowed,
};
use crate::backend::Backend;
use crate::calibrate::Without;
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
    Both,
    K,
    V,
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
    Control(&'static CodecInfo),
}

impl Subject {
    pub fn name(&self) -> String {
        match self {
            Subject::Identity => "identity".into(),
            Subject::Noise => "self".into(),
            Subject::Coded { coder, streams, skip, own } => {
                let streams = match streams {
                    Streams::Cache => "",
                    Streams::Both => ":sim",
                    Streams::K => ":k",
                    Streams::V => ":v",
                };
                let skip = if *skip == 0 { String::new() } else { format!("+skip{skip}") };
                let own: String = own.iter().map(|(layer, coder)| format!("+{layer}={}", coder.name())).collect();
                format!("{}{streams}{skip}{own}", coder.name())
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
        self.bits(geometry, f64::NAN)
    }

    /// `measured` are those of the coded halves of a codec without fixed sizes.
    fn bits(&self, geometry: &Geometry, measured: f64) -> f64 {
        match self {
            Subject::Identity | Subject::Noise => 32.0,
            Subject::Control(codec) => codec.stored_bits_per_element(geometry.d),
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
                        Streams::Cache | Streams::Both => (of(Stream::K), of(Stream::V)),
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
        path.packed()
            && matches!(
                self,
                Subject::Control(_)
                    | Subject::Coded { coder: Coder::Codec(_) | Coder::Preset(..), streams: Streams::Cache, .. }
            )
    }

    /// What codes a layer, of `layers`; None where it stays raw.
    fn coder_of(&self, layer: usize, layers: usize) -> Option<Coder> {
        match self {
            Subject::Coded { coder, skip, own, .. } => {
                let coder = own.iter().find(|(at, _)| *at == layer).map_or(*coder, |(_, coder)| *coder);
                let inside = layer >= *skip && layer + skip < layers;
                (inside && !matches!(coder, Coder::Raw)).then_some(coder)
            }
            Subject::Control(codec) => Some(Coder::Codec(codec)),
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

    /// Bytes of a token of one kv head over all coded layers, by the codecs' own sizes; None where nothing is packed.
    pub fn token_bytes(&self, path: ReadPath, geometry: &Geometry) -> Option<u64> {
        let packed = |layer| self.coder_of(layer, geometry.layers)?.codec(layer);
        let layers = 0..geometry.layers;
        match self {
            Subject::Identity => Some((8 * geometry.d * geometry.layers) as u64),
            _ if !self.is_packed(path) => None,
            _ => Some(layers.filter_map(packed).map(|codec| codec.token_bytes(geometry.d) as u64).sum()),
        }
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
        let all: Vec<usize> = (0..geometry.layers).collect();
        let simulated = |k, v| Simulated::new(geometry, k, v, own);
        Ok(Some(match *self {
            Subject::Identity => Box::new(Identity::new(geometry, tokens)),
            Subject::Noise => return Ok(None),
            Subject::Control(codec) if self.is_packed(path) => {
                Box::new(Coded::new(backend, codec, geometry, all, tokens)?.misreading())
            }
            Subject::Control(codec) => {
                let coder = Some(Coder::Codec(codec));
                Box::new(simulated(coder, coder).misreading())
            }
            Subject::Coded { streams, .. } => {
                let one = |coder: Coder, layers: Vec<usize>| -> Result<Box<dyn Counted>> {
                    Ok(match (coder, streams) {
                        (Coder::Codec(codec), Streams::Cache) if path.packed() => {
                            Box::new(Coded::new(backend, codec, geometry, layers, tokens)?)
                        }
                        (Coder::Preset(_, Some(fitted)), Streams::Cache) if path.packed() => {
                            Box::new(Calibrated::new(backend, fitted, geometry, &layers, tokens)?)
                        }
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

/// The coder of that name.
pub fn coder(name: &str) -> Result<Coder> {
    if preset(name).is_some() {
        return Err(Error::Usage(format!("{name} is calibrated to a model's layers; only `ppl` runs it")));
    }
    if Variant::of_static(name).is_some() || pca::codec(name).is_some() {
        return Err(Error::Usage(format!("{name} is fitted to a model's rows; only `ppl` runs it")));
    }
    if kivi::codec(name).is_some() {
        return Err(Error::Usage(format!("{name} keeps its latest tokens raw; only `ppl` runs it")));
    }
    match name {
        "fp8" => Ok(Coder::Codec(codec(FP8)?)),
        RAW => Ok(Coder::Raw),
        _ => Ok(Coder::Codec(codec(name)?)),
    }
}

/// The coder of that name, calibrated ones too; they get their maps later.
pub fn any_coder(name: &str, without: Option<Without>) -> Result<Coder> {
    if let Some(preset) = preset(name) {
        return Ok(Coder::Preset(Variant::of(preset, without), None));
    }
    if let Some(variant) = Variant::of_static(name) {
        return Ok(Coder::Preset(variant, None));
    }
    if let Some(found) = kivi::codec(name) {
        return Ok(Coder::Kivi(Box::leak(Box::new(found))));
    }
    match pca::codec(name) {
        Some(found) => Ok(Coder::Pca(Box::leak(Box::new(found?)), None)),
        None => coder(name),
    }
}

fn only_calibrated(name: &str) -> Error {
    Error::Usage(format!("{name}: only kvfuse codecs have parts to leave out"))
}

/// identity and self first, then every codec with every choice of halves, of layers that stay raw and of layers with a
/// coder of their own, then the control.
pub fn subjects(names: &str, streams: &[Ask], skips: &[usize], layers: &[Layers]) -> Result<Vec<Subject>> {
    let mut subjects = vec![Subject::Identity, Subject::Noise];
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let (plain, way) = name.split_once(':').map_or((name, None), |(plain, way)| (plain, Some(way)));
        let part = way.and_then(|way| Without::ALL.into_iter().find(|part| part.name() == way));
        let parts: Vec<Option<Without>> = match (preset(plain), way) {
            (Some(_), Some("ablate")) => std::iter::once(None).chain(Without::ALL.map(Some)).collect(),
            (Some(_), _) => vec![part],
            (None, Some("ablate")) => return Err(only_calibrated(name)),
            (None, _) if part.is_some() => return Err(only_calibrated(name)),
            _ => vec![None],
        };
        let fixed = match name.split_once(':') {
            Some((_, "ablate")) => None,
            Some(_) if part.is_some() => None,
            None if name == "identity" || name == "self" => continue,
            None => None,
            Some((_, "sim")) => Some(Streams::Both),
            Some((_, "k")) => Some(Streams::K),
            Some((_, "v")) => Some(Streams::V),
            Some((_, other)) => {
                return Err(Error::Usage(format!(
                    "{name}: {other:?} is no way to run a codec; write :k, :v, :sim or nothing, and {} or :ablate for all \
                     of them behind a kvfuse codec",
                    Without::ALL.map(|part| format!(":{}", part.name())).join(", ")
                )));
            }
        };
        let coders = parts.into_iter().map(|part| any_coder(plain, part)).collect::<Result<Vec<Coder>>>()?;
        // no kernel reads the bytes of these
        let blocks = coders.iter().any(|coder| matches!(coder, Coder::Pca(..) | Coder::Kivi(_)));
        let whole = if blocks { Streams::Both } else { Streams::Cache };
        let asked = |ask: &Ask| match ask {
            Ask::Both => whole,
            Ask::K => Streams::K,
            Ask::V => Streams::V,
        };
        for streams in fixed.map_or_else(|| streams.iter().map(asked).collect(), |fixed| vec![fixed]) {
            let skipping = skips.iter().map(|skip| (*skip, Layers::default()));
            let settings = skipping.chain(layers.iter().map(|own| (0, *own)));
            for (coder, (skip, own)) in settings.flat_map(|setting| coders.iter().map(move |coder| (*coder, setting))) {
                let subject = Subject::Coded { coder, streams, skip, own };
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
        subjects(text, streams, skips, &[]).unwrap().iter().map(Subject::name).collect()
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
        assert!(subjects("int4:q", &[Ask::Both], &[0], &[]).unwrap_err().to_string().contains(":sim"));
        assert_eq!(names("pca_v13,pca_b3:k", &[Ask::Both], &[1])[2..4], ["pca_v13:sim+skip1", "pca_b3:k+skip1"]);
        assert_eq!(
            names("pca_static_4,pca_static_4:sim", &[Ask::Both], &[0])[2..4],
            ["pca_static_4", "pca_static_4:sim"]
        );
        assert_eq!(names("kivi_k2v2,kivi_k4v4:v", &[Ask::Both], &[0])[2..4], ["kivi_k2v2:sim", "kivi_k4v4:v"]);
        assert!(subjects("pca_static_5", &[Ask::Both], &[0], &[]).is_err());
        assert_eq!(subjects("pca_b9", &[Ask::Both], &[0], &[]).unwrap_err().exit_code(), 2);
        assert_eq!(subjects("e8w9", &[Ask::Both], &[0], &[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn parts_are_left_out_one_by_one() {
        let all = names("kvfuse-4:ablate,kvfuse-4:no-mean,kvfuse-3:k", &[Ask::Both], &[0]);
        let parts = ["no-mean", "no-metric", "no-segments", "no-hadamard", "no-layers", "no-widths"];
        let wanted = parts.map(|part| format!("kvfuse-4:{part}"));
        assert_eq!((&all[2][..], &all[3..9], &all[9][..]), ("kvfuse-4", &wanted[..], "kvfuse-3:k"));
        for name in ["int4:ablate", "int4:no-mean"] {
            assert!(subjects(name, &[Ask::Both], &[0], &[]).unwrap_err().to_string().contains("only kvfuse"));
        }
    }

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
        assert_eq!(all[3].token_bytes(ReadPath::All, &geometry), Some(2 * 66 * 2 + 256 * 2));
        assert_eq!(all[5].token_bytes(ReadPath::All, &geometry), None);
    }
}
