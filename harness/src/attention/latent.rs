//! Rows that serve all heads, on their way through a cache: stored in pages in a format and loaded again before any
//! query reads them, or as they are.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;

use kernels_gen::latent::{DIM, Format};
use rayon::prelude::*;

use super::{Coder, Distortion, LatentKernels, Misread, OnDevice, Own, PAGE_TOKENS, RAW_BITS, RowTally, Stream, Tally};
use crate::error::{Error, Result};
use crate::model::v4::{Call, Config, Place, RowCache, RowKind, Written};

/// Which kinds of rows are coded, in the order of `RowKind::ALL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds(pub [bool; 3]);

impl Kinds {
    pub const ALL: Kinds = Kinds([true; 3]);

    pub fn only(kind: RowKind) -> Kinds {
        Kinds(RowKind::ALL.map(|other| other == kind))
    }

    pub fn has(self, kind: RowKind) -> bool {
        self.0[kind as usize]
    }

    /// As it stands behind a codec's name; nothing for all kinds.
    pub fn suffix(self) -> String {
        let named: Vec<&str> = RowKind::ALL.into_iter().filter(|kind| self.has(*kind)).map(RowKind::name).collect();
        if self == Kinds::ALL { String::new() } else { format!(":{}", named.join("+")) }
    }
}

/// What becomes of coded rows.
#[derive(Clone, Copy, Debug)]
pub enum Through {
    /// f32 in pages: must change nothing
    Exact,
    Coder(Coder),
    /// nothing is stored
    Nothing,
}

/// What the base model's indexer keeps of the layer at hand, by position.
pub type Kept = Rc<RefCell<HashMap<usize, Vec<u32>>>>;

/// What all caches of a passage share.
#[derive(Clone)]
pub struct Passage {
    pub config: Config,
    pub scored: Range<usize>,
    /// positions whose outputs are compared with exact ones
    pub sampled: Vec<usize>,
    pub kept: Kept,
}

pub struct Latent {
    passage: Passage,
    through: Through,
    kinds: Kinds,
    own: Own,
    misread: Misread,
    block: usize,
    /// notes what the indexer keeps, for the others
    leads: bool,
    /// where kernels store rows and attend to them
    device: Option<OnDevice>,
    pages: BTreeMap<(usize, RowKind), Vec<Vec<u8>>>,
    tally: Tally,
    rows: RowTally,
}

impl Latent {
    pub fn new(passage: &Passage, through: Through, kinds: Kinds, own: Own) -> Latent {
        let kinds = if matches!(through, Through::Nothing) { Kinds([false; 3]) } else { kinds };
        Latent { passage: passage.clone(), through, kinds, own, misread: Misread::default(), block: 64, leads: false, device: None, pages: BTreeMap::new(), tally: Tally::default(), rows: RowTally::default() }
    }

    /// The base model: the others are compared with what it keeps.
    pub fn leading(self) -> Latent {
        Latent { leads: true, ..self }
    }

    /// The same mathematics in another order of sums.
    pub fn reordered(self) -> Latent {
        Latent { block: 48, ..self }
    }

    /// Through kernels, of a cache that codes all rows: queries then read codes, not what became of the numbers.
    pub fn on_device(self, kernels: &Rc<LatentKernels>) -> Result<Latent> {
        Ok(Latent { device: Some(OnDevice::new(kernels)?), ..self })
    }

    /// Broken on purpose.
    pub fn misreading(self) -> Latent {
        Latent { misread: Misread::of(self.passage.config.head_dim), ..self }
    }

    pub fn tally(&self) -> Tally {
        let mut rows = self.rows.clone();
        rows.by_kernels = self.device.as_ref().map_or(0, |device| device.outputs);
        for (kind, tally) in RowKind::ALL.into_iter().zip(&mut rows.kinds) {
            tally.coded = self.kinds.has(kind);
            tally.row_bytes = self.row_bytes(kind);
            tally.kept = match kind {
                RowKind::Window => {
                    let layers = self.passage.config.layers_of(kind) as u64;
                    tally.written.min(layers * self.passage.config.sliding_window as u64)
                }
                _ => tally.written,
            };
        }
        let bytes = |pages: &Vec<Vec<u8>>| pages.iter().map(|page| page.len() as u64).sum::<u64>();
        let [bytes_written, bytes_read] = rows.bytes();
        let stored = rows.kinds.iter().filter(|kind| kind.coded).map(|kind| kind.written).sum::<u64>();
        let allocated = self.pages.values().map(bytes).sum();
        let elements = if allocated > 0 { stored * self.passage.config.head_dim as u64 } else { 0 };
        Tally { bytes_written, bytes_read, stored, elements, allocated, rows: Some(rows), ..self.tally.clone() }
    }

