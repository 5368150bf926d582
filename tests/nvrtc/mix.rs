//! How many instructions the kernels are, and which pipes they load: counted in their machine code, kept in `mix.txt`.
//!
//! A turn of the main loop takes a warp through 32 tokens of keys and values, so its instructions are what decode attention
//! costs. The gate: a loop may grow by 3 % and a kernel by 5 % over what is recorded. `KVF_RECORD=1` records what was
//! compiled in that run. Needs nvdisasm; see [`find`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use super::sass::{Instruction, main_loop, read};

static RECORDED: LazyLock<String> = LazyLock::new(|| super::ledger("mix.txt"));

/// Cycles that an instruction of a warp keeps its pipe, measured on an H200: KIND, cycles, pipe, first words of its ops.
const KINDS: [(&str, f64, &str, &[&str]); 9] = [
    ("tensor", 6.2, "tensor", &["IMMA", "HMMA", "QGMMA", "HGMMA", "IGMMA"]),
    ("special", 8.0, "special", &["MUFU", "POPC", "FLO", "I2F", "F2I", "FRND"]),
    ("shuffle", 4.0, "memory", &["SHFL", "MOVM", "VOTE", "MATCH", "REDUX"]),
    ("shared", 1.6, "memory", &["LDS", "STS", "LDSM", "ATOMS", "SYNCS", "UBLKCP"]),
    ("global", 1.6, "memory", &["LDG", "STG", "LDL", "STL", "LD", "ST", "ATOMG", "RED", "LDC", "LDGSTS"]),
    ("multiply", 2.2, "fma", &["IMAD", "IDP"]),
    ("float", 1.7, "fma", &["FFMA", "FMUL", "FADD", "HFMA2", "HADD2", "HMUL2"]),
    ("control", 0.0, "none", &["BRA", "BSSY", "BSYNC", "WARPSYNC", "ENDCOLLECTIVE", "NOP", "EXIT", "CALL", "RET", "YIELD", "BAR", "FENCE", "PREEXIT", "DEPBAR", "ERRBAR", "MEMBAR", "CCTL"]),
    // Logic, shifts, additions, selections, comparisons, conversions to narrower types; also what is not listed above.
    ("alu", 2.3, "alu", &[]),
];

/// Bytes a second and sub-partition of an H200 at 4.3 TB/s, over its cycles a second.
const BYTES_A_CYCLE: f64 = 4.3e12 / (132.0 * 4.0) / 1.98e9;

/// Instructions of a kernel: all of them, those of a turn of its loop, and the latter by kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    pub whole: usize,
    /// Of the main loop: what every turn passes, and what a branch may jump over.
    pub turn: Option<(usize, usize)>,
    /// What every turn passes by kind; without a loop, the whole kernel.
    pub kinds: [usize; KINDS.len()],
}

fn kind(op: &str) -> usize {
    let word = op.split('.').next().unwrap_or(op);
    KINDS.iter().position(|k| k.3.contains(&word)).unwrap_or(KINDS.len() - 1)
}

impl Mix {
    fn of(all: &[Instruction]) -> Mix {
        let main = main_loop(all);
        let counted: Vec<&Instruction> = main.as_ref().map_or_else(|| all.iter().collect(), |m| m.always.clone());
        let mut kinds = [0; KINDS.len()];
        counted.iter().for_each(|i| kinds[kind(&i.op)] += 1);
        Mix { whole: all.len(), turn: main.map(|m| (m.always.len(), m.sometimes.len() + m.around.len())), kinds }
    }

    /// Disassembles a cubin.
    pub fn read(tool: &Path, cubin: &[u8], name: &str) -> Result<Mix, String> {
        let file = std::env::temp_dir().join(format!("kvf-mix-{}-{}.cubin", std::process::id(), name.replace([' ', '/'], "_")));
        std::fs::write(&file, cubin).map_err(|e| format!("{}: {e}", file.display()))?;
        let output = Command::new(tool).arg("-c").arg(&file).output();
        let _ = std::fs::remove_file(&file);
        let output = output.map_err(|e| format!("{} does not run: {e}", tool.display()))?;
        if !output.status.success() {
            return Err(format!("{} on {name}: {}", tool.display(), String::from_utf8_lossy(&output.stderr)));
        }
        Ok(Mix::of(&read(&String::from_utf8_lossy(&output.stdout))))
    }

    /// Issue slots an element of a tile of `elements`, the busiest pipe, and its share of the time that reading the
    /// tile's `bytes` takes.
    pub fn load(&self, elements: usize, bytes: usize) -> (f64, &'static str, f64) {
        let issued: usize = self.kinds.iter().sum();
        let cycles = |pipe: &str| KINDS.iter().zip(self.kinds).filter(|(k, _)| k.2 == pipe).map(|(k, n)| k.1 * n as f64).sum::<f64>();
        let pipes = ["alu", "fma", "tensor", "special", "memory"].map(|pipe| (cycles(pipe), pipe));
        let issue = (issued as f64, "issue");
        let (most, pipe) = pipes.into_iter().fold(issue, |a, b| if b.0 > a.0 { b } else { a });
        (32.0 * issued as f64 / elements as f64, pipe, most / (bytes as f64 / BYTES_A_CYCLE))
    }

