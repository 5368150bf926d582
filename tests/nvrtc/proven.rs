//! What a text compiled to once, it compiles to again: `proven.txt` keeps registers and spills by the text's key, and a run compiles
//! only texts that are not there, and one in sixteen of those that are, others whenever the file changes.
//!
//! A key holds text, options, arch and NVRTC's version, as a cubin's does in the cache. `KVF_ANEW=1` compiles everything;
//! `KVF_RECORD=1` writes the file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, PoisonError};

use kernel_dsl::Source;
use runtime::Arch;
use runtime::cache::{Cache, Key};
use runtime::compile::{Compiled, compile_in, key};

/// Letters of a key that the file keeps.
const LETTERS: usize = 16;
const FILE: &str = "proven.txt";

/// What the compiler said of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    pub registers: u32,
    pub spill_bytes: u32,
    pub shared_bytes: u32,
}

/// By the test that asks, and the key.
type Proofs = BTreeMap<(String, String), Proof>;

static KNOWN: LazyLock<String> = LazyLock::new(|| super::ledger(FILE));
static BY_KEY: LazyLock<BTreeMap<String, Proof>> = LazyLock::new(|| parse(&KNOWN).into_iter().map(|((_, key), proof)| (key, proof)).collect());
static USED: Mutex<Proofs> = Mutex::new(Proofs::new());

fn parse(text: &str) -> Proofs {
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [test, key, registers, spill, shared] = words[..] else { return None };
        let proof = Proof { registers: registers.parse().ok()?, spill_bytes: spill.parse().ok()?, shared_bytes: shared.parse().ok()? };
        Some(((test.to_string(), key.to_string()), proof))
    };
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    lines.map(|l| read(l).unwrap_or_else(|| panic!("{FILE}: `{l}`; write `test key registers spilt shared`"))).collect()
}

/// One in sixteen keys, another sixteenth for another file.
fn sampled(key: &str, file: &str) -> bool {
    key.starts_with(&Key::new(file, &[], (0, 0)).to_string()[..1])
}

pub fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|v| v == "1")
}

/// What one kernel takes, and what was compiled to know it: nothing where the file knows, unless the cubin is `wanted`.
pub fn prove(test: &str, source: &Source, arch: Arch, wanted: bool) -> Result<(Proof, Option<Compiled>), String> {
    let key = key(source, arch).map_err(|e| e.to_string())?.to_string()[..LETTERS].to_string();
    let known = BY_KEY.get(&key).copied();
    let used = |proof| {
        USED.lock().unwrap_or_else(PoisonError::into_inner).insert((test.into(), key.clone()), proof);
    };
    if let Some(proof) = known.filter(|_| !wanted && !set("KVF_ANEW") && !sampled(&key, &KNOWN)) {
        used(proof);
        return Ok((proof, None));
    }
    let compiled = compile_in(&Cache::in_memory(), source, arch).map_err(|e| e.to_string())?;
    let resources = compiled.resources();
    let [r] = &resources[..] else { return Err(format!("the log names {} kernels, wanted 1:\n{}", resources.len(), compiled.log)) };
    let proof = Proof { registers: r.registers, spill_bytes: r.spill_stores + r.spill_loads, shared_bytes: r.shared_bytes };
    used(proof);
    match known.filter(|known| *known != proof && !set("KVF_RECORD")) {
        Some(known) => Err(format!("{FILE} says {known:?} of {key}, NVRTC {proof:?}; record it anew with KVF_RECORD=1 KVF_ANEW=1")),
        None => Ok((proof, Some(compiled))),
    }
}

/// With `KVF_RECORD=1`: writes what `test` asked for; `all`: and nothing else of it.
pub fn record(test: &str, all: bool) {
    if !set("KVF_RECORD") {
        return;
    }
    let used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut proofs = parse(&super::ledger(FILE));
    proofs.retain(|(of, _), _| !all || of != test);
    proofs.extend(used.iter().filter(|((of, _), _)| of == test).map(|(k, p)| (k.clone(), *p)));
    let mut text = String::from("# Test, key of a text, registers, bytes spilt, bytes of shared memory beside the dynamic. NVRTC 13.0.\n");
    text += "# Written by: KVF_RECORD=1 cargo test --release --test nvrtc\n";
    for ((test, key), p) in proofs {
        let _ = writeln!(text, "{test} {key} {} {} {}", p.registers, p.spill_bytes, p.shared_bytes);
    }
    std::fs::write(super::path(FILE), text).unwrap_or_else(|e| panic!("{FILE}: {e}"));
}

#[test]
fn a_sample_is_a_sixteenth() {
    let keys: Vec<String> = (0..16).map(|i| format!("{i:x}{:015x}", i * 77)).collect();
    let chosen = |file: &str| keys.iter().filter(|k| sampled(k, file)).cloned().collect::<Vec<_>>();
    assert!(["a", "b", "c"].iter().all(|file| chosen(file).len() == 1));
    assert!((0..64).map(|i| chosen(&i.to_string())).collect::<std::collections::BTreeSet<_>>().len() > 8);
    let line = "kernels 0123456789abcdef 128 16 1024";
    let proof = Proof { registers: 128, spill_bytes: 16, shared_bytes: 1024 };
    assert_eq!(parse(line).into_iter().collect::<Vec<_>>(), [(("kernels".into(), "0123456789abcdef".into()), proof)]);
}
