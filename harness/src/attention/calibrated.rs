//! A calibrated codec on the measured read path: keys and values of every token as codes in a paged cache, in the
//! coordinates that were fitted to their layer and head, and every query at position p reads the codes 0..=p.

use std::fmt;

use kernels_gen::layout::{Operand, TILE};
use kernels_gen::preset::{BadCalibration, Bands, Calibration, LayerMaps, Preset, Turns};
use kernels_gen::reference;
use kernels_gen::registry::CodecInfo;
use rayon::prelude::*;

use super::{Counted, Distortion, Geometry, History, PAGE_TOKENS, Pages, Stream, Tally};
use crate::backend::{Backend, CodedCache};
use crate::error::{Error, Result};
use crate::model::{Attention, Rows};

/// A preset with the bands and maps of one model's layers.
pub struct Fitted {
    pub preset: &'static Preset,
    layers: Vec<(&'static CodecInfo, LayerMaps)>,
    bands: Vec<Bands>,
    pub turns: Turns,
}

impl fmt::Debug for Fitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} layers", self.preset.name, self.layers.len())
    }
}

impl Fitted {
    /// For contexts up to `tokens`.
    pub fn new(calibration: &Calibration, preset: &'static Preset, tokens: usize) -> Result<Fitted> {
        let layers = (0..calibration.shape.layers).map(|layer| Ok((calibration.codec(preset, layer)?, calibration.maps(preset, layer)?)));
        let layers = layers.collect::<std::result::Result<Vec<_>, BadCalibration>>()?;
        let bands = (0..calibration.shape.layers).map(|layer| calibration.bands(preset, layer)).collect();
        Ok(Fitted { preset, layers, bands, turns: calibration.turns(tokens) })
    }

    pub fn layer(&self, layer: usize) -> reference::Calibrated<'_> {
        let (codec, maps) = &self.layers[layer];
        reference::Calibrated { codec, maps, turns: &self.turns }
    }

    /// How each layer's cache is coded.
    pub fn codecs(&self) -> impl Iterator<Item = &'static CodecInfo> + '_ {
        self.layers.iter().map(|(codec, _)| *codec)
    }

    /// Keys or values of a layer `[token, kv head, d]`, the first token at position `start`, coded and decoded again.
    pub fn round_trip(&self, half: Stream, layer: usize, start: usize, x: &[f32]) -> Vec<f32> {
        let operand = if half == Stream::K { Operand::K } else { Operand::V };
        let coordinates = self.coordinates(operand, layer, start, x);
        let layer = self.layer(layer);
        let (d, heads) = (layer.maps.d, layer.maps.kv_heads);
        let row = |(index, y): (usize, &[f32])| {
            let coded = layer.codec.half(operand).encode_row(y);
            layer.decode_row(operand, &coded, index % heads, start + index / heads)
        };
        coordinates.par_chunks(d).enumerate().flat_map_iter(row).collect()
    }

    /// As `round_trip`, with the error of one band and the other bands exact.
    pub fn one_band(&self, half: Stream, band: usize, layer: usize, start: usize, x: &[f32]) -> Vec<f32> {
        let operand = if half == Stream::K { Operand::K } else { Operand::V };
        let coordinates = self.coordinates(operand, layer, start, x);
        let (bands, layer) = (&self.bands[layer], self.layer(layer));
        let (d, heads, codes) = (layer.maps.d, layer.maps.kv_heads, layer.codec.half(operand));
        let (order, count) = (bands.order(operand, d), if half == Stream::K { bands.keys.len() } else { bands.values.len() });
        let own = band * d / count..(band + 1) * d / count;
        let row = |(index, y): (usize, &[f32])| {
            let mut mixed = codes.decode_row(&codes.encode_row(y), d);
            for other in order[..own.start].iter().chain(&order[own.end..]) {
                mixed[*other] = y[*other];
            }
            layer.row_of(operand, &mixed, index % heads, start + index / heads)
        };
        coordinates.par_chunks(d).enumerate().flat_map_iter(row).collect()
    }

    /// Bands and maps of all layers.
    pub fn all_parts(&self) -> &[(&'static CodecInfo, LayerMaps)] {
        &self.layers
    }

    /// Bands and maps of a layer.
    pub fn parts(&self, layer: usize) -> &(&'static CodecInfo, LayerMaps) {
        &self.layers[layer]
    }

    /// Rows in the coordinates that are coded.
    pub fn coordinates(&self, operand: Operand, layer: usize, start: usize, x: &[f32]) -> Vec<f32> {
        let layer = self.layer(layer);
        let width = layer.maps.d * layer.maps.kv_heads;
        let token = |(index, row): (usize, &[f32])| match operand {
            Operand::K => layer.keys(row, &[start + index]),
            Operand::V => layer.values(row),
        };
        x.par_chunks(width).enumerate().flat_map_iter(token).collect()
    }
}

