//! The registry as a list of kernels to compile: the default codecs in every shape for Hopper and at their corners
//! for the other archs, every other family in one shape for each arch; the maps of a calibrated one.

use kernel_dsl::{Report, Source};
use kernels_gen::kernels::decode_attention::DecodeMeta;
use kernels_gen::kernels::rope::Rope;
use kernels_gen::kernels::{
    Elem, calibrated_meta, decode_ir, decode_meta, deep, export_slots_ir, halved, import_slots_ir, join_after, join_meta, join_of, join_splits, kivi as groups, load, lone, map_back, map_queries, mapped_store, mapped_store_ir, merge::merge,
    pca as blocks, queries_meta, rope_store, slot_meta, store, store_slots_ir, walked_store_meta,
};
use kernels_gen::kivi::{Kivi, KiviLayout, open};
use kernels_gen::pca::pages::{self, PcaLayout, PcaPages};
use kernels_gen::registry::{CodecInfo, FAMILIES, HEAD_DIMS_STORE, codec, codecs};
use runtime::Arch;

pub const ARCHS: [Arch; 5] = [Arch::SM_80, Arch::new(8, 9), Arch::SM_90A, Arch::new(10, 0), Arch::new(12, 0)];
const PAGE: usize = 64;
/// Bands of several widths.
const BANDS: [&str; 1] = ["e8w5+e8w4+e8w4+e8w2/e8w5+e8w3"];
/// The widths of kvfuse-2, -4 and -6.
const CALIBRATED: [&str; 3] = ["intc4211/intc3311", "intc6442", "intc7764"];
const HEAD_DIMS_DECODE: [usize; 3] = [64, 128, 256];
const GROUPS: [usize; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 16];
const CORNERS: [usize; 4] = [1, 4, 8, 16];
/// Codecs whose lanes and sides take most registers, and head dims and groups whose rows do.
const FULL: [&str; 6] = ["e8q152", "d4q152", "fp8_e4m3_64", "nvfp4", "turboquant_k8v4", "turboquant_3bit_nc"];
const FULL_ROWS: [(usize, usize); 3] = [(256, 4), (256, 7), (128, 16)];