    /// Why this is more than `before` may become.
    fn over(&self, name: &str, before: &Mix) -> Option<String> {
        let grown = |what: &str, now: usize, was: usize, share: f64| {
            let most = (was as f64 * (1.0 + share)).max(was as f64 + 4.0);
            (now as f64 > most).then(|| format!("{name}: {what} has {now} instructions, recorded {was}"))
        };
        let of_turn = self.turn.zip(before.turn).and_then(|(now, was)| grown("a turn of the loop", now.0, was.0, 0.03));
        of_turn.or_else(|| grown("the kernel", self.whole, before.whole, 0.05))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whole {}", self.whole)?;
        if let Some((always, sometimes)) = self.turn {
            write!(f, " turn {always} sometimes {sometimes}")?;
        }
        KINDS.iter().zip(self.kinds).filter(|(_, n)| *n > 0).try_for_each(|(k, n)| write!(f, " {} {n}", k.0))
    }
}

/// The inverse of `Display`.
fn parse(text: &str) -> Option<Mix> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words.chunks(2).map(|p| Some((*p.first()?, p.get(1)?.parse().ok()?))).collect::<Option<BTreeMap<&str, usize>>>()?;
    let turn = pairs.get("turn").copied().zip(pairs.get("sometimes").copied());
    Some(Mix { whole: *pairs.get("whole")?, turn, kinds: KINDS.map(|k| pairs.get(k.0).copied().unwrap_or(0)) })
}

/// Whether the file has a kernel.
pub fn knows(name: &str) -> bool {
    RECORDED.lines().any(|l| l.split_once(": ").is_some_and(|(of, _)| of == name))
}

/// What the file says of a kernel.
pub fn known(name: &str) -> Result<Mix, String> {
    recorded().remove(name).ok_or_else(|| format!("{name} is not in mix.txt; record it with KVF_RECORD=1"))
}

/// `name: mix` a line.
fn recorded() -> BTreeMap<String, Mix> {
    let lines = RECORDED.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let read = |l: &str| l.split_once(": ").and_then(|(name, mix)| Some((name.to_string(), parse(mix)?)));
    lines.map(|l| read(l).unwrap_or_else(|| panic!("mix.txt: `{l}`; record it anew with KVF_RECORD=1"))).collect()
}

/// nvdisasm: `KVF_NVDISASM` (a file), beside NVRTC's folder (`../bin`), in `CUDA_HOME`, on the path.
pub fn find() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(own) = set("KVF_NVDISASM") {
        return if own.is_file() { Ok(own) } else { Err(format!("KVF_NVDISASM: {} is no file", own.display())) };
    }
    let beside = runtime::nvrtc::file().and_then(|f| Some(Path::new(&f).parent()?.parent()?.join("bin")));
    let path = std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect::<Vec<_>>()).unwrap_or_default();
    let folders = beside.into_iter().chain(set("CUDA_HOME").map(|h| h.join("bin"))).chain(path);
    let found = folders.map(|f| f.join("nvdisasm")).find(|f| f.is_file());
    found.ok_or_else(|| "no nvdisasm; pip install nvidia-cuda-nvdisasm, or say where with KVF_NVDISASM".into())
}

/// What grew beyond the record, and what is not in it.
pub fn gate<'a>(rows: impl Iterator<Item = (String, &'a Mix)>) -> Vec<String> {
    let before = recorded();
    let judge = |(name, mix): (String, &Mix)| match before.get(&name) {
        Some(was) => mix.over(&name, was),
        None => Some(format!("{name} is not in mix.txt; record it with KVF_RECORD=1")),
    };
    rows.filter_map(judge).collect()
}

/// Writes what was counted; kernels that this run left out stay as they are.
pub fn record<'a>(rows: impl Iterator<Item = (String, &'a Mix)>, complete: bool) -> std::io::Result<()> {
    let mut all = if complete { BTreeMap::new() } else { recorded() };
    rows.for_each(|(name, mix)| drop(all.insert(name, mix.clone())));
    let mut text = String::from(
        "# Instructions of kernels for sm_90a: `whole`, of the main loop those that every turn passes (`turn`) and the others, the turn's by\n# kind; without a loop the whole kernel's. NVRTC 13.0. Written by: KVF_RECORD=1 cargo test --release --test nvrtc\n",
    );
    all.iter().for_each(|(name, mix)| text += &format!("{name}: {mix}\n"));
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvrtc/mix.txt"), text)
}

#[test]
fn growth_is_found() {
    let was = parse("whole 1000 turn 400 sometimes 90 tensor 16 alu 200 float 184").expect("it parses");
    assert_eq!(parse(&was.to_string()), Some(was.clone()));
    let now = |whole, turn| Mix { whole, turn: Some((turn, 90)), ..was.clone() };
    assert_eq!(now(1050, 412).over("k", &was), None);
    assert_eq!(now(1000, 413).over("k", &was).as_deref(), Some("k: a turn of the loop has 413 instructions, recorded 400"));
    assert!(now(1051, 400).over("k", &was).is_some_and(|text| text.contains("the kernel has 1051")));
    // 400 slots of 32 lanes over 8192 elements; the ALU pipe is the busiest: 200 times 2.3 cycles.
    let (slots, pipe, share) = was.load(8192, 4352);
    assert_eq!((slots, pipe), (1.5625, "alu"));
    assert!((share - 460.0 / (4352.0 / BYTES_A_CYCLE)).abs() < 1e-9);
    assert_eq!((kind("IMAD.MOV.U32"), kind("LOP3.LUT"), kind("SHFL.BFLY")), (5, 8, 2));
}
