//! What a `kvf_plan` is made of, and how it follows from its description.

use crate::argument::{Misuse, within};
use crate::cuda::Device;
use crate::error::Result;
use crate::ffi_codec::CODECS;
use crate::ffi_rope::of_desc;
use crate::ffi_struct::{PlanDesc, count, elem};
use crate::plan::{DecodePlan, DecodeSpec, LoadPlan, MergePlan, QueriesPlan, RopePlan, RopeSpec, SlotsPlan, SlotsSpec, StorePlan, StoreSpec, check_rope};

/// `KVF_PLAN_STORE`, `KVF_PLAN_DECODE`, `KVF_PLAN_CHECKED`, `KVF_PLAN_SLOTS`, `KVF_PLAN_ROPE`, `KVF_PLAN_MERGE`, `KVF_PLAN_LOAD`.
const STORE: i32 = 1;
const DECODE: i32 = 2;
const CHECKED: i32 = 4;
const SLOTS: i32 = 8;
const ROPE: i32 = 16;
const MERGE: i32 = 32;
const LOAD: i32 = 64;

/// What a `kvf_plan` names.
pub(crate) struct Plan {
    pub device: Device,
    pub kv_heads: usize,
    pub heads: usize,
    // Ask the driver about every address before a launch.
    pub checked: bool,
    store: Option<StorePlan>,
    pub rope: Option<RopePlan>,
    decode: Option<DecodePlan>,
    queries: Option<QueriesPlan>,
    slots: Option<SlotsPlan>,
    merge: Option<MergePlan>,
    load: Option<LoadPlan>,
}

impl Plan {
    pub fn new(desc: &PlanDesc) -> Result<Self> {
        let codec = CODECS.get(desc.codec)?;
        let dims = (count("head_dim", desc.head_dim)?, count("page_tokens", desc.page_tokens)?);
        let (heads, kv_heads) = (count("heads", desc.heads)?, count("kv_heads", desc.kv_heads)?);
        let (elem, splits) = (elem(desc.dtype)?, count("splits", desc.splits)?);
        within("kv_heads", kv_heads, 1, 65535)?;
        within("heads", heads, kv_heads, 65535)?;
        if !heads.is_multiple_of(kv_heads) {
            let text = format!("{heads} heads do not share {kv_heads} kv_heads evenly; heads must be a multiple of kv_heads");
            return Err(Misuse::Other(text).into());
        }
        if desc.flags & !(STORE | DECODE | CHECKED | SLOTS | ROPE | MERGE | LOAD) != 0 || desc.flags & !CHECKED == 0 {
            let allowed = "KVF_PLAN_STORE (1), KVF_PLAN_DECODE (2), KVF_PLAN_SLOTS (8), KVF_PLAN_ROPE (16), KVF_PLAN_MERGE (32) and KVF_PLAN_LOAD (64), one or more, and KVF_PLAN_CHECKED (4) if wanted".into();
            return Err(Misuse::Range { what: "flags", value: i64::from(desc.flags), allowed }.into());
        }
        let ((head_dim, page_tokens), group) = (dims, heads / kv_heads);
        let (wants_store, wants_decode) = (desc.flags & STORE != 0, desc.flags & DECODE != 0);
        // Before the device is asked for: these are the caller's, whatever the machine.
        if wants_store {
            codec.check_store(head_dim, page_tokens)?;
            codec.on_device()?;
        }
        if wants_decode {
            codec.check_decode(head_dim, group, page_tokens)?;
        }
        let (slot_page_tokens, wants_slots) = (count("slot_page_tokens", desc.slot_page_tokens)?, desc.flags & SLOTS != 0);
        if wants_slots {
            codec.check_slots(head_dim, slot_page_tokens, page_tokens)?;
        } else if slot_page_tokens > 0 {
            let allowed = "0 without KVF_PLAN_SLOTS".into();
            return Err(Misuse::Range { what: "slot_page_tokens", value: i64::from(desc.slot_page_tokens), allowed }.into());
        }
        let rope = (desc.flags & ROPE != 0).then(|| of_desc(desc.rotary_dim, desc.rope, group)).transpose()?;
        match &rope {
            Some(rope) => {
                codec.by_token("a store with rope")?;
                codec.check_store(head_dim, page_tokens)?;
                check_rope(rope, head_dim)?;
            }
            None if desc.rotary_dim != 0 || desc.rope != 0 => {
                let text = "rotary_dim and rope are set without KVF_PLAN_ROPE (16); set the flag, or leave them 0";
                return Err(Misuse::Other(text.into()).into());
            }
            None => {}
        }
        let wants_merge = desc.flags & MERGE != 0;
        if wants_merge {
            MergePlan::check_dim(head_dim)?;
        }
        let wants_load = desc.flags & LOAD != 0;
        if wants_load {
            codec.check_load(head_dim, page_tokens)?;
        }
        let queries = count("queries", desc.queries)?;
        if queries > 1 {
            codec.by_token("decode of several query tokens")?;
        }
        let device = Device::open(count("device", desc.device)?)?;
        let store = StoreSpec { codec, head_dim, page_tokens, elem };
        let decode = DecodeSpec { codec, head_dim, group, page_tokens, elem, splits };
        Ok(Plan {
            kv_heads,
            heads,
            checked: desc.flags & CHECKED != 0,
            store: wants_store.then(|| StorePlan::prepare(&device, &store)).transpose()?,
            rope: rope.map(|rope| RopePlan::prepare(&device, &RopeSpec { store, rope })).transpose()?,
            decode: wants_decode.then(|| DecodePlan::prepare(&device, &decode)).transpose()?,
            queries: (wants_decode && queries > 1).then(|| QueriesPlan::prepare(&device, &decode, queries)).transpose()?,
            slots: wants_slots.then(|| SlotsPlan::prepare(&device, &SlotsSpec { codec, head_dim, slot_page_tokens, page_tokens, elem })).transpose()?,
            load: wants_load.then(|| LoadPlan::prepare(&device, &store)).transpose()?,
            merge: wants_merge.then(|| MergePlan::prepare(&device, head_dim, elem)).transpose()?,
            device,
        })
    }

    pub fn store(&self) -> Result<&StorePlan> {
        self.store.as_ref().ok_or_else(|| Misuse::Other("this plan cannot store; create it with KVF_PLAN_STORE".into()).into())
    }

    pub fn decode(&self) -> Result<&DecodePlan> {
        let none = || Misuse::Other("this plan cannot decode; create it with KVF_PLAN_DECODE".into()).into();
        self.decode.as_ref().ok_or_else(none)
    }

    pub fn queries(&self) -> Result<&QueriesPlan> {
        let text = "this plan decodes one query token a sequence; create it with queries above 1 and KVF_PLAN_DECODE";
        self.queries.as_ref().ok_or_else(|| Misuse::Other(text.into()).into())
    }

    pub fn slots(&self) -> Result<&SlotsPlan> {
        let none = || Misuse::Other("this plan has no slots; create it with KVF_PLAN_SLOTS".into()).into();
        self.slots.as_ref().ok_or_else(none)
    }

    pub fn merge(&self) -> Result<&MergePlan> {
        let none = || Misuse::Other("this plan cannot merge; create it with KVF_PLAN_MERGE".into()).into();
        self.merge.as_ref().ok_or_else(none)
    }

    pub fn load(&self) -> Result<&LoadPlan> {
        let none = || Misuse::Other("this plan cannot load; create it with KVF_PLAN_LOAD".into()).into();
        self.load.as_ref().ok_or_else(none)
    }
}
