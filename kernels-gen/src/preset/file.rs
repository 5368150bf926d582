//! The file of a calibration: one safetensors file a model, for all presets.
//!
//! Tensors, all f32: `speeds` `[d/2]`; `keys.basis`, `values.basis` `[layers, kv_heads, d, d]`; `keys.mean`, `keys.energy`,
//! `values.mean`, `values.energy` `[layers, kv_heads, d]`. The metadata has one entry, `calibration`, of lines NAME=VALUE:
//! format, version, segment, model, text, tokens, and for each preset the bands of its layers, `kvfuse-4=6+4+4+2/7+5+3+1 5+...`.
//! A file of version 1 has no bands of layers, one of version 2 has bands of other codes: the presets' uniform ones serve.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::{Bands, Calibration, Fit, PRESETS, Shape};
use crate::kernels::SEGMENT;

pub const FORMAT: &str = "kvfuse-calibration";
pub const VERSION: &str = "3";
/// Had no bands of layers, or bands of other codes.
const OLDER: [&str; 2] = ["1", "2"];
const ENTRY: &str = "calibration";

/// Why a calibration cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadCalibration {
    /// Not such a file, or a damaged one.
    Malformed {
        why: String,
    },
    OtherVersion {
        found: String,
    },
    OtherSegment {
        found: String,
    },
    OtherShape {
        found: Shape,
        wanted: Shape,
    },
    OtherModel {
        found: String,
        wanted: String,
    },
    Singular {
        layer: usize,
        head: usize,
    },
}

impl fmt::Display for BadCalibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const AGAIN: &str = "run `harness calibrate` for this model again";
        match self {
            Self::Malformed { why } => write!(f, "the calibration is malformed: {why}; {AGAIN}"),
            Self::OtherVersion { found } => write!(f, "the calibration has format version {found}, this program reads {}, {} and {VERSION}; {AGAIN}", OLDER[0], OLDER[1]),
            Self::OtherSegment { found } => {
                write!(f, "the calibration was made for segments of {found} tokens, the kernels take {SEGMENT}; {AGAIN}")
            }
            Self::OtherShape { found, wanted } => {
                write!(f, "the calibration is of a model with {} layers, {} kv heads and head dim {}; this one has {}, {} and {}; {AGAIN}", found.layers, found.kv_heads, found.d, wanted.layers, wanted.kv_heads, wanted.d)
            }
            Self::OtherModel { found, wanted } => {
                write!(f, "the calibration is of a model with hash {found:.12}, this one has {wanted:.12}; {AGAIN}")
            }
            Self::Singular { layer, head } => {
                write!(f, "the calibration's basis of layer {layer}, kv head {head} has no inverse; {AGAIN}")
            }
        }
    }
}

impl std::error::Error for BadCalibration {}