#[derive(Clone, Copy)]
enum Kernel {
    Store(Elem),
    Load(Elem),
    /// Loaded coordinates back to rows.
    Back(Elem),
    Decode {
        group: usize,
    },
    /// Cut otherwise for calls of some sizes.
    Cut {
        which: Cut,
        group: usize,
    },
    /// Over records of queries.
    Calibrated {
        group: usize,
    },
    Join(Elem),
    Queries(Elem),
    MappedJoin(Elem),
    MappedStore(Elem),
    WalkedStore,
    /// Norm and RoPE in front of a store.
    Rope(Elem),
    MappedRope(Elem),
    Slots(Slots),
    /// Of KIVI's tiles.
    GroupsStore(&'static Kivi, Elem),
    GroupsDecode {
        kivi: &'static Kivi,
        group: usize,
    },
    Merge(Elem),
    /// Of the PCA codec's blocks.
    BlocksDecode {
        pca: &'static PcaPages,
        group: usize,
    },
    Fold(&'static PcaPages, Elem),
}

/// The other kernels of a plan.
#[derive(Clone, Copy)]
enum Cut {
    Halved,
    Lone,
    Deep,
}

impl Cut {
    fn of(self, m: &DecodeMeta) -> Option<DecodeMeta> {
        match self {
            Cut::Halved => halved(m),
            Cut::Lone => lone(m),
            Cut::Deep => deep(m),
        }
    }
}

/// Rows into slots of bf16 rows, slots into tiles, tiles into slots.
#[derive(Clone, Copy)]
enum Slots {
    Store,
    Import,
    Export,
}

/// Codecs with slots of every width.
const SLOTTED: [&str; 2] = ["turboquant_k8v4", "turboquant_3bit_nc"];

/// KIVI at both widths.
const KIVI: [&str; 2] = ["kivi_k2v2", "kivi_k4v4"];

/// Blocks of the PCA codec, of half the coordinates and of all; with outliers and a shared basis; keys before RoPE.
const PCA: [&str; 4] = ["pca_b3_post_r64", "pca_b2_post", "pca_b3_post_ds_t2_r64/pca_b2_share_ds_r64", "pca_b3_ds_t2_r64/pca_b2_share_ds_r64"];

/// One kernel to compile.
pub struct Config {
    pub arch: Arch,
    codec: &'static CodecInfo,
    d: usize,
    kernel: Kernel,
}

impl Config {
    /// As a device of this arch compiles it.
    pub fn source(&self) -> Result<Source, Report> {
        Ok(self.written()?.within(self.shared_limit() as usize).into_owned())
    }

    fn written(&self) -> Result<Source, Report> {
        match self.kernel {
            Kernel::Store(elem) => store(self.codec, self.d, PAGE, elem),
            Kernel::Load(elem) => load(self.codec, self.d, PAGE, elem),
            Kernel::Back(elem) => map_back(self.d, elem),
            Kernel::Decode { group } => {
                // As a plan does it: with the warps that fit the device.
                let meta = decode_meta(self.codec, self.d, group, PAGE).within(self.shared_limit() as usize);
                Source::of(&decode_ir(self.codec, &meta, Elem::Bf16)?)
            }
            Kernel::Cut { which, group } => {
                let meta = which.of(&decode_meta(self.codec, self.d, group, PAGE)).expect("a kernel that is cut so");
                Source::of(&decode_ir(self.codec, &meta, Elem::Bf16)?)
            }
            Kernel::Calibrated { group } => {
                let meta = calibrated_meta(self.codec, self.d, group, PAGE).within(self.shared_limit() as usize);
                Source::of(&decode_ir(self.codec, &meta, Elem::Bf16)?)
            }
            Kernel::Join(elem) => join_splits(self.codec, self.d, PAGE, elem),
            Kernel::MappedJoin(elem) => join_of(self.codec, &join_after(&calibrated_meta(self.codec, self.d, 4, PAGE)), elem),
            Kernel::MappedStore(elem) => mapped_store(self.codec, self.d, PAGE, elem),
            Kernel::WalkedStore => {
                let m = walked_store_meta(self.codec, self.d, PAGE, Elem::Bf16).expect("rows that blocks walk over");
                Source::of(&mapped_store_ir(self.codec, &m, Elem::Bf16)?)
            }
            Kernel::Rope(elem) => rope_store(self.codec, self.d, PAGE, elem, qwen3(self.d), false),
            Kernel::MappedRope(elem) => rope_store(self.codec, self.d, PAGE, elem, qwen3(self.d), true),
            Kernel::Queries(elem) => map_queries(self.codec, &queries_meta(&calibrated_meta(self.codec, self.d, 4, PAGE), elem)),
            Kernel::GroupsStore(kivi, elem) => groups::store(kivi, self.d, PAGE, elem),
            Kernel::GroupsDecode { kivi, group } => {
                let meta = groups::decode_meta(kivi, self.d, group, PAGE).within(self.shared_limit() as usize);
                Source::of(&decode_ir(self.codec, &meta, Elem::Bf16)?)
            }
            Kernel::Merge(elem) => merge(self.d, elem),
            Kernel::BlocksDecode { pca, group } => {
                let meta = blocks::decode_meta(pca, self.d, group).within(self.shared_limit() as usize);
                Source::of(&decode_ir(self.codec, &meta, Elem::Bf16)?)
            }
            Kernel::Fold(pca, elem) => blocks::fold_queries(&blocks::fold_meta(&blocks::decode_meta(pca, self.d, 4), elem)),
            Kernel::Slots(which) => {
                let m = slot_meta(self.codec, self.d, 16, PAGE, Elem::Bf16).expect("a codec with slots");
                Source::of(&match which {
                    Slots::Store => store_slots_ir(self.codec, &m, Elem::Bf16)?,
                    Slots::Import => import_slots_ir(self.codec, &m)?,
                    Slots::Export => export_slots_ir(self.codec, &m)?,
                })
            }
        }
    }

    /// Shared memory that one block may have on this arch.
    pub fn shared_limit(&self) -> u32 {
        self.arch.shared_bytes() as u32
    }

    /// Arch, kernel, codec and head dim.
    pub fn line(&self) -> String {
        let kernel = match self.kernel {
            Kernel::Store(_) => "store",
            Kernel::Load(_) => "load",
            Kernel::Decode { .. } => "decode",
            Kernel::Cut { which: Cut::Halved, .. } => "decode_halved",
            Kernel::Cut { which: Cut::Lone, .. } => "decode_lone",
            Kernel::Cut { which: Cut::Deep, .. } => "decode_deep",
            Kernel::Calibrated { .. } => "calibrated",
            Kernel::Join(_) => "join",
            Kernel::MappedStore(_) => "store_mapped",
            Kernel::WalkedStore => "store_walked",
            Kernel::Rope(_) => "store_rope",
            Kernel::MappedRope(_) => "store_rope_mapped",
            Kernel::Queries(_) => "map_queries",
            Kernel::MappedJoin(_) => "join_mapped",
            Kernel::Back(_) => "map_back",
            Kernel::GroupsStore(..) => "store",
            Kernel::GroupsDecode { .. } => "decode",
            Kernel::Merge(_) => "merge",
            Kernel::BlocksDecode { .. } => "decode",
            Kernel::Fold(..) => "fold_queries",
            Kernel::Slots(Slots::Store) => "store_slots",
            Kernel::Slots(Slots::Import) => "import_slots",
            Kernel::Slots(Slots::Export) => "export_slots",
        };
        let codec = match self.kernel {
            Kernel::GroupsStore(kivi, _) | Kernel::GroupsDecode { kivi, .. } => &kivi.name,
            Kernel::Merge(_) => "states",
            Kernel::BlocksDecode { pca, .. } | Kernel::Fold(pca, _) => &pca.name,
            _ => self.codec.name,
        };
        format!("{} {kernel} {codec} d{}", self.arch, self.d)
    }

    pub fn name(&self) -> String {
        match self.kernel {
            Kernel::Store(elem)
            | Kernel::MappedStore(elem)
            | Kernel::Rope(elem)
            | Kernel::MappedRope(elem)
            | Kernel::Load(elem)
            | Kernel::Back(elem)
            | Kernel::Join(elem)
            | Kernel::Queries(elem)
            | Kernel::MappedJoin(elem)
            | Kernel::GroupsStore(_, elem)
            | Kernel::Fold(_, elem)
            | Kernel::Merge(elem) => format!("{} {elem:?}", self.line()).replace("Bf16", "bf16").replace("F32", "f32"),
            Kernel::Decode { group } | Kernel::Cut { group, .. } | Kernel::Calibrated { group } | Kernel::GroupsDecode { group, .. } | Kernel::BlocksDecode { group, .. } => format!("{} group{group}", self.line()),
            Kernel::Slots(_) | Kernel::WalkedStore => self.line(),
        }
    }

    /// Instructions are counted and gated.
    pub fn counted(&self) -> bool {
        let usual = !matches!(self.kernel, Kernel::Decode { group } | Kernel::Calibrated { group } | Kernel::GroupsDecode { group, .. } | Kernel::BlocksDecode { group, .. } if ![1, 4, 8].contains(&group));
        self.arch == Arch::SM_90A && self.d == 128 && usual && !matches!(self.kernel, Kernel::Cut { .. })
    }

    /// Numbers in a tile of 32 tokens, and its bytes.
    pub fn tile(&self) -> (usize, usize) {
        let bytes = match self.kernel {
            Kernel::GroupsStore(kivi, _) | Kernel::GroupsDecode { kivi, .. } => KiviLayout::of(kivi, self.d).tile_bytes(),
            Kernel::BlocksDecode { pca, .. } | Kernel::Fold(pca, _) => PcaLayout::of(pca, self.d).tile_bytes(),
            _ => self.codec.tile_bytes(self.d),
        };
        (64 * self.d, bytes)
    }

    /// A loop over the tiles of a cache.
    pub fn loops(&self) -> bool {
        matches!(self.kernel, Kernel::Decode { .. } | Kernel::Calibrated { .. } | Kernel::GroupsDecode { .. } | Kernel::BlocksDecode { .. })
    }
}

/// What keys and queries of Qwen3 pass, and keys are given back too.
fn qwen3(d: usize) -> Rope {
    Rope { dims: d, pairs: false, norm: true, weights: true, table_elem: 4, group: 4, keys: true }
}

/// The other kernels of a plan for each of these groups.
fn cuts(codec: &'static CodecInfo, d: usize, groups: &[usize]) -> impl Iterator<Item = Kernel> {
    let all = [Cut::Halved, Cut::Lone, Cut::Deep].into_iter().flat_map(move |which| groups.iter().map(move |&group| (which, group)));
    all.filter(move |(which, group)| which.of(&decode_meta(codec, d, *group, PAGE)).is_some()).map(|(which, group)| Kernel::Cut { which, group })
}

pub fn configs() -> Vec<Config> {
    let mut all = vec![];
    for arch in ARCHS {
        for name in FAMILIES.iter().chain(&BANDS) {
            let Ok(codec) = codec(name) else { continue };
            if codecs().iter().any(|c| c.name == codec.name) {
                continue;
            }
            all.push(Config { arch, codec, d: 128, kernel: Kernel::Decode { group: 4 } });
            all.push(Config { arch, codec, d: 128, kernel: Kernel::Store(Elem::Bf16) });
            if arch == Arch::SM_90A {
                all.push(Config { arch, codec, d: 128, kernel: Kernel::Load(Elem::F32) });
                all.extend(cuts(codec, 128, &[4, 8]).map(|kernel| Config { arch, codec, d: 128, kernel }));
            }
        }
        for codec in FULL.iter().filter_map(|name| codec(name).ok()).filter(|_| arch == Arch::SM_90A) {
            all.extend(FULL_ROWS.map(|(d, group)| Config { arch, codec, d, kernel: Kernel::Decode { group } }));
        }
        for codec in CALIBRATED.iter().filter_map(|name| codec(name).ok()) {
            let mut add = |d, kernel| all.push(Config { arch, codec, d, kernel });
            add(128, Kernel::Store(Elem::F32));
            add(128, Kernel::Back(Elem::F32));
            for group in CORNERS {
                add(128, Kernel::Calibrated { group });
            }
            add(256, Kernel::Calibrated { group: 4 });
            if arch == Arch::SM_90A {
                add(128, Kernel::WalkedStore);
            }
        }
        for (of, d) in [Kernel::Queries, Kernel::MappedJoin, Kernel::MappedStore].into_iter().flat_map(|of| [(of, 128), (of, 256)]) {
            let Ok(codec) = codec(CALIBRATED[1]) else { continue };
            all.extend([Elem::Bf16, Elem::F32].map(|elem| Config { arch, codec, d, kernel: of(elem) }));
        }
        for d in [128, 256] {
            let Ok(codec) = codec(CALIBRATED[1]) else { continue };
            all.push(Config { arch, codec, d, kernel: Kernel::MappedRope(Elem::Bf16) });
        }
        for kivi in KIVI.iter().filter_map(|name| open(name)) {
            let codec = kivi.halves();
            let every = arch == Arch::SM_90A;
            for d in groups::HEAD_DIMS.into_iter().filter(|d| every || *d == 128) {
                all.extend([Elem::Bf16, Elem::F32].map(|elem| Config { arch, codec, d, kernel: Kernel::GroupsStore(kivi, elem) }));
                all.extend([1, 4, 8].map(|group| Config { arch, codec, d, kernel: Kernel::GroupsDecode { kivi, group } }));
            }
        }
        for pca in PCA.iter().filter_map(|name| pages::open(name)?.ok()) {
            let codec = &pca.halves;
            let every = |d: &usize| if pca.lead() > 0 { arch == Arch::SM_90A && *d == 128 } else { arch == Arch::SM_90A || *d == 128 };
            for d in blocks::HEAD_DIMS.into_iter().filter(every) {
                all.extend([Elem::Bf16, Elem::F32].map(|elem| Config { arch, codec, d, kernel: Kernel::Fold(pca, elem) }));
                all.extend([1, 4, 8].map(|group| Config { arch, codec, d, kernel: Kernel::BlocksDecode { pca, group } }));
            }
        }
        if let Some(codec) = codecs().first() {
            all.extend([64, 128, 256, 512].into_iter().flat_map(|d| [Elem::Bf16, Elem::F32].map(|elem| Config { arch, codec, d, kernel: Kernel::Merge(elem) })));
        }
        for codec in SLOTTED.iter().filter_map(|name| codec(name).ok()) {
            all.extend([Slots::Store, Slots::Import, Slots::Export].map(|which| Config { arch, codec, d: 128, kernel: Kernel::Slots(which) }));
        }
        for codec in codecs() {
            let mut add = |d, kernel| all.push(Config { arch, codec, d, kernel });
            for d in HEAD_DIMS_STORE {
                add(d, Kernel::Store(Elem::Bf16));
                add(d, Kernel::Store(Elem::F32));
                if arch == Arch::SM_90A || d == 128 {
                    add(d, Kernel::Load(Elem::F32));
                }
            }
            add(128, Kernel::Rope(Elem::Bf16));
            if arch == Arch::SM_90A {
                add(128, Kernel::Rope(Elem::F32));
                add(64, Kernel::Rope(Elem::Bf16));
                add(256, Kernel::Rope(Elem::Bf16));
            }
            for d in HEAD_DIMS_DECODE {
                let every = arch == Arch::SM_90A || d == 128;
                let groups: &[usize] = if every { &GROUPS } else { &CORNERS };
                groups.iter().for_each(|&group| add(d, Kernel::Decode { group }));
                if arch == Arch::SM_90A {
                    cuts(codec, d, &CORNERS).for_each(|kernel| add(d, kernel));
                }
                add(d, Kernel::Join(Elem::Bf16));
                add(d, Kernel::Join(Elem::F32));
            }
        }
    }
    all
}

/// The kernels that a model of head dim 128 with four query heads a kv head runs.
pub fn model(name: &str) -> Vec<Source> {
    let codec = codec(name).expect("a known codec");
    let decode = Config { arch: Arch::SM_90A, codec, d: 128, kernel: Kernel::Decode { group: 4 } }.source();
    let narrow = join_of(codec, &join_meta(128, PAGE).narrow(), Elem::Bf16);
    let all = [store(codec, 128, PAGE, Elem::Bf16), decode, join_splits(codec, 128, PAGE, Elem::Bf16), narrow];
    all.into_iter().map(|s| s.expect("it builds")).collect()
}