    /// What stays raw counts as bf16; rows that nothing codes are f32.
    fn row_bytes(&self, kind: RowKind) -> f64 {
        let d = self.passage.config.head_dim as f64;
        match self.through {
            Through::Exact | Through::Nothing => 4.0 * d,
            Through::Coder(_) if !self.kinds.has(kind) => RAW_BITS * d / 8.0,
            Through::Coder(coder) => coder.stored_bits(Stream::K, 0, self.passage.config.head_dim) * d / 8.0,
        }
    }

    /// Rows [row, d] as they come back.
    fn read(&mut self, place: Place, rows: &[f32]) -> Result<Vec<f32>> {
        let d = self.passage.config.head_dim;
        let back = match self.through {
            Through::Nothing => rows.to_vec(),
            Through::Exact => {
                let store = |page: &mut [u8], at: usize, row: &[f32]| {
                    let bytes = row.iter().flat_map(|value| value.to_le_bytes());
                    page[4 * at * d..][..4 * d].iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
                };
                let load = |page: &[u8], at: usize| page[4 * at * d..][..4 * d].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                self.paged(place, rows, 4 * d * PAGE_TOKENS, store, load)
            }
            Through::Coder(Coder::Latent(format)) => self.formatted(place, rows, format)?,
            Through::Coder(coder) => coder.round_trip(Stream::K, (place.layer, place.first), rows, d)?.0,
        };
        Ok(self.misread.read(back))
    }

    fn formatted(&mut self, place: Place, rows: &[f32], format: &Format) -> Result<Vec<f32>> {
        if self.passage.config.head_dim != DIM {
            let d = self.passage.config.head_dim;
            return Err(Error::Usage(format!("{} stores rows of {DIM} numbers; this model's have {d}", format.name())));
        }
        let store = |page: &mut [u8], at: usize, row: &[f32]| {
            if let Some(row) = row.first_chunk() {
                format.store(page, PAGE_TOKENS, at, row);
            }
        };
        let load = |page: &[u8], at: usize| format.load(page, PAGE_TOKENS, at).to_vec();
        let back = self.paged(place, rows, format.page_bytes(PAGE_TOKENS), store, load);
        if let Some(device) = &mut self.device {
            // Of formats that kernels have, pages are rows side by side.
            let (bytes, pages) = (format.row_bytes(), &self.pages[&(place.layer, place.kind)]);
            let row = |row: usize| &pages[row / PAGE_TOKENS][row % PAGE_TOKENS * bytes..][..bytes];
            let wanted: Vec<u8> = (place.first..place.first + rows.len() / DIM).flat_map(|at| row(at).iter().copied()).collect();
            device.store(place, rows, &wanted)?;
        }
        Ok(back)
    }

    /// Rows into pages, then out of them again once all are in.
    fn paged(&mut self, place: Place, rows: &[f32], bytes: usize, store: impl Fn(&mut [u8], usize, &[f32]) + Sync, load: impl Fn(&[u8], usize) -> Vec<f32> + Sync) -> Vec<f32> {
        let d = self.passage.config.head_dim;
        let (first, end) = (place.first, place.first + rows.len() / d);
        let pages = self.pages.entry((place.layer, place.kind)).or_default();
        pages.resize_with(end.div_ceil(PAGE_TOKENS), || vec![0xee; bytes]);
        let start = first / PAGE_TOKENS;
        let of_page = |(index, page): (usize, &mut Vec<u8>)| {
            let page_first = (start + index) * PAGE_TOKENS;
            let own = first.max(page_first)..end.min(page_first + PAGE_TOKENS);
            own.clone().for_each(|row| store(page, row - page_first, &rows[(row - first) * d..][..d]));
            own.flat_map(|row| load(page, row - page_first)).collect::<Vec<f32>>()
        };
        pages[start..].par_iter_mut().enumerate().flat_map_iter(of_page).collect()
    }

