//! The kernels of KIVI's cache and of the raw tokens beside it, made once for a codec; and where the tokens of a passage lie.

use std::rc::Rc;

use kernels_gen::kivi::{GROUP, Kivi};
use rayon::join;
use runtime::{Codec, DecodePlan, DecodeSpec, Device, Elem, Memory, MergePlan, StorePlan, StoreSpec};

use super::Machine;
use crate::attention::{Geometry, Pages};
use crate::error::Result;

/// The codec of raw tokens.
pub const RAW: &str = "bf16";

/// Queries of one launch.
pub const BATCH: usize = 1024;

/// What codes tiles and attends to them, the twins that count, and the same of raw tokens.
pub struct TilePlans {
    geometry: Geometry,
    pub store: StorePlan,
    pub counted_store: StorePlan,
    pub decode: DecodePlan,
    pub counted: DecodePlan,
    pub raw_store: StorePlan,
    pub raw_decode: DecodePlan,
    pub merge: MergePlan,
}

impl TilePlans {
    fn make(device: &Device, kivi: &Kivi, geometry: &Geometry) -> Result<TilePlans> {
        let Geometry { heads, kv_heads, d: head_dim, .. } = *geometry;
        let (page_tokens, elem, group) = (GROUP, Elem::F32, heads / kv_heads);
        let (codec, raw) = (Codec::open(&kivi.name)?, Codec::open(RAW)?);
        let rows = |codec| StoreSpec { codec, head_dim, page_tokens, elem };
        let spec = |codec| DecodeSpec { codec, head_dim, group, page_tokens, elem, splits: 0 };
        // Compiling is what takes long.
        let ((decode, counted), (stores, raws)) = join(
            || join(|| DecodePlan::prepare(device, &spec(codec)), || DecodePlan::counted(device, &spec(codec))),
            || join(|| join(|| StorePlan::prepare(device, &rows(codec)), || StorePlan::counted(device, &rows(codec))), || join(|| StorePlan::prepare(device, &rows(raw)), || DecodePlan::prepare(device, &spec(raw)))),
        );
        Ok(TilePlans { geometry: *geometry, store: stores.0?, counted_store: stores.1?, decode: decode?, counted: counted?, raw_store: raws.0?, raw_decode: raws.1?, merge: MergePlan::prepare(device, head_dim, elem)? })
    }

    /// Those of a codec, made where they are not known yet.
    pub fn of(machine: &Machine, kivi: &'static Kivi, geometry: &Geometry) -> Result<Rc<TilePlans>> {
        let known = machine.tiles.borrow().get(&kivi.name[..]).cloned();
        if let Some(plans) = known.filter(|plans| plans.geometry == *geometry) {
            return Ok(plans);
        }
        let plans = Rc::new(TilePlans::make(&machine.device, kivi, geometry)?);
        machine.tiles.borrow_mut().insert(&kivi.name, plans.clone());
        Ok(plans)
    }
}

/// Where tokens lie, coded and raw alike, and what each query sees of both; in all layers alike.
pub struct Places {
    pub pages: Pages,
    /// i64 [token]
    pub slots: Memory,
    /// i32 [BATCH, pages]
    pub coded_table: Memory,
    /// i32 [token, most]: pages from a query's first raw token on
    pub raw_table: Memory,
    pub most: usize,
    /// i32 [2][token]: coded tokens of each query, raw ones
    pub lens: [Memory; 2],
    pub status: Memory,
}

impl Places {
    pub fn new(device: &Device, kivi: &Kivi, tokens: usize) -> Result<Places> {
        let pages = Pages::new(tokens, GROUP);
        // Up to 31 tokens more than the window are raw.
        let most = (kivi.window + GROUP).div_ceil(GROUP).min(pages.count());
        let coded: Vec<i32> = (1..=tokens).map(|seen| kivi.coded_tiles(seen) as i32).collect();
        let raw: Vec<i32> = coded.iter().zip(1..).map(|(coded, seen)| seen - coded).collect();
        let page = |at: usize| pages.table[at.min(pages.count() - 1)];
        let raw_table: Vec<i32> = coded.iter().flat_map(|coded| (0..most).map(move |i| *coded as usize / GROUP + i)).map(page).collect();
        Ok(Places {
            slots: Memory::from_slice(device, &pages.slots(0..tokens))?,
            coded_table: Memory::from_slice(device, &pages.table.repeat(BATCH.min(tokens)))?,
            raw_table: Memory::from_slice(device, &raw_table)?,
            most,
            lens: [Memory::from_slice(device, &coded)?, Memory::from_slice(device, &raw)?],
            status: Memory::zeroed(device, runtime::status::BYTES as usize)?,
            pages,
        })
    }
}
