//! The shipped codecs by name.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::codec::{Codec, Spec};
use crate::codecs::{Affine, Bf16, D4Q, D4QBytes, E8C, E8Q, E8QBytes, E8W, Fp8, Fp8Group, Int, Int4Head, IntC, Lloyd, Mxfp4, Nvfp4};
use crate::layout::{Codes, Layout, Operand};
use kernel_dsl::ir::Group;

/// Head dims that a cache can be written with.
pub const HEAD_DIMS_STORE: [usize; 4] = [64, 128, 256, 512];

/// How a cache is coded: one codec for its keys, one for its values.
#[derive(Clone, Copy, Debug)]
pub struct CodecInfo {
    /// `name` of the codec, or `keys/values` where there are two.
    pub name: &'static str,
    pub k: Half,
    pub v: Half,
}

/// How keys or values are coded: one codec, or one for each band of equally many dims; what all bands share
/// (sides, rotation, lanes) is the first one's.
#[derive(Clone, Copy, Debug)]
pub struct Half {
    spec: Spec,
    pub bands: &'static [&'static dyn Codec],
}

impl Deref for Half {
    type Target = Spec;
    fn deref(&self) -> &Spec {
        &self.spec
    }
}

impl Half {
    /// One codec for the whole vector.
    pub fn of(codec: &'static dyn Codec) -> Half {
        Half::new(vec![codec].leak())
    }

    /// `bands`: 1, 2 or 4 codecs.
    pub fn new(bands: &'static [&'static dyn Codec]) -> Half {
        let spec = bands[0].spec();
        if let Some(why) = contradiction(&spec) {
            panic!("{}: {why}", bands[0].name());
        }
        Half { spec, bands }
    }

    /// The codec of a block of 8 coordinates, of `blocks` that make a vector.
    pub fn codec(&self, block: usize, blocks: usize) -> &'static dyn Codec {
        self.bands[block * self.bands.len() / blocks]
    }

    /// Bytes of a vector of `d` coordinates in a slot: its levels, then its sides.
    pub fn slot_bytes(&self, d: usize) -> usize {
        d * self.level_bits / 8 + 2 * self.sides
    }

    fn codes(&self) -> Codes {
        let bits = std::array::from_fn(|i| self.bands.get(i).map_or(0, |c| c.spec().bits));
        Codes { bits, bands: self.bands.len(), sides: self.sides, bytewise: self.bytewise, group: Group { dims: self.group, bits: self.shared } }
    }

    /// Bytes of one coded vector of `d` coordinates, sides included.
    pub fn vector_bytes(&self, d: usize) -> usize {
        self.codes().vector_bits(d) / 8 + 2 * self.sides
    }
}

/// The codecs that tests, benches and the harness take when none is named.
static CODECS: LazyLock<Vec<&'static CodecInfo>> = LazyLock::new(|| ["bf16", "int4", "e8w4", "e8q38"].iter().filter_map(|n| codec(n).ok()).collect());

/// Everything that was asked for by name; entries live as long as the program.
static OPENED: Mutex<BTreeMap<String, &'static CodecInfo>> = Mutex::new(BTreeMap::new());

/// Codecs of other crates, by their names.
static REGISTERED: Mutex<BTreeMap<String, &'static dyn Codec>> = Mutex::new(BTreeMap::new());

/// One codec of every family that is shipped.
pub fn codecs() -> &'static [&'static CodecInfo] {
    &CODECS
}

