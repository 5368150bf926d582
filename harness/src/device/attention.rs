//! The ways a passage can attend on a device: the same ones as on the CPU.

use std::rc::Rc;

use runtime::{Memory, Span};

use super::Machine;
use super::coded::Coded;
use super::exact::Exact;
use super::identity::Identity;
use super::loaded::Loaded;
use super::plans::{self, Scheme, Wanted};
use super::simulated::Simulated;
use super::tile_plans::TilePlans;
use super::tiles::Tiles;
use super::windowed::Windowed;
use crate::attention::{self, Coder, Geometry, Grouped, Own, Tally};
use crate::error::{Error, Result};
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
pub fn attention(machine: &Rc<Machine>, subject: &Subject, path: ReadPath, geometry: Geometry, tokens: usize) -> Result<Box<dyn Attend>> {
    let own = if path.raw_own() { Own::Raw } else { Own::Coded };
    let packed = reads_codes(subject, path);
    let coded = |scheme, layers: &[usize]| Coded::new(machine.clone(), scheme, geometry, layers, tokens);
    let loaded = |scheme, layers: &[usize], halves| Loaded::new(machine.clone(), scheme, (geometry, layers), halves, own, tokens);
    Ok(match *subject {
        Subject::Identity => Box::new(Identity::new(machine.clone(), geometry, tokens)?),
        Subject::Noise => Box::new(Exact::reordered(machine.clone(), geometry)),
        Subject::Control(coder) => {
            let broken = || Error::Usage(format!("{} has no kernel to read wrongly", coder.name()));
            let (scheme, all) = (scheme(coder).ok_or_else(broken)?, (0..geometry.layers).collect::<Vec<usize>>());
            match packed {
                true => Box::new(coded(scheme, &all)?.misreading()?),
                false => Box::new(loaded(scheme, &all, [true, true])?.misreading()?),
            }
        }
        Subject::Coded { streams, .. } => {
            let halves = [streams != Streams::V, streams != Streams::K];
            let one = |(coder, layers): (Coder, Vec<usize>)| -> Result<Box<dyn Attend>> {
                if let Coder::Kivi(codec) = coder {
                    if packed && Grouped::serves(&geometry) {
                        return Ok(Box::new(Tiles::new(machine.clone(), codec, geometry, &layers, tokens)?));
                    }
                    let inner = Box::new(attention::Windowed::new(codec, geometry, halves, own));
                    return Ok(Box::new(Windowed::new(machine.clone(), geometry, inner)));
                }
                if let (Coder::Pca(codec, blocks), true) = (coder, packed) {
                    if let Some(pages) = attention::Blocked::pages(codec, blocks, &geometry) {
                        return Ok(Box::new(Windowed::new(machine.clone(), geometry, Box::new(attention::Blocked::new(pages, geometry, blocks)))));
                    }
                }
                Ok(match scheme(coder) {
                    Some(scheme) if packed => Box::new(coded(scheme, &layers)?),
                    Some(scheme) => Box::new(loaded(scheme, &layers, halves)?),
                    None => {
                        let coders = halves.map(|coded| coded.then_some(coder));
                        Box::new(Simulated::new(machine.clone(), geometry, coders, own, tokens)?)
                    }
                })
            };
            let (found, of) = subject.ways(geometry.layers);
            let ways = found.into_iter().map(one).collect::<Result<_>>()?;
            Box::new(ByLayer { ways, of, raw: Exact::new(machine.clone(), geometry) })
        }
    })
}

/// Queries read the codes that kernels made; otherwise rows that were loaded again.
fn reads_codes(subject: &Subject, path: ReadPath) -> bool {
    path.packed() && !matches!(subject, Subject::Coded { streams: Streams::Both | Streams::K | Streams::V, .. })
}

/// What kernels code; the rest is simulated.
fn scheme(coder: Coder) -> Option<Scheme> {
    match coder {
        Coder::Codec(codec) => Some(Scheme::Codec(codec)),
        Coder::Preset(_, Some(fitted)) => Some(Scheme::Fitted(fitted)),
        _ => None,
    }
}

/// Compiles the kernels of all these rows, several at a time.
pub fn prepare<'a>(machine: &Machine, subjects: impl Iterator<Item = &'a Subject>, path: ReadPath, geometry: &Geometry) -> Result<()> {
    let mut all = Vec::new();
    for subject in subjects {
        let decode = reads_codes(subject, path);
        let (found, _) = subject.ways(geometry.layers);
        for kivi in found.iter().filter_map(|(coder, _)| if let Coder::Kivi(kivi) = coder { Some(*kivi) } else { None }) {
            if decode && Grouped::serves(geometry) {
                TilePlans::of(machine, kivi, geometry)?;
            }
        }
        let wanted = |(coder, layers)| Some(Wanted { scheme: scheme(coder)?, layers, decode });
        all.extend(found.into_iter().filter_map(wanted));
    }
    plans::prepare(machine, &all, geometry)
}

/// Layers that attend in different ways; exactly where a layer stays raw.
struct ByLayer {
    ways: Vec<Box<dyn Attend>>,
    /// index of a layer's way
    of: Vec<Option<usize>>,
    raw: Exact,
}

impl Attend for ByLayer {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        match self.of[rows.layer] {
            Some(way) => self.ways[way].attend(rows, out),
            None => self.raw.attend(rows, out),
        }
    }

    fn tally(&mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        for way in &mut self.ways {
            tally += &way.tally()?;
        }
        Ok(tally)
    }
}
