//! Comparisons of rows that the CPU makes while the GPU goes on: one for each layer, collected in their order.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};

use crate::attention::{Distortion, Tally};
use crate::error::{Error, Result};

/// Rows of so many layers may wait in memory.
const WAITING: usize = 3;

#[derive(Default)]
pub struct Jobs {
    waiting: VecDeque<(usize, Receiver<[Distortion; 2]>)>,
}

impl Jobs {
    /// Runs `compare` aside; what it finds of keys and values is added to `layer` of `tally`, perhaps later.
    pub fn start(
        &mut self,
        tally: &mut Tally,
        layer: usize,
        compare: impl FnOnce() -> [Distortion; 2] + Send + 'static,
    ) -> Result<()> {
        while self.waiting.len() >= WAITING {
            self.collect(tally)?;
        }
        let (give, take) = channel();
        rayon::spawn(move || {
            // nobody listens after an error elsewhere
            let _ = give.send(compare());
        });
        self.waiting.push_back((layer, take));
        Ok(())
    }

    /// Waits for all.
    pub fn finish(&mut self, tally: &mut Tally) -> Result<()> {
        while !self.waiting.is_empty() {
            self.collect(tally)?;
        }
        Ok(())
    }

    fn collect(&mut self, tally: &mut Tally) -> Result<()> {
        let Some((layer, found)) = self.waiting.pop_front() else { return Ok(()) };
        let [k, v] = found.recv().map_err(|_| Error::Data("a comparison of stored rows broke off".into()))?;
        let layer = tally.layer(layer);
        layer.k += k;
        layer.v += v;
        Ok(())
    }
}
