//! What was fitted to a model, in device memory: the maps around the kernels of a calibrated codec.
//!
//! One for a model and codec, `8 d^2` bytes of integers and `6 d` f32 for each layer and kv head. Store and decode name a layer of it.

use std::fmt;

use kernels_gen::kernels::SEGMENT;
use kernels_gen::preset::{self, BadCalibration, LayerMaps, Shape, Turns};
use kernels_gen::registry::CodecInfo;

use crate::argument::{Misuse, agree, int, within};
use crate::codec::Codec;
use crate::cuda::{Arg, Device, Memory, Span};
use crate::error::Result;
use crate::page::PagedCache;

/// The maps of all layers of a model under a calibrated codec.
pub struct Calibration {
    codec: Codec,
    shape: Shape,
    /// With the codec of its own bands.
    layers: Vec<(Codec, [Memory; 2])>,
    turns: Memory,
    segments: usize,
}

/// A layer of a [`Calibration`], named by a store or a decode call.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    calibration: &'a Calibration,
    index: usize,
}

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calibration({}, {:?}, {} positions)", self.codec.name(), self.shape, self.positions())
    }
}

impl Calibration {
    /// From the bytes of a file that `harness calibrate` wrote, for sequences of up to `positions` tokens. `model`, if
    /// given, is the hash that the file must name. Slow: inverts two matrices for each layer and kv head.
    pub fn load(device: &Device, codec: Codec, file: &[u8], wanted: Shape, model: Option<&str>, positions: usize) -> Result<Self> {
        let (maps, turns) = fold(codec, file, wanted, model, positions)?;
        Calibration::upload(device, codec, &maps, &turns)
    }

    /// From the bands and maps of all layers, one at least, and the turns of all positions.
    pub fn upload(device: &Device, codec: Codec, layers: &[(&'static CodecInfo, LayerMaps)], turns: &Turns) -> Result<Self> {
        let preset = codec.calibrated()?;
        let Some((_, LayerMaps { d, kv_heads, .. })) = layers.first() else {
            return Err(Misuse::Other("a calibration of no layers; give the maps of each".into()).into());
        };
        let shape = Shape { layers: layers.len(), kv_heads: *kv_heads, d: *d };
        let one = |(info, maps): &(&'static CodecInfo, LayerMaps)| Ok((Codec::fitted(preset, info), [Memory::from_slice(device, &maps.packed())?, Memory::from_slice(device, &maps.scales())?]));
        let (layers, table) = (layers.iter().map(one).collect::<Result<Vec<_>>>()?, Memory::from_slice(device, &turns.packed())?);
        Ok(Calibration { codec, shape, layers, turns: table, segments: turns.pairs.len() / (d / 2) })
    }

    /// Layers, kv heads and head dim.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Tokens that a sequence may have: whole segments.
    pub fn positions(&self) -> usize {
        self.segments * SEGMENT
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().flat_map(|(_, maps)| maps).map(|maps| maps.bytes() as u64).sum::<u64>() + self.turns.bytes() as u64
    }

    /// Layer `index`, from 0.
    pub fn layer(&self, index: usize) -> Result<Layer<'_>> {
        within("layer", index, 0, self.layers.len() - 1)?;
        Ok(Layer { calibration: self, index })
    }
}

impl<'a> Layer<'a> {
    /// The codec of its own bands: its cache has that layout, its plans are prepared for it.
    pub fn codec(&self) -> Codec {
        self.calibration.layers[self.index].0
    }

    /// Fails unless it is of the plan's codec and the cache's shape.
    pub(crate) fn check(&self, codec: Codec, cache: &PagedCache<'_>) -> Result<()> {
        same(self.codec(), codec, self.index)?;
        let shape = self.calibration.shape;
        agree("kv_heads", cache.kv_heads, shape.kv_heads, "calibration")?;
        Ok(agree("head_dim", cache.head_dim, shape.d, "calibration")?)
    }

    /// i8 [4, kv_heads, 2, d, d].
    pub(crate) fn maps(&self) -> Span<'a> {
        self.calibration.layers[self.index].1[0].span()
    }

    /// f32 [4, kv_heads, d], then [2, kv_heads, d].
    pub(crate) fn scales(&self) -> Span<'a> {
        self.calibration.layers[self.index].1[1].span()
    }

    /// f32 [segments, 2, d / 2].
    pub(crate) fn turns(&self) -> Span<'a> {
        self.calibration.turns.span()
    }

    /// As kernels take them: `kernels::arguments::Fitted`.
    pub(crate) fn args(&self) -> Result<[Arg<'a>; 4]> {
        let segments = int("the segments of the calibration", self.segments())?;
        Ok([Arg::Ptr(self.turns()), Arg::Ptr(self.maps()), Arg::Ptr(self.scales()), Arg::I32(segments)])
    }

    pub(crate) fn segments(&self) -> usize {
        self.calibration.segments
    }

    /// Fails unless sequences of `capacity` tokens have their turns.
    pub(crate) fn reaches(&self, capacity: usize) -> Result<()> {
        reaches(capacity, self.segments())
    }
}

/// Fails unless `segments` hold sequences of `capacity` tokens.
pub(crate) fn reaches(capacity: usize, segments: usize) -> Result<()> {
    if capacity.div_ceil(SEGMENT) <= segments {
        return Ok(());
    }
    let text = format!("the page table names {capacity} tokens a sequence and the calibration was loaded for {}; load it for more positions", segments * SEGMENT);
    Err(Misuse::Other(text).into())
}

/// Fails unless `wanted` is the codec of the bands of layer `index`, `own`.
pub(crate) fn same(own: Codec, wanted: Codec, index: usize) -> Result<()> {
    if wanted.calibrated().is_err() {
        return Err(needs(wanted).into());
    }
    if own.name() != wanted.name() {
        let text = format!("the calibration was loaded for {} and this is {}; load it for {1}", own.name(), wanted.name());
        return Err(Misuse::Other(text).into());
    }
    if own.info().name == wanted.info().name {
        return Ok(());
    }
    let text = format!("layer {index} is coded in the bands {} and this {} is of {}; take the codec that the calibration gives for the layer", own.info().name, wanted.name(), wanted.info().name);
    Err(Misuse::Other(text).into())
}

/// The bands and maps of all layers.
pub(crate) type Layers = Vec<(&'static CodecInfo, LayerMaps)>;

/// Those of a file, and the turns of all positions; see [`Calibration::load`].
pub(crate) fn fold(codec: Codec, file: &[u8], wanted: Shape, model: Option<&str>, positions: usize) -> Result<(Layers, Turns)> {
    let preset = codec.calibrated()?;
    within("positions", positions, 1, i32::MAX as usize)?;
    let fitted = preset::Calibration::from_bytes(file)?;
    fitted.check(model.unwrap_or(&fitted.model), wanted)?;
    let one = |layer| Ok((fitted.codec(preset, layer)?, fitted.maps(preset, layer)?));
    let layers = (0..wanted.layers).map(one).collect::<std::result::Result<Layers, BadCalibration>>()?;
    Ok((layers, fitted.turns(positions)))
}

/// Why a layer is missing, or too many.
pub(crate) fn needs(codec: Codec) -> Misuse {
    match codec.calibrated() {
        Ok(_) => Misuse::Other(format!("{} codes in the coordinates of a model's layers; name a layer of its calibration", codec.name())),
        Err(_) => Misuse::Other(format!("{} takes no calibration; leave it out", codec.name())),
    }
}