    fn compare(&mut self, place: Place, rows: &[f32], back: &[f32]) {
        let (d, nope) = (self.passage.config.head_dim, self.passage.config.head_dim - self.passage.config.qk_rope_head_dim);
        let of = |row: usize| {
            let (x, y) = (&rows[row * d..][..d], &back[row * d..][..d]);
            [Distortion::of_row(&x[..nope], &y[..nope]), Distortion::of_row(&x[nope..], &y[nope..]), Distortion::of_row(x, y)]
        };
        let each: Vec<[Distortion; 3]> = (0..rows.len() / d).into_par_iter().map(of).collect();
        let (kind, layer) = (&mut self.rows.kinds[place.kind as usize], self.tally.layer(place.layer));
        for [nope, rope, whole] in each {
            kind.nope += nope;
            kind.rope += rope;
            kind.whole += whole;
            layer.k += whole;
            layer.v += whole;
        }
    }
}

impl RowCache for Latent {
    fn write(&mut self, place: Place, rows: &[f32]) -> Result<Written> {
        self.rows.kinds[place.kind as usize].written += (rows.len() / self.passage.config.head_dim) as u64;
        if !self.kinds.has(place.kind) {
            return Ok(Written { now: rows.to_vec(), later: None });
        }
        let back = self.read(place, rows)?;
        self.compare(place, rows, &back);
        Ok(match self.own {
            Own::Coded => Written { now: back, later: None },
            Own::Raw => Written { now: rows.to_vec(), later: Some(back) },
        })
    }

    fn outputs(&mut self, call: &Call) -> Result<Option<Vec<f32>>> {
        let group = self.passage.config.compressed(call.layer).map(|compressed| compressed.kind);
        self.device.as_mut().map(|device| device.attend(call, group)).transpose()
    }

    fn watch(&mut self, call: &Call) {
        let (config, heads) = (&self.passage.config, call.attention.sinks.len());
        let positions = call.start..call.start + call.tokens;
        self.rows.kinds[RowKind::Window as usize].read += call.reading.rows[0];
        if let Some(compressed) = config.compressed(call.layer) {
            self.rows.kinds[compressed.kind as usize].read += call.reading.rows[1];
        }
        for position in positions.clone().filter(|position| self.passage.scored.contains(position)) {
            let shares = &call.reading.sink[(position - call.start) * heads..][..heads];
            shares.iter().for_each(|share| self.rows.sink.add(f64::from(*share)));
        }
        if self.leads && call.start == 0 {
            self.passage.kept.borrow_mut().clear();
        }
        for position in positions.clone() {
            let Some(picked) = call.picks.of(position - call.start) else { continue };
            if self.leads {
                self.passage.kept.borrow_mut().insert(position, picked.to_vec());
            } else if let Some(theirs) = self.passage.kept.borrow().get(&position) {
                let both = picked.iter().filter(|group| theirs.binary_search(group).is_ok()).count();
                self.rows.overlap.add(both as f64 / (picked.len() + theirs.len() - both) as f64);
            }
        }
        let d = config.head_dim;
        let sampled = self.passage.sampled.iter().filter(|position| positions.contains(position));
        let at: Vec<(usize, usize)> = sampled.flat_map(|position| (0..heads).map(|head| (*position, head))).collect();
        let compared = |&(position, head): &(usize, usize)| {
            let (query, from) = (position - call.start, ((position - call.start) * heads + head) * d);
            let exact = call.attention.alone(&call.q[from..][..d], head, position, call.raw, call.picks.of(query));
            Distortion::of_row(&exact, &call.reading.out[from..][..d])
        };
        let each: Vec<Distortion> = at.par_iter().map(compared).collect();
        each.into_iter().for_each(|pair| self.tally.layer(call.layer).attention += pair);
    }

    fn block(&self) -> usize {
        self.block
    }
}
