//! The forward pass of one passage through several attentions at once, layer by layer, as on the CPU.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use runtime::Memory;

use super::layer::{DeviceLayer, Passage};
use super::{Attend, Machine};
use crate::error::Result;
use crate::model::{Config, Model, Rope};

pub struct Forward {
    pub machine: Rc<Machine>,
    norm: Memory,
    /// empty where layers are read when needed, and dropped afterwards
    layers: Vec<Rc<DeviceLayer>>,
    /// [vocab, hidden]
    pub(super) head: Memory,
    /// of so many positions
    turns: RefCell<Option<(usize, Rc<Memory>)>>,
}

/// One way through the model: the tokens of the passage in chunks, attended to in one way.
pub struct Lane<'a> {
    pub chunks: Vec<Range<usize>>,
    pub attention: &'a mut dyn Attend,
    /// spent in this lane's layers
    pub seconds: f64,
}

impl Forward {
    /// The weights of `model`, all of them where the model keeps all in memory.
    pub fn new(machine: Rc<Machine>, model: &Model) -> Result<Forward> {
        let (config, weights) = (&model.config, model.weights());
        let norm = machine.floats(&weights.tensor("model.norm.weight", &[config.hidden_size])?)?;
        let head = machine.floats(&weights.tensor(config.head_name(), &[config.vocab_size, config.hidden_size])?)?;
        let indices = 0..if model.is_resident() { config.num_hidden_layers } else { 0 };
        let read = |index| Ok(Rc::new(DeviceLayer::read(&machine, weights, config, index)?));
        let layers = indices.map(read).collect::<Result<_>>()?;
        Ok(Forward { machine, norm, layers, head, turns: RefCell::new(None) })
    }

    /// What each lane makes of the passage: rows [score, hidden], normalised, for `scores`.
    pub fn hidden(&self, model: &Model, ids: &[u32], score: Range<usize>, lanes: &mut [Lane], told: impl Fn(usize)) -> Result<Vec<Memory>> {
        let (config, machine, hidden) = (&model.config, &self.machine, model.config.hidden_size);
        let embedded = model.weights().rows("model.embed_tokens.weight", &[config.vocab_size, hidden], ids)?;
        let states = lanes.iter().map(|_| machine.floats(&embedded)).collect::<Result<Vec<_>>>()?;
        let passage = self.passage(config, ids.len())?;
        for index in 0..config.num_hidden_layers {
            told(index);
            let layer = match self.layers.get(index) {
                Some(layer) => layer.clone(),
                None => Rc::new(DeviceLayer::read(machine, model.weights(), config, index)?),
            };
            for (lane, state) in lanes.iter_mut().zip(&states) {
                let clock = Instant::now();
                for chunk in &lane.chunks {
                    let x = state.span().part((4 * chunk.start * hidden) as u64, (4 * chunk.len() * hidden) as u64)?;
                    let at = (index, chunk.start, chunk.len());
                    layer.forward(machine, config, &passage, at, x, lane.attention)?;
                }
                machine.stream.synchronise()?;
                lane.seconds += clock.elapsed().as_secs_f64();
            }
        }
        let rows = |state: &Memory| -> Result<Memory> {
            let x = state.span().part((4 * score.start * hidden) as u64, (4 * score.len() * hidden) as u64)?;
            let out = Memory::zeroed(&machine.device, 4 * score.len() * hidden)?;
            machine.norm([x, self.norm.span(), out.span()], score.len(), hidden, config.rms_norm_eps)?;
            Ok(out)
        };
        states.iter().map(rows).collect()
    }

    fn passage(&self, config: &Config, tokens: usize) -> Result<Passage> {
        let (machine, width) = (&self.machine, config.num_key_value_heads * config.head_dim());
        let rows = || -> Result<Memory> { Ok(Memory::zeroed(&machine.device, 4 * tokens * width)?) };
        let positions: Vec<i32> = (0..=tokens as i32).collect();
        let mut known = self.turns.borrow_mut();
        let turns = match known.as_ref().filter(|(reach, _)| *reach >= tokens) {
            Some((_, turns)) => turns.clone(),
            None => Rc::new(machine.floats(&Rope::of(config, tokens)?.table())?),
        };
        *known = Some((known.as_ref().map_or(0, |(reach, _)| *reach).max(tokens), turns.clone()));
        Ok(Passage { k: rows()?, v: rows()?, positions: Memory::from_slice(&machine.device, &positions)?, turns })
    }
}
