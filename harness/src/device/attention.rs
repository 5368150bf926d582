//! The ways a passage can attend on a device: the same ones as on the CPU, and any of those by way of the host.

use std::rc::Rc;

use runtime::{Memory, Span};

use super::Machine;
use super::coded::Coded;
use super::exact::Exact;
use super::host::OnHost;
use super::identity::Identity;
use super::simulated::Simulated;
use crate::attention::{Coder, Geometry, Own, Tally};
use crate::backend::Backend;
use crate::error::Result;
use crate::ppl::{ReadPath, Streams, Subject};

/// What one attention call gets: the rows of the next tokens of a passage.
pub struct DeviceRows<'a> {
    pub layer: usize,
    /// position of the first of these tokens
    pub start: usize,
    pub tokens: usize,
    /// [token, head, d]
    pub q: Span<'a>,
    /// [position, kv head, d], of all tokens so far and these
    pub k: &'a Memory,
    /// likewise
    pub v: &'a Memory,
    /// i32 [position]: 0, 1, 2, .. past the last token
    pub positions: &'a Memory,
}

impl<'a> DeviceRows<'a> {
    /// Tokens so far and these.
    pub fn seen(&self) -> usize {
        self.start + self.tokens
    }

    /// The positions of these tokens.
    pub fn own_positions(&self) -> Result<Span<'a>> {
        Ok(self.positions.span().part(4 * self.start as u64, 4 * self.tokens as u64)?)
    }

    /// How many tokens each of these sees.
    pub fn lens(&self) -> Result<Span<'a>> {
        Ok(self.positions.span().part(4 * (self.start as u64 + 1), 4 * self.tokens as u64)?)
    }

    /// The part of keys or values that these tokens brought, `width` numbers a token.
    pub fn own<'m>(&self, rows: &'m Memory, width: usize) -> Result<Span<'m>> {
        Ok(rows.span().part((4 * self.start * width) as u64, (4 * self.tokens * width) as u64)?)
    }
}

/// Causal attention over one passage on a device.
pub trait Attend {
    /// Enqueues the attention of `rows` into `out` [token, head, d].
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()>;

    /// What it stored and how well, once the passage has run.
    fn tally(&mut self) -> Result<Tally> {
        Ok(Tally::default())
    }
}

/// The attention of a row of the table; the noise row is the exact one with tiles of other sizes.
pub fn attention(
    machine: &Rc<Machine>,
    subject: &Subject,
    path: ReadPath,
    backend: &dyn Backend,
    geometry: Geometry,
    tokens: usize,
) -> Result<Box<dyn Attend>> {
    let own = if path.raw_own() { Own::Raw } else { Own::Coded };
    let simulated = |k, v| Simulated::new(machine.clone(), geometry, [k, v], own, tokens);
    let coded = |codec| Coded::new(machine.clone(), codec, geometry, tokens);
    let inner: Box<dyn Attend> = match *subject {
        Subject::Identity => Box::new(Identity::new(machine.clone(), geometry, tokens)?),
        Subject::Noise => Box::new(Exact::reordered(machine.clone(), geometry)),
        Subject::Control(codec) if subject.is_packed(path) => Box::new(coded(codec)?.misreading()?),
        Subject::Control(codec) => Box::new(simulated(Some(Coder::Codec(codec)), Some(Coder::Codec(codec)))?.misreading()),
        Subject::Coded { coder: Coder::Codec(codec), .. } if subject.is_packed(path) => Box::new(coded(codec)?),
        // Boundary layers are ours: the host's attention is asked for without them.
        Subject::Coded { coder, streams, .. } if subject.is_packed(path) => {
            let whole = Subject::Coded { coder, streams, skip: 0 };
            match whole.attention(path, backend, geometry, tokens)? {
                Some(counted) => Box::new(OnHost::new(machine.clone(), geometry, counted)),
                None => Box::new(Exact::new(machine.clone(), geometry)),
            }
        }
        Subject::Coded { coder, streams: Streams::K, .. } => Box::new(simulated(Some(coder), None)?),
        Subject::Coded { coder, streams: Streams::V, .. } => Box::new(simulated(None, Some(coder))?),
        Subject::Coded { coder, .. } => Box::new(simulated(Some(coder), Some(coder))?),
    };
    Ok(match *subject {
        Subject::Coded { skip, .. } if skip > 0 => {
            Box::new(Boundary { inner, raw: Exact::new(machine.clone(), geometry), skip, layers: geometry.layers })
        }
        _ => inner,
    })
}

/// A codec on the inner layers only.
struct Boundary {
    inner: Box<dyn Attend>,
    raw: Exact,
    /// layers at either end that stay raw
    skip: usize,
    layers: usize,
}

impl Attend for Boundary {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        let inside = rows.layer >= self.skip && rows.layer + self.skip < self.layers;
        if inside { self.inner.attend(rows, out) } else { self.raw.attend(rows, out) }
    }

    fn tally(&mut self) -> Result<Tally> {
        self.inner.tally()
    }
}