/// Every name, as a user reads it, and the range of its number.
const KNOWN_NAMES: [(&str, &str); 30] = [
    ("bf16", ""),
    ("fp8_e4m3", ""),
    ("fp8_e4m3_token", ""),
    ("fp8_e4m3_64", ""),
    ("fp8_e4m3_64_e8m0", ""),
    ("nvfp4", ""),
    ("nvfp4_tN", "N 1 to 8"),
    ("mxfp4", ""),
    ("intW", "W 2 to 8"),
    ("intW_plain", "W 2 to 8"),
    ("intW_tried", "W 2 to 4"),
    ("e8wW", "W 2 to 7"),
    ("e8wW_tried", "W 2 to 5"),
    ("e8cW", "W 1 to 7, calibrated coordinates"),
    ("intcABCD", "1, 2, 4 or 8 widths of 1 to 8 that fill bytes, calibrated coordinates"),
    ("kvfuse-W", "W 2, 3, 4 or 6, in `harness ppl`"),
    ("pca_static_W", "W 2, 3, 4 or 6, in `harness ppl`"),
    ("pca_bW", "W 1 to 4, with options; plans of blocks of 512 tokens for what pages hold, and `harness ppl`"),
    ("pca_v13", "with options, in `harness ppl`"),
    ("kivi_kAvB", "A and B 1 to 8, `_rN` for N raw tokens; plans of whole tiles, and `harness ppl`"),
    ("e8qQ", "Q 1 to 255"),
    ("e8q38", ""),
    ("d4qQ", "Q 1 to 255"),
    ("int4_per_token_head", ""),
    ("affineW", "W 2 to 8"),
    ("lloydW", "W 3 or 4"),
    ("turboquant_k8v4", ""),
    ("turboquant_4bit_nc", ""),
    ("turboquant_k3v4_nc", ""),
    ("turboquant_3bit_nc", ""),
];

/// Names of their own for two codecs, keys and values.
const PAIRS: [(&str, &str); 4] = [("turboquant_k8v4", "fp8_e4m3/affine4"), ("turboquant_4bit_nc", "lloyd4/affine4"), ("turboquant_k3v4_nc", "lloyd3/affine4"), ("turboquant_3bit_nc", "lloyd3/affine3")];

/// Names that stand for every family, every width of its codes and every way to decode them.
pub const FAMILIES: [&str; 40] = [
    "fp8_e4m3",
    "fp8_e4m3_token",
    "fp8_e4m3_64",
    "fp8_e4m3_64_e8m0",
    "nvfp4",
    "mxfp4",
    "bf16",
    "int2",
    "int3",
    "int4",
    "int5",
    "int6",
    "int7",
    "int8",
    "int4_plain",
    "e8w2",
    "e8w3",
    "e8w4",
    "e8w5",
    "e8w6",
    "e8w7",
    "e8q1",
    "e8q7",
    "e8q10",
    "e8q19",
    "e8q38",
    "e8q63",
    "e8q152",
    "d4q1",
    "d4q10",
    "d4q19",
    "d4q38",
    "d4q152",
    "e8q38/int4",
    "turboquant_k8v4",
    "turboquant_4bit_nc",
    "turboquant_k3v4_nc",
    "turboquant_3bit_nc",
    "int4_per_token_head",
    "affine3",
];

/// Makes a codec of another crate known by its name, alone or in `KEYS/VALUES` and bands, to all that look names up in this
/// program: plans and the C library, the harness, parity, benches. Fails where the name is taken or the constants contradict
/// each other.
pub fn register(codec: &'static dyn Codec) -> Result<&'static CodecInfo, Refused> {
    let (name, spec) = (codec.name(), codec.spec());
    let refused = |why: &str| Err(Refused { name: name.clone(), why: why.to_string() });
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return refused("a name has letters, digits, _ and -");
    }
    if let Some(why) = contradiction(&spec) {
        return refused(why);
    }
    if made(&name).is_some() || PAIRS.iter().any(|pair| pair.0 == name) {
        return refused("the name is taken");
    }
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), codec);
    self::codec(&name).map_err(|unknown| Refused { name: unknown.name, why: "it cannot be opened".into() })
}

/// What is wrong with the constants of a codec.
fn contradiction(s: &Spec) -> Option<&'static str> {
    let wrong = [
        (s.bits == 0 || s.bits > 128, "a block of eight coordinates takes 1 to 128 bits"),
        (s.sides > 2, "a vector has at most 2 side values"),
        (s.tries == 0, "tries is at least 1"),
        (s.affine && (!s.exact() || !s.even() || s.zero2 <= 0), "affine codecs need integer lanes and an even zero2 above 0"),
        (s.group > 0 && (s.exact() || s.tries > 1 || s.group % 8 != 0 || !s.group.is_power_of_two() || s.group > 64), "groups are of 8 to 64 coordinates, a power of two, with bf16 lanes and one try"),
        (s.group > 0 && (![8, 16, 32].contains(&s.shared) || s.bits.div_ceil(32) > 3), "a group shares 8, 16 or 32 bits, in a word behind the code's own"),
    ];
    wrong.iter().find(|(is, _)| *is).map(|(_, why)| *why)
}

