//! KIVI's cache on the device: whole tiles of codes, every token raw beside them, attention over a coded prefix and over what is raw of
//! each query's tokens, and the two states merged. `attention::Grouped` is the same on the host.

use std::rc::Rc;

use kernels_gen::kivi::{GROUP, Kivi, KiviLayout};
use kernels_gen::reference::{CacheShape, store_groups};
use runtime::{Codec, Decode, Memory, Merge, PagedCache, Rows, Span, State, Store};

use super::tile_plans::{BATCH, Places, RAW, TilePlans};
use super::twins::Twins;
use super::{Attend, DeviceRows, Machine};
use crate::attention::{Distortion, Geometry, Grouped, Sizes, Tally};
use crate::error::{Error, Result};

pub struct Tiles {
    machine: Rc<Machine>,
    kivi: &'static Kivi,
    geometry: Geometry,
    /// of the whole passage
    tokens: usize,
    plans: Rc<TilePlans>,
    places: Places,
    /// [coded, raw]; None for layers that are not coded so
    layers: Vec<Option<[Memory; 2]>>,
    twins: Twins,
    tally: Tally,
    /// of each layer, as it stands
    sizes: Vec<Sizes>,
}

impl Tiles {
    /// For the layers of that list.
    pub fn new(machine: Rc<Machine>, kivi: &'static Kivi, geometry: Geometry, layers: &[usize], tokens: usize) -> Result<Tiles> {
        let (device, places) = (&machine.device, Places::new(&machine.device, kivi, tokens)?);
        let cache = |name: &str| -> Result<Memory> {
            let bytes = Codec::open(name)?.cache_bytes(places.pages.count(), GROUP, geometry.kv_heads, geometry.d)?;
            Ok(Memory::zeroed(device, bytes as usize)?)
        };
        let own = |layer: usize| layers.contains(&layer).then(|| Ok([cache(&kivi.name)?, cache(RAW)?])).transpose();
        let layers = (0..geometry.layers).map(own).collect::<Result<Vec<_>>>()?;
        let most = layers.iter().flatten().map(|own| own[0].bytes()).max().unwrap_or(0);
        Ok(Tiles {
            plans: TilePlans::of(&machine, kivi, &geometry)?,
            twins: Twins::new(machine.clone(), &geometry, tokens, most)?,
            machine,
            kivi,
            geometry,
            tokens,
            places,
            layers,
            tally: Tally::default(),
            sizes: vec![Sizes::default(); geometry.layers],
        })
    }

    fn layer(&self, layer: usize) -> Result<&[Memory; 2]> {
        let none = || Error::Invalid { reasons: vec![format!("layer {layer} has no tiles")] };
        self.layers.get(layer).and_then(Option::as_ref).ok_or_else(none)
    }

