//! The forward pass of one passage over several caches at once, layer by layer, as the dense decoder's: a layer's weights
//! are needed once for all of them.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use candle_core::{Device, Tensor};

use super::checkpoint::Checkpoint;
use super::layer::{Kept, Layer};
use super::streams::Connection;
use super::turns::Turns;
use super::{Config, RowCache};
use crate::error::{Error, Result};
use crate::model::layer::{normed, product};
use crate::model::{FileDigest, Logits, Weights, digests};

pub struct Model {
    pub config: Config,
    pub digests: Vec<FileDigest>,
    checkpoint: Checkpoint,
    norm: Vec<f32>,
    close: Connection,
    /// None: read when needed, dropped afterwards
    resident: Option<Vec<Rc<Layer>>>,
}

/// One way through the model: the tokens of the passage in chunks, their rows in one cache.
pub struct Lane<'a> {
    pub chunks: Vec<Range<usize>>,
    pub cache: &'a mut dyn RowCache,
    /// spent in this lane's layers
    pub seconds: f64,
}

impl<'a> Lane<'a> {
    pub fn new(chunks: Vec<Range<usize>>, cache: &'a mut dyn RowCache) -> Lane<'a> {
        Lane { chunks, cache, seconds: 0.0 }
    }
}

impl Model {
    /// All weights in memory.
    pub fn load(folder: &Path) -> Result<Model> {
        let mut model = Model::stream(folder)?;
        model.resident = Some((0..model.config.num_hidden_layers).map(|index| model.layer(index)).collect::<Result<_>>()?);
        Ok(model)
    }

    /// Weights stay on disk; a layer is read when it is its turn.
    pub fn stream(folder: &Path) -> Result<Model> {
        let path = folder.join("config.json");
        let config = Config::read(&path)?;
        let checkpoint = Checkpoint::new(Weights::read(folder)?);
        let norm = checkpoint.tensor("norm.weight", &[config.hidden_size])?;
        let close = Connection::of_head(&checkpoint, &config)?;
        let digests = digests(&path, &checkpoint.weights)?;
        Ok(Model { config, digests, checkpoint, norm, close, resident: None })
    }

    /// What each lane makes of the passage: rows [to - from, hidden] for `score`. Ids must be inside the vocabulary.
    /// `told` hears of every layer that begins.
    pub fn hidden(&self, ids: &[u32], score: Range<usize>, lanes: &mut [Lane], told: impl Fn(usize)) -> Result<Vec<Tensor>> {
        let config = &self.config;
        let (mult, hidden) = (config.hc_mult, config.hidden_size);
        let turns = |compresses| -> Result<Turns> {
            let (theta, scaling) = config.turns(compresses).map_err(Error::Data)?;
            Ok(Turns::new(theta, scaling, config.qk_rope_head_dim, ids.len()))
        };
        let turns = [turns(false)?, turns(true)?];
        let embedded = self.checkpoint.rows("embed.weight", &[config.vocab_size, hidden], ids)?;
        let streams: Vec<f32> = embedded.chunks(hidden).flat_map(|row| row.repeat(mult)).collect();
        let mut states: Vec<Vec<f32>> = lanes.iter().map(|_| streams.clone()).collect();
        for index in 0..config.num_hidden_layers {
            told(index);
            let (layer, turns) = (self.layer(index)?, &turns[usize::from(config.compressed(index).is_some())]);
            for (lane, state) in lanes.iter_mut().zip(&mut states) {
                let clock = Instant::now();
                let mut kept = Kept::default();
                for chunk in &lane.chunks {
                    let here = chunk.start * mult * hidden..chunk.end * mult * hidden;
                    let call = (chunk.start, &ids[chunk.clone()]);
                    let next = layer.forward(config, turns, call, &state[here.clone()], &mut kept, lane.cache)?;
                    state[here].copy_from_slice(&next);
                }
                lane.seconds += clock.elapsed().as_secs_f64();
            }
        }
        let rows = |state: Vec<f32>| -> Result<Tensor> {
            let scored = &state[score.start * mult * hidden..score.end * mult * hidden];
            let rows = Tensor::from_vec(self.close.close(config, scored)?, (score.len(), hidden), &Device::Cpu)?;
            normed(&rows, &self.norm, config.rms_norm_eps)
        };
        states.into_iter().map(rows).collect()
    }

    /// The output embedding [vocab, hidden].
    pub fn head(&self) -> Result<Tensor> {
        let shape = [self.config.vocab_size, self.config.hidden_size];
        let tied = self.config.tie_word_embeddings && !self.checkpoint.has("head.weight");
        let name = if tied { "embed.weight" } else { "head.weight" };
        Ok(Tensor::from_vec(self.checkpoint.tensor(name, &shape)?, &shape, &Device::Cpu)?)
    }

    /// Logits of rows that `hidden` gave.
    pub fn predict(&self, head: &Tensor, rows: &Tensor) -> Result<Logits> {
        let values = product(rows, head)?.flatten_all()?.to_vec1()?;
        Ok(Logits { vocab: self.config.vocab_size, values })
    }

    fn layer(&self, index: usize) -> Result<Rc<Layer>> {
        match &self.resident {
            Some(layers) => Ok(layers[index].clone()),
            None => Ok(Rc::new(Layer::read(&self.checkpoint.layer(index), &self.config, index)?)),
        }
    }
}
