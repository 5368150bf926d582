//! What a config.json describes: a dense decoder, or one that caches rows.

use std::path::Path;

use serde_json::Value;

use super::{Config, v4};
use crate::attention::Geometry;
use crate::error::{Error, Result};

/// The model_type of configs that `v4` reads.
const ROWS: &str = "deepseek_v4";

#[derive(Clone, Debug)]
pub enum Architecture {
    Dense(Config),
    V4(v4::Config),
}

impl Architecture {
    pub fn read(path: &Path) -> Result<Architecture> {
        let text = std::fs::read_to_string(path).map_err(Error::reading(path))?;
        let config: Value = serde_json::from_str(&text).map_err(|e| Error::malformed(path, e.to_string()))?;
        match config["model_type"] == ROWS {
            true => Ok(Architecture::V4(v4::Config::read(path)?)),
            false => Ok(Architecture::Dense(Config::read(path)?)),
        }
    }

    pub fn vocab(&self) -> usize {
        match self {
            Architecture::Dense(config) => config.vocab_size,
            Architecture::V4(config) => config.vocab_size,
        }
    }

    /// The longest context.
    pub fn positions(&self) -> usize {
        match self {
            Architecture::Dense(config) => config.positions(),
            Architecture::V4(config) => config.max_position_embeddings,
        }
    }

    /// f32 numbers of a token between two layers.
    pub fn state(&self) -> usize {
        match self {
            Architecture::Dense(config) => config.hidden_size,
            Architecture::V4(config) => config.hidden_size * config.hc_mult,
        }
    }

    /// A row serves all heads: it counts as one kv head.
    pub fn geometry(&self) -> Geometry {
        match self {
            Architecture::Dense(config) => Geometry::of(config),
            Architecture::V4(config) => Geometry { layers: config.num_hidden_layers, heads: config.num_attention_heads, kv_heads: 1, d: config.head_dim, scale: 1.0 / (config.head_dim as f32).sqrt() },
        }
    }
}