    fn paged<'a>(&self, base: Span<'a>) -> PagedCache<'a> {
        let Geometry { kv_heads, d: head_dim, .. } = self.geometry;
        PagedCache { base, pages: self.places.pages.count(), page_tokens: GROUP, kv_heads, head_dim }
    }

    /// `tokens` tokens from `first` on, of all that came so far.
    fn call<'a>(&'a self, rows: &DeviceRows<'a>, first: usize, tokens: usize, base: Span<'a>) -> Result<Store<'a>> {
        let Geometry { kv_heads, d, .. } = self.geometry;
        let width = kv_heads * d;
        let strided = |memory: &'a Memory| -> Result<Rows<'a>> {
            let base = part(memory.span(), first * width, tokens * width)?;
            Ok(Rows { base, token_stride: width as i64, head_stride: d as i64 })
        };
        let slots = self.places.slots.span().part(8 * first as u64, 8 * tokens as u64)?;
        Ok(Store { tokens, k: strided(rows.k)?, v: strided(rows.v)?, slots, cache: self.paged(base), status: self.places.status.span() })
    }

    /// The new tokens raw, and the tiles that are whole now, these once more for proof. Queries read a tile once its window has passed.
    fn store(&self, rows: &DeviceRows) -> Result<()> {
        let ([coded, raw], stream, plans) = (self.layer(rows.layer)?, &self.machine.stream, &self.plans);
        plans.raw_store.launch(stream, &self.call(rows, rows.start, rows.tokens, raw.span())?)?;
        let shadow = self.twins.shadow(coded.bytes(), rows.start == 0)?;
        let (first, end) = (rows.start / GROUP * GROUP, rows.seen() / GROUP * GROUP);
        if first == end {
            return Ok(());
        }
        plans.store.launch(stream, &self.call(rows, first, end - first, coded.span())?)?;
        let again = self.call(rows, first, end - first, shadow.span().part(0, coded.bytes() as u64)?)?;
        Ok(plans.counted_store.launch_counted(stream, &again, None, self.twins.of_stores()?)?)
    }

    /// Attention over tiles, once more for proof, over raw tokens, and both merged into `out`.
    fn decode(&self, rows: &DeviceRows, out: Span) -> Result<()> {
        let ([coded, raw], machine, plans) = (self.layer(rows.layer)?, &self.machine, &self.plans);
        let (Geometry { heads, d, scale, .. }, places, stream) = (self.geometry, &self.places, &machine.stream);
        let pages = places.pages.count();
        let most = BATCH.min(rows.tokens);
        let spaces = [plans.decode.workspace_bytes(most, heads, pages)?, plans.counted.workspace_bytes(most, heads, pages)?, plans.raw_decode.workspace_bytes(most, heads, places.most)?];
        let (bytes, held) = (4 * rows.tokens * heads * d, 4 * rows.tokens * heads);
        let space = spaces.into_iter().max().unwrap_or(0) as usize;
        let names = ["decode", "counted output", "state over tiles", "state over raw tokens", "merged sums"];
        let memory = names.into_iter().zip([space, bytes, bytes + held, bytes + held, held]);
        let memory = memory.map(|(what, bytes)| machine.scratch(what, bytes)).collect::<Result<Vec<_>>>()?;
        let [workspace, again, over_tiles, over_raw, sums] = std::array::from_fn(|i| memory[i].span());
        for first in (0..rows.tokens).step_by(BATCH) {
            let (batch, position) = (BATCH.min(rows.tokens - first), rows.start + first);
            let [at, count] = [first, batch].map(|n| n * heads * d);
            let (sum, queries) = (bytes / 4 + first * heads, batch * heads);
            let a = State { out: part(over_tiles, at, count)?, lse: part(over_tiles, sum, queries)? };
            let b = State { out: part(over_raw, at, count)?, lse: part(over_raw, sum, queries)? };
            let lens = |i: usize| part(places.lens[i].span(), position, batch);
            let of_tiles = Decode {
                batch,
                q: part(rows.q, at, count)?,
                cache: self.paged(coded.span()),
                table: places.coded_table.span(),
                table_stride: pages,
                lens: lens(0)?,
                out: a.out,
                lse: Some(a.lse),
                scale,
                workspace,
                status: places.status.span(),
            };
            plans.decode.launch(stream, &of_tiles)?;
            let counted = Decode { out: part(again, at, count)?, lse: None, ..of_tiles };
            plans.counted.launch_counted(stream, &counted, None, self.twins.of_attention()?)?;
            let table = part(places.raw_table.span(), position * places.most, batch * places.most)?;
            let of_raw = Decode { cache: self.paged(raw.span()), table, table_stride: places.most, lens: lens(1)?, out: b.out, lse: Some(b.lse), ..of_tiles };
            plans.raw_decode.launch(stream, &of_raw)?;
            let into = State { out: part(out, at, count)?, lse: part(sums, 0, queries)? };
            plans.merge.launch(stream, &Merge { rows: queries, a, b, into })?;
        }
        self.twins.compare_outputs(over_tiles, again, bytes)
    }

    /// All tiles of a layer against those of the scalar reference, byte for byte, and how far their numbers are from the rows.
    fn compare(&mut self, rows: &DeviceRows) -> Result<()> {
        let (Geometry { kv_heads, d, .. }, machine) = (self.geometry, self.machine.clone());
        let stream = &machine.stream;
        let (width, whole, count) = (kv_heads * d, self.tokens / GROUP * GROUP, self.places.pages.count());
        let coded = &self.layer(rows.layer)?[0];
        self.twins.compare_caches(rows.layer, coded)?;
        let found: Vec<u8> = coded.download(stream, 0, coded.bytes())?;
        let [k, v] = [rows.k.download::<f32>(stream, 0, whole * width)?, rows.v.download::<f32>(stream, 0, whole * width)?];
        let mut wanted = vec![0; count * kv_heads * KiviLayout::of(self.kivi, d).tile_bytes()];
        store_groups(self.kivi, &CacheShape { pages: count, page_tokens: GROUP, kv_heads, d }, &mut wanted, &k, &v, &self.places.pages.slots(0..whole));
        if let Some(at) = found.iter().zip(&wanted).position(|(a, b)| a != b) {
            let reason = format!("{}: byte {at} of the tiles of layer {} is not the reference's", self.kivi.name, rows.layer);
            return Err(Error::Invalid { reasons: vec![reason] });
        }
        let layer = self.tally.layer(rows.layer);
        for (k, v) in k.chunks(GROUP * width).zip(v.chunks(GROUP * width)) {
            layer.k += Distortion::of_rows(k, &self.kivi.keys(k), d);
            layer.v += Distortion::of_rows(v, &self.kivi.values(v), d);
        }
        let status: Vec<i32> = self.places.status.download(stream, 0, 4)?;
        match runtime::status::describe(&status) {
            None => Ok(()),
            Some(what) => Err(Error::Invalid { reasons: vec![what] }),
        }
    }
}

/// `count` numbers of 32 bits from number `at` on.
fn part(all: Span<'_>, at: usize, count: usize) -> Result<Span<'_>> {
    Ok(all.part(4 * at as u64, 4 * count as u64)?)
}

impl Attend for Tiles {
    fn attend(&mut self, rows: &DeviceRows, out: Span) -> Result<()> {
        self.store(rows)?;
        self.decode(rows, out)?;
        self.sizes[rows.layer] = Grouped::sizes(self.kivi, &self.geometry, rows.seen());
        if rows.seen() == self.tokens { self.compare(rows) } else { Ok(()) }
    }

    fn tally(&mut self) -> Result<Tally> {
        self.twins.finish(&mut self.tally)?;
        Ok(self.tally.clone().with_sizes(&self.sizes))
    }
}
