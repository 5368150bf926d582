//! What a device says of a passage: how far the rows of each layer are from what they became. Sums of blocks stay
//! there until the passage is through.

use std::rc::Rc;

use kernels_gen::kernels::forward::distances::{ROWS, SUMS};
use runtime::{Memory, Span};

use super::Machine;
use crate::attention::{Distortion, Geometry, Tally};
use crate::error::Result;

pub struct Compared {
    machine: Rc<Machine>,
    geometry: Geometry,
    rows: usize,
    /// f32 [layer, K | V, block, SUMS]
    sums: Memory,
    layers: Vec<usize>,
}

impl Compared {
    /// For passages of `tokens` tokens.
    pub fn new(machine: Rc<Machine>, geometry: Geometry, tokens: usize) -> Result<Compared> {
        let rows = tokens * geometry.kv_heads;
        let sums = Memory::zeroed(&machine.device, 4 * 2 * geometry.layers * rows.div_ceil(ROWS) * SUMS)?;
        Ok(Compared { machine, geometry, rows, sums, layers: Vec::new() })
    }

    /// Enqueues the comparison of a layer's keys and values with what they became.
    pub fn rows(&mut self, layer: usize, halves: [[Span; 2]; 2]) -> Result<()> {
        let bytes = self.bytes();
        for (half, [x, y]) in halves.into_iter().enumerate() {
            let out = self.sums.span().part((2 * layer + half) as u64 * bytes, bytes)?;
            self.machine.distances([x, y, out], self.rows, self.geometry.d)?;
        }
        self.layers.push(layer);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        (4 * self.rows.div_ceil(ROWS) * SUMS) as u64
    }

    /// Waits; adds what was found.
    pub fn finish(&mut self, tally: &mut Tally) -> Result<()> {
        let each = self.bytes() as usize / 4;
        let sums: Vec<f32> = self.sums.download(&self.machine.stream, 0, 2 * self.geometry.layers * each)?;
        for layer in self.layers.drain(..) {
            let half = |half: usize| {
                let sum = |i: usize| sums[(2 * layer + half) * each..][..each].chunks(SUMS).map(|s| f64::from(s[i])).sum();
                Distortion { error: sum(0), energy: sum(1), cosine: sum(2), rows: self.rows as u64 }
            };
            let found = tally.layer(layer);
            found.k += half(0);
            found.v += half(1);
        }
        Ok(())
    }
}
