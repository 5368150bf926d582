//! The forward pass of one passage through several attentions at once, layer by layer: a layer's weights are needed
//! once for all of them, so a model larger than memory is measured with one layer in memory at a time.
//! Going layer by layer changes no number: what a layer does to a chunk of tokens depends only on what the layer
//! below made of the tokens up to it.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use candle_core::{Device, Tensor};

use super::layer::{Layer, normed, product};
use super::rope::Rope;
use super::{Attention, Config, FileDigest, Weights};
use crate::error::{Error, Result};

pub struct Model {
    pub config: Config,
    pub digests: Vec<FileDigest>,
    weights: Weights,
    norm: Vec<f32>,
    /// None: read when needed, dropped afterwards
    resident: Option<Resident>,
}

struct Resident {
    layers: Vec<Rc<Layer>>,
    /// [vocab, hidden]
    head: Tensor,
}

/// [position, vocab]
pub struct Logits {
    pub vocab: usize,
    pub values: Vec<f32>,
}

/// One way through the model: the tokens of the passage in chunks, attended to in one way.
pub struct Lane<'a> {
    pub chunks: Vec<Range<usize>>,
    pub attention: &'a mut dyn Attention,
    /// below this layer the lane is the first one's and its attention is not asked
    pub from: usize,
    /// spent in this lane's layers
    pub seconds: f64,
}

impl<'a> Lane<'a> {
    /// All tokens as one chunk.
    pub fn whole(tokens: usize, attention: &'a mut dyn Attention) -> Lane<'a> {
        Lane::new(std::iter::once(0..tokens).collect(), attention)
    }

    pub fn new(chunks: Vec<Range<usize>>, attention: &'a mut dyn Attention) -> Lane<'a> {
        Lane { chunks, attention, from: 0, seconds: 0.0 }
    }
}

impl Model {
    /// All weights in memory.
    pub fn load(folder: &Path) -> Result<Model> {
        let mut model = Model::stream(folder)?;
        let layers = (0..model.config.num_hidden_layers).map(|index| model.layer(index)).collect::<Result<_>>()?;
        model.resident = Some(Resident { layers, head: model.head()? });
        Ok(model)
    }

    /// Weights stay on disk; a layer is read when it is its turn.
    pub fn stream(folder: &Path) -> Result<Model> {
        let config_path = folder.join("config.json");
        let config = Config::read(&config_path)?;
        let weights = Weights::read(folder)?;
        let norm = weights.tensor("model.norm.weight", &[config.hidden_size])?;
        let digests = super::digests(&config_path, &weights)?;
        Ok(Model { config, digests, weights, norm, resident: None })
    }

    /// What each lane makes of the passage: rows [to - from, hidden] for `score`. Ids must be inside the vocabulary;
    /// a lane that begins at a later layer has the chunks of the first.
    /// `told` hears of every layer that begins.
    pub fn hidden(&self, ids: &[u32], score: Range<usize>, lanes: &mut [Lane], told: impl Fn(usize)) -> Result<Vec<Tensor>> {
        let config = &self.config;
        let scaling = config.rope_scaling().map_err(Error::Data)?;
        let rope = Rope::new(config.rope_theta(), scaling, config.head_dim(), ids.len());
        let embedded = self.weights.rows("model.embed_tokens.weight", &[config.vocab_size, config.hidden_size], ids)?;
        let embedded = Tensor::from_vec(embedded, (ids.len(), config.hidden_size), &Device::Cpu)?;
        let chunked = |lane: &Lane| -> Result<Vec<Tensor>> { lane.chunks.iter().map(|chunk| Ok(embedded.narrow(0, chunk.start, chunk.len())?.contiguous()?)).collect() };
        let mut states = lanes.iter().map(chunked).collect::<Result<Vec<_>>>()?;
        for index in 0..config.num_hidden_layers {
            told(index);
            let layer = self.layer(index)?;
            let first = states.first().cloned().unwrap_or_default();
            for (lane, state) in lanes.iter_mut().zip(&mut states) {
                if lane.from > index {
                    continue;
                }
                if lane.from == index && index > 0 {
                    state.clone_from(&first);
                }
                let clock = Instant::now();
                for (chunk, x) in lane.chunks.iter().zip(state) {
                    *x = layer.forward(config, &rope, (index, chunk.start), x, lane.attention)?;
                }
                lane.seconds += clock.elapsed().as_secs_f64();
            }
        }
        let rows = |state: Vec<Tensor>| -> Result<Tensor> {
            let x = Tensor::cat(&state, 0)?.narrow(0, score.start, score.len())?.contiguous()?;
            normed(&x, &self.norm, config.rms_norm_eps)
        };
        states.into_iter().map(rows).collect()
    }

    /// Logits of positions `from..to`, all tokens as one chunk.
    pub fn logits(&self, ids: &[u32], from: usize, to: usize, attention: &mut dyn Attention) -> Result<Logits> {
        let mut lanes = [Lane::whole(ids.len(), attention)];
        let rows = self.hidden(ids, from..to, &mut lanes, |_| ())?;
        self.predict(&self.head()?, &rows[0])
    }

    /// The output embedding [vocab, hidden].
    pub fn head(&self) -> Result<Tensor> {
        if let Some(resident) = &self.resident {
            return Ok(resident.head.clone());
        }
        let shape = [self.config.vocab_size, self.config.hidden_size];
        Ok(Tensor::from_vec(self.weights.tensor(self.config.head_name(), &shape)?, &shape, &Device::Cpu)?)
    }

    /// Logits of rows that `hidden` gave.
    pub fn predict(&self, head: &Tensor, rows: &Tensor) -> Result<Logits> {
        let values = product(rows, head)?.flatten_all()?.to_vec1()?;
        Ok(Logits { vocab: self.config.vocab_size, values })
    }

    /// For a forward pass elsewhere.
    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// All weights are in memory, not one layer's at a time.
    pub(crate) fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    fn layer(&self, index: usize) -> Result<Rc<Layer>> {
        match &self.resident {
            Some(resident) => Ok(resident.layers[index].clone()),
            None => Ok(Rc::new(Layer::read(&self.weights, &self.config, index)?)),
        }
    }
}