/// The codec of that name: `e8w4`, or `int4/e8w4` for keys and values apart.
pub fn codec(name: &str) -> Result<&'static CodecInfo, UnknownCodec> {
    let mut known = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(info) = known.get(name) {
        return Ok(info);
    }
    let pair = PAIRS.iter().find(|p| p.0 == name).map_or(name, |p| p.1);
    let (k, v) = pair.split_once('/').unwrap_or((name, name));
    let info = CodecInfo { name: name.to_string().leak(), k: half(k, 4)?, v: half(v, 2)? };
    let info: &'static CodecInfo = Box::leak(Box::new(info));
    known.insert(name.to_string(), info);
    Ok(info)
}

/// `e8w4`, or `e8w5+e8w4+e8w4+e8w2`: the bands of a vector, at most `most`.
fn half(name: &str, most: usize) -> Result<Half, UnknownCodec> {
    let unknown = |name: &str| UnknownCodec { name: name.to_string() };
    let bands = name.split('+').map(|n| made(n).ok_or_else(|| unknown(n))).collect::<Result<Vec<_>, _>>()?;
    let alike = |a: Spec, b: Spec| (a.sides, a.lane, a.rotate, a.unit, a.even(), a.tries, a.searches, a.affine, a.corrected, a.apart) == (b.sides, b.lane, b.rotate, b.unit, b.even(), b.tries, b.searches, b.affine, b.corrected, b.apart);
    let fits = bands.len().is_power_of_two() && bands.len() <= most && bands.iter().all(|c| alike(c.spec(), bands[0].spec()) && (bands.len() == 1 || c.spec().bits % 8 == 0 && c.spec().group == 0 && !c.spec().mixed));
    if fits { Ok(Half::new(bands.leak())) } else { Err(unknown(name)) }
}

/// The one line a codec or a family needs here.
fn made(name: &str) -> Option<&'static dyn Codec> {
    let number = |before: &str, after: &str| name.strip_prefix(before)?.strip_suffix(after)?.parse::<usize>().ok();
    let kept = |c: Box<dyn Codec>| -> &'static dyn Codec { Box::leak(c) };
    if name == "bf16" {
        return Some(&Bf16);
    }
    if let Some(scaled) = ["fp8_e4m3", "fp8_e4m3_token"].iter().position(|n| *n == name) {
        return Some(kept(Box::new(Fp8::new(scaled == 1))));
    }
    if let Some(power) = ["fp8_e4m3_64", "fp8_e4m3_64_e8m0"].iter().position(|n| *n == name) {
        return Some(kept(Box::new(Fp8Group::new(power == 1))));
    }
    if name == "mxfp4" {
        return Some(&Mxfp4);
    }
    if name == "nvfp4" {
        return Some(kept(Box::new(Nvfp4::new(0))));
    }
    if let Some(tensor @ 1..=8) = number("nvfp4_t", "") {
        return Some(kept(Box::new(Nvfp4::new(tensor))));
    }
    if name == "int4_per_token_head" {
        return Some(&Int4Head);
    }
    if let Some(width @ 2..=8) = number("int", "") {
        return Some(kept(Box::new(Int::new(width, true))));
    }
    if let Some(width @ 2..=8) = number("int", "_plain") {
        return Some(kept(Box::new(Int::new(width, false))));
    }
    if let Some(width @ 2..=4) = number("int", "_tried") {
        return Some(kept(Box::new(Int::tried(width))));
    }
    if let Some(width @ 2..=5) = number("e8w", "_tried") {
        return Some(kept(Box::new(E8W::tried(width))));
    }
    if let Some(width @ 2..=7) = number("e8w", "") {
        return Some(kept(Box::new(E8W::new(width))));
    }
    if let Some(width @ 1..=7) = number("e8c", "") {
        return Some(kept(Box::new(E8C::new(width))));
    }
    if let Some(widths) = name.strip_prefix("intc").and_then(|w| w.chars().map(|c| Some(c.to_digit(10)? as usize)).collect::<Option<Vec<_>>>()) {
        return IntC::of(&widths).map(|c| kept(Box::new(c)));
    }
    if let Some(width @ 2..=8) = number("affine", "") {
        return Some(kept(Box::new(Affine::new(width))));
    }
    if let Some(width @ 3..=4) = number("lloyd", "") {
        return Some(kept(Box::new(Lloyd::new(width))));
    }
    if let Some(q @ 1..=255) = number("e8q", "") {
        return Some(E8QBytes::of(q).map_or_else(|| kept(Box::new(E8Q::new(q))), |c| kept(Box::new(c))));
    }
    if let Some(q @ 1..=255) = number("d4q", "") {
        return Some(D4QBytes::of(q).map_or_else(|| kept(Box::new(D4Q::new(q))), |c| kept(Box::new(c))));
    }
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
}