/// One passage through a calibrated cache.
pub struct Calibrated {
    fitted: &'static Fitted,
    geometry: Geometry,
    /// of the whole passage
    tokens: usize,
    pages: Pages,
    /// one a layer, each with the layout of its own bands; None for layers that are not coded so
    caches: Vec<Option<Box<dyn CodedCache>>>,
    /// what was given to the cache, to be compared once a layer is complete
    given: History,
    tally: Tally,
}

impl Calibrated {
    /// For the layers of that list.
    pub fn new(backend: &dyn Backend, fitted: &'static Fitted, geometry: Geometry, layers: &[usize], tokens: usize) -> Result<Calibrated> {
        let (pages, one) = (Pages::new(tokens, PAGE_TOKENS), Geometry { layers: 1, ..geometry });
        let cache = |layer| layers.contains(&layer).then(|| backend.calibrated((fitted, layer), &one, &pages)).transpose();
        let caches = (0..geometry.layers).map(cache).collect::<Result<Vec<_>>>()?;
        let tally = Tally { allocated: caches.iter().flatten().map(|cache| cache.allocated()).sum(), ..Tally::default() };
        Ok(Calibrated { fitted, geometry, tokens, pages, caches, given: History::default(), tally })
    }

    fn cache(&self, layer: usize) -> Result<&dyn CodedCache> {
        self.caches.get(layer).and_then(Option::as_deref).ok_or_else(|| no_cache(layer))
    }

    /// Error of all rows of a layer, read back from the bytes of the cache.
    fn errors(&self, layer: usize) -> Result<[Distortion; 2]> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (maps, bytes) = (self.fitted.layer(layer), self.cache(layer)?.bytes(0)?);
        let pages = &self.pages;
        let [k, v] = self.given.layer(layer);
        let pair = |index: usize| {
            let (token, head) = (index / kv_heads, index % kv_heads);
            [(Operand::K, k), (Operand::V, v)].map(|(operand, x)| {
                let row = pages.row(maps.codec, &bytes, (kv_heads, d), (token, head), operand);
                Distortion::of_row(&x[index * d..][..d], &maps.decode_row(operand, &row, head, token))
            })
        };
        Ok(Distortion::of_pairs(k.len() / d, pair))
    }
}

fn no_cache(layer: usize) -> Error {
    Error::Invalid { reasons: vec![format!("layer {layer} has no calibrated cache")] }
}

impl Attention for Calibrated {
    fn attend(&mut self, rows: &Rows) -> Result<Vec<f32>> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let (pages, coded) = (&self.pages, self.fitted.layer(rows.layer).codec);
        let cache = self.caches.get_mut(rows.layer).and_then(Option::as_mut).ok_or_else(|| no_cache(rows.layer))?;
        cache.store(0, rows.start, rows.k, rows.v, pages)?;
        self.tally.count(rows, coded.token_bytes(d) as u64, kv_heads, TILE);
        self.given.push(rows.layer, rows.k, rows.v);
        if rows.start + rows.tokens == self.tokens {
            let [k, v] = self.errors(rows.layer)?;
            let tally = self.tally.layer(rows.layer);
            tally.k += k;
            tally.v += v;
        }
        let lens: Vec<i32> = (1..=rows.tokens).map(|i| (rows.start + i) as i32).collect();
        let cache = self.caches.get_mut(rows.layer).and_then(Option::as_mut).ok_or_else(|| no_cache(rows.layer))?;
        cache.attend(0, rows.q, &lens, &self.pages)
    }
}

impl Counted for Calibrated {
    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}