impl Calibration {
    /// The bytes of its file; the same calibration gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BadCalibration> {
        let malformed = |e: safetensors::SafeTensorError| BadCalibration::Malformed { why: e.to_string() };
        let Shape { layers, kv_heads, d } = self.shape;
        PRESETS.iter().try_for_each(|preset| self.check_bands(preset))?;
        let line = |(name, layers): (&String, &Vec<Bands>)| format!("{name}={}\n", layers.iter().map(Bands::to_string).collect::<Vec<_>>().join(" "));
        let presets: String = self.bands.iter().map(line).collect();
        let text = format!("format={FORMAT}\nversion={VERSION}\nsegment={SEGMENT}\nmodel={}\ntext={}\ntokens={}\n{presets}", self.model, self.text, self.tokens);
        let vectors = vec![layers, kv_heads, d];
        let matrices = vec![layers, kv_heads, d, d];
        let mut tensors = vec![("speeds".to_string(), vec![d / 2], bytes(&self.speeds))];
        for (name, fit) in [("keys", &self.keys), ("values", &self.values)] {
            tensors.push((format!("{name}.basis"), matrices.clone(), bytes(&fit.basis)));
            tensors.push((format!("{name}.mean"), vectors.clone(), bytes(&fit.mean)));
            tensors.push((format!("{name}.energy"), vectors.clone(), bytes(&fit.energy)));
        }
        let mut views = Vec::new();
        for (name, shape, data) in &tensors {
            views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data).map_err(malformed)?));
        }
        serialize(views, Some(HashMap::from([(ENTRY.to_string(), text)]))).map_err(malformed)
    }

    /// From the bytes of a file.
    pub fn from_bytes(file: &[u8]) -> Result<Calibration, BadCalibration> {
        let malformed = |why: String| BadCalibration::Malformed { why };
        let (_, header) = SafeTensors::read_metadata(file).map_err(|e| malformed(e.to_string()))?;
        let text = header.metadata().as_ref().and_then(|m| m.get(ENTRY)).ok_or_else(|| malformed(format!("it has no entry {ENTRY}")))?;
        let lines: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let line = |name: &str| lines.get(name).map(|v| v.to_string()).ok_or_else(|| malformed(format!("it has no line {name}=")));
        if line("format")? != FORMAT {
            return Err(malformed(format!("its format is {}", line("format")?)));
        }
        let version = line("version")?;
        if version != VERSION && !OLDER.contains(&version.as_str()) {
            return Err(BadCalibration::OtherVersion { found: version });
        }
        let mut bands = BTreeMap::new();
        for preset in PRESETS.iter().filter(|_| version == VERSION) {
            if let Some(text) = lines.get(preset.name) {
                let layers = text.split(' ').map(|one| one.parse().map_err(malformed)).collect::<Result<Vec<Bands>, _>>()?;
                bands.insert(preset.name.to_string(), layers);
            }
        }
        if line("segment")? != SEGMENT.to_string() {
            return Err(BadCalibration::OtherSegment { found: line("segment")? });
        }
        let tensors = SafeTensors::deserialize(file).map_err(|e| malformed(e.to_string()))?;
        let means = tensors.tensor("keys.mean").map_err(|e| malformed(e.to_string()))?;
        let &[layers, kv_heads, d] = means.shape() else {
            return Err(malformed(format!("tensor keys.mean has shape {:?}, not [layers, kv_heads, d]", means.shape())));
        };
        let read = |name: &str, wanted: &[usize]| floats(&tensors, name, wanted);
        let fit = |name: &str| -> Result<Fit, BadCalibration> {
            let own = |part: &str, wanted: &[usize]| read(&format!("{name}.{part}"), wanted);
            let energy = own("energy", &[layers, kv_heads, d])?;
            if energy.iter().any(|e| *e <= 0.0) {
                return Err(malformed(format!("{name}.energy holds a value that is not positive")));
            }
            Ok(Fit { basis: own("basis", &[layers, kv_heads, d, d])?, mean: own("mean", &[layers, kv_heads, d])?, energy })
        };
        let calibration = Calibration {
            shape: Shape { layers, kv_heads, d },
            model: line("model")?,
            text: line("text")?,
            tokens: line("tokens")?.parse().map_err(|_| malformed("tokens is no number".into()))?,
            speeds: read("speeds", &[d / 2])?,
            keys: fit("keys")?,
            values: fit("values")?,
            bands,
        };
        PRESETS.iter().try_for_each(|preset| calibration.check_bands(preset))?;
        Ok(calibration)
    }
}

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A tensor of finite f32.
fn floats(tensors: &SafeTensors, name: &str, wanted: &[usize]) -> Result<Vec<f32>, BadCalibration> {
    let malformed = |why: String| BadCalibration::Malformed { why };
    let tensor = tensors.tensor(name).map_err(|e| malformed(e.to_string()))?;
    if tensor.shape() != wanted || tensor.dtype() != Dtype::F32 {
        return Err(malformed(format!("tensor {name} is {:?} {:?}, not F32 {wanted:?}", tensor.dtype(), tensor.shape())));
    }
    let values: Vec<f32> = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(values),
        false => Err(malformed(format!("tensor {name} holds a value that is not finite"))),
    }
}