impl CodecInfo {
    /// One codec for keys and values. Its name is kept for the rest of the program.
    pub fn of(codec: &'static dyn Codec) -> CodecInfo {
        CodecInfo { name: codec.name().leak(), k: Half::of(codec), v: Half::of(codec) }
    }

    /// One codec for keys, one for values.
    pub fn pair(k: &'static dyn Codec, v: &'static dyn Codec) -> CodecInfo {
        CodecInfo { name: format!("{}/{}", k.name(), v.name()).leak(), k: Half::of(k), v: Half::of(v) }
    }

    /// Decode promises the same bits on every device: its cross-lane sums are integers.
    pub fn exact(&self) -> bool {
        self.k.exact() && self.v.exact()
    }

    /// Whether tokens have the form of slots: [`crate::kernels::slots`]. Both codecs have levels and one band.
    pub fn has_slots(&self) -> bool {
        [&self.k, &self.v].iter().all(|half| half.level_bits > 0 && half.bands.len() == 1)
    }

    /// Whether rows of `d` coordinates can be cut into the bands: 32 dims at least for keys, 64 for values.
    pub fn serves(&self, d: usize) -> bool {
        let (k, v) = (self.k.bands.len(), self.v.bands.len());
        (k == 1 || d / k >= 32) && (v == 1 || d / v >= 64)
    }

    /// The codec of that side of the cache.
    pub fn half(&self, operand: Operand) -> &Half {
        match operand {
            Operand::K => &self.k,
            Operand::V => &self.v,
        }
    }

    /// Where codes and sides lie in a tile of rows of `d` coordinates.
    pub fn layout(&self, d: usize) -> Layout {
        Layout { k: self.k.codes(), v: self.v.codes(), d }
    }

    pub fn tile_bytes(&self, d: usize) -> usize {
        self.layout(d).tile_bytes()
    }

    /// Bytes of a token's key and value of one kv head, sides included.
    pub fn token_bytes(&self, d: usize) -> usize {
        self.k.vector_bytes(d) + self.v.vector_bytes(d)
    }

    /// Bits a cached element takes in memory, sides included.
    pub fn stored_bits_per_element(&self, d: usize) -> f64 {
        (8 * self.tile_bytes(d)) as f64 / (64 * d) as f64
    }
}

/// Why a codec was not registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub name: String,
    pub why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "codec `{}` is not registered: {}", self.name, self.why)
    }
}

impl std::error::Error for Refused {}

/// A codec name that is not in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCodec {
    pub name: String,
}

impl fmt::Display for UnknownCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = KNOWN_NAMES;
        known.sort_by_key(|(name, _)| edit_distance(&self.name, name));
        let known: Vec<String> = known.iter().map(|(name, range)| if range.is_empty() { name.to_string() } else { format!("{name} ({range})") }).collect();
        write!(f, "unknown codec `{}`; known codecs, nearest first: {}; KEYS/VALUES for two of them", self.name, known.join(", "))
    }
}

impl std::error::Error for UnknownCodec {}

/// Levenshtein distance by the two-row recurrence.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
