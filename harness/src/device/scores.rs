//! Logits and what is counted of them, without a row of logits leaving the device.

use std::rc::Rc;

use kernels_gen::kernels::forward::scores::NUMBERS;
use runtime::{Memory, Span};

use super::Forward;
use crate::error::Result;
use crate::model::{Config, Logits};
use crate::ppl::Score;

/// A lead of the base model's best token that counts as confident.
const CONFIDENT: f32 = 0.1;

/// Logits of some rows of a lane, on the device.
pub struct DeviceLogits {
    rows: usize,
    vocab: usize,
    values: Rc<Memory>,
}

impl Forward {
    /// Logits of rows `first`.. of what `hidden` gave, in the memory called `name`.
    pub fn logits(&self, config: &Config, name: &'static str, state: &Memory, first: usize, rows: usize) -> Result<DeviceLogits> {
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let values = self.machine.scratch(name, 4 * rows * vocab)?;
        let x = state.span().part((4 * first * hidden) as u64, (4 * rows * hidden) as u64)?;
        self.machine.product([x, self.head.span(), values.span()], [rows, vocab, hidden], false)?;
        Ok(DeviceLogits { rows, vocab, values })
    }

    /// `coded` against `base`; `gold[i]` is the token that position i predicts. None where a number is not finite.
    pub fn compare(&self, base: &DeviceLogits, coded: &DeviceLogits, gold: &[u32]) -> Result<Vec<Option<Score>>> {
        let tokens: Vec<i32> = gold.iter().map(|id| *id as i32).collect();
        let tokens = Memory::from_slice(&self.machine.device, &tokens)?;
        let spans: [Span; 3] = [base.values.span(), coded.values.span(), tokens.span()];
        let numbers = self.machine.scores(spans, base.rows, base.vocab)?;
        Ok(numbers.chunks(NUMBERS).map(score).collect())
    }

    /// All numbers, on the host.
    pub fn fetch_logits(&self, logits: &DeviceLogits) -> Result<Logits> {
        let values = logits.values.download(&self.machine.stream, 0, logits.rows * logits.vocab)?;
        Ok(Logits { vocab: logits.vocab, values })
    }
}

fn score(numbers: &[f32]) -> Option<Score> {
    let wide = |i: usize| f64::from(numbers[i]);
    (numbers[7] == 0.0).then(|| Score { base_nll: wide(0), gap: wide(1), kl: wide(2), kl_above_16_nats: wide(3), gold_change: wide(4), same_top: numbers[5] == 1.0, confident: numbers[6] > CONFIDENT })
}
