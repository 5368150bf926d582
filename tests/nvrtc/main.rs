//! Every registered kernel compiles for every served arch, without a GPU, within its ceiling of spills.
//!
//! The gate: nothing spills, unless `ceilings.txt` names the kernel and how much. So growth fails; nor may instructions grow, see
//! `mix.rs`. `KVF_RECORD=1` writes both files anew.
//! `KVF_ONLY=sm_90a\ map` compiles, and records, those whose names hold it. Without libnvrtc the test prints SKIPPED, unless `KVF_REQUIRE_NVRTC=1`; without nvdisasm instructions are not counted, unless `KVF_REQUIRE_NVDISASM=1`.

mod configs;
mod forward;
mod latent;
mod many;
mod mix;
mod proven;
mod sass;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use configs::{Config, configs};
use mix::Mix;
use proven::{prove, set};
use runtime::cache::Cache;
use runtime::compile::compile_in;

/// The compiler that the ceilings were recorded with: another one spills differently.
const RECORDED_WITH: (i32, i32) = (13, 0);
static CEILINGS: LazyLock<String> = LazyLock::new(|| ledger("ceilings.txt"));

/// Read by tests that compile, written by the one that times: it has the machine to itself.
static MACHINE: RwLock<()> = RwLock::new(());

pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Of a file beside this one.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvrtc").join(name)
}

/// A file beside this one as it is now: another run may just have recorded its part.
pub fn ledger(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a compiled configuration takes.
struct Taken {
    registers: u32,
    spill_bytes: u32,
    shared_bytes: u32,
    /// Of compiling, unless it was proven before.
    ms: Option<u128>,
    mix: Option<Mix>,
}

/// `tool`: nvdisasm, for kernels whose instructions are counted.
fn compile(config: &Config, tool: Option<&Path>) -> Result<Taken, String> {
    let name = config.name();
    let source = config.source().map_err(|e| format!("{name}: {e}"))?;
    let counted = tool.filter(|_| config.counted());
    let start = Instant::now();
    let (proof, compiled) = prove("kernels", &source, config.arch, counted.is_some() && !mix::knows(&name)).map_err(|e| format!("{name}: {e}"))?;
    let ms = compiled.as_ref().map(|_| start.elapsed().as_millis());
    let count = |tool| compiled.map_or_else(|| mix::known(&name), |c| Mix::read(tool, &c.cubin, &name));
    let mix = counted.map(count).transpose()?;
    Ok(Taken { registers: proof.registers, spill_bytes: proof.spill_bytes, shared_bytes: source.shared_bytes + proof.shared_bytes, ms, mix })
}

/// All configurations on a thread a core, in their order.
fn compile_all(all: &[Config], tool: Option<&Path>) -> Vec<Result<Taken, String>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            s.spawn(|| {
                while let Some((i, config)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, all.get(i)?))) {
                    let result = compile(config, tool);
                    done.lock().expect("no thread panics").insert(i, result);
                }
            });
        }
    });
    done.into_inner().expect("no thread panics").into_values().collect()
}

/// Registers, spills and shared memory of one kernel over its codecs, dims and groups: the worst of each.
fn report(rows: &[(&Config, &Taken)]) -> String {
    let mut kernels: BTreeMap<String, Vec<(&Config, &Taken)>> = BTreeMap::new();
    for (config, taken) in rows {
        kernels.entry(config.line()).or_default().push((config, taken));
    }
    let mut text = format!("{:40} {:>6} {:>6} {:>8} {:>8} {:>7}\n", "arch kernel codec d", "count", "regs", "spill", "shared", "ms");
    for (line, rows) in kernels {
        let most = |of: fn(&Taken) -> u32| rows.iter().map(|(_, t)| of(t)).max().unwrap_or(0);
        let ms = rows.iter().filter_map(|(_, t)| t.ms).max().map_or("known".into(), |ms| ms.to_string());
        let (registers, spill, shared) = (most(|t| t.registers), most(|t| t.spill_bytes), most(|t| t.shared_bytes));
        let fits = if shared > rows[0].0.shared_limit() { "  more shared memory than a block may have" } else { "" };
        let _ = writeln!(text, "{line:40} {:6} {registers:6} {spill:8} {shared:8} {ms:7}{fits}", rows.len());
    }
    text
}

/// What the ledger allows: `name bytes` a line.
fn ceilings() -> BTreeMap<&'static str, u32> {
    let lines = CEILINGS.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    lines.map(|l| l.rsplit_once(' ').and_then(|(name, n)| Some((name, n.parse().ok()?))).unwrap_or_else(|| panic!("ceilings.txt: `{l}`; write `name bytes`"))).collect()
}

/// Why a configuration spills more than it may.
fn over(config: &Config, taken: &Taken, ceilings: &BTreeMap<&str, u32>) -> Option<String> {
    let name = config.name();
    let (spilt, allowed) = (taken.spill_bytes, ceilings.get(name.as_str()).copied().unwrap_or(0));
    (spilt > allowed).then(|| format!("{name} spills {spilt} bytes, allowed {allowed}"))
}

/// Slots an element, the busiest pipe and its share of the time that reading the tile takes, for decode kernels.
fn mixes(rows: &[(&Config, &Taken)]) -> String {
    let mut text = format!("{:54} {:>6} {:>6} {:>6} {:>10} {:>8}\n", "instructions", "kernel", "turn", "slots", "busiest", "of read");
    for (config, taken) in rows.iter().filter(|(config, _)| config.loops()) {
        let Some((mix, (always, _))) = taken.mix.as_ref().and_then(|m| Some((m, m.turn?))) else { continue };
        let (elements, bytes) = config.tile();
        let (slots, pipe, share) = mix.load(elements, bytes);
        let _ = writeln!(text, "{:54} {:6} {always:6} {slots:6.2} {pipe:>10} {:7.0}%", config.name(), mix.whole, share * 100.0);
    }
    text
}

/// Writes the ledger anew. Unless these are all configurations there are, it keeps what it says of the others.
fn record(rows: &[(&Config, &Taken)], all: bool) -> std::io::Result<()> {
    let mut text = String::from("# Bytes of registers that a kernel may spill; what is not listed may not. NVRTC 13.0.\n");
    text += "# Written by: KVF_RECORD=1 cargo test --release --test nvrtc\n";
    let compiled: BTreeSet<String> = rows.iter().map(|(config, _)| config.name()).collect();
    for line in CEILINGS.lines().filter(|l| !all && !l.starts_with('#')) {
        let name = line.rsplit_once(' ').map_or(line, |(name, _)| name);
        if !compiled.contains(name) {
            let _ = writeln!(text, "{line}");
        }
    }
    for (config, taken) in rows {
        if taken.spill_bytes > 0 {
            let _ = writeln!(text, "{} {}", config.name(), taken.spill_bytes);
        }
    }
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvrtc/ceilings.txt"), text)
}

#[test]
fn every_kernel_compiles_within_its_ceiling() {
    let _machine = beside_others();
    let version = match runtime::nvrtc::version() {
        Ok(version) => version,
        Err(why) if set("KVF_REQUIRE_NVRTC") => panic!("NVRTC is required here: {why}"),
        Err(why) => return println!("SKIPPED nvrtc: {why}"),
    };
    let tool = match mix::find() {
        Ok(tool) => Some(tool),
        Err(why) if set("KVF_REQUIRE_NVDISASM") => panic!("nvdisasm is required here: {why}"),
        Err(why) => {
            println!("SKIPPED nvrtc instruction counts: {why}");
            None
        }
    };
    let only = std::env::var("KVF_ONLY").unwrap_or_default();
    let all: Vec<Config> = configs().into_iter().filter(|c| c.name().contains(&only)).collect();
    let start = Instant::now();
    let results = compile_all(&all, tool.as_deref());
    let rows: Vec<(&Config, &Taken)> = all.iter().zip(&results).filter_map(|(c, r)| Some((c, r.as_ref().ok()?))).collect();
    let known = rows.iter().filter(|(_, taken)| taken.ms.is_none()).count();
    println!("{}{}{} configurations in {:.0} s, {known} of them known", report(&rows), mixes(&rows), all.len(), start.elapsed().as_secs_f64());
    let counted = || rows.iter().filter_map(|(c, t)| Some((c.name(), t.mix.as_ref()?)));
    if set("KVF_RECORD") {
        record(&rows, only.is_empty()).expect("ceilings.txt can be written");
        mix::record(counted(), only.is_empty() && tool.is_some()).expect("mix.txt can be written");
        proven::record("kernels", only.is_empty());
    }
    let mut wrong: Vec<String> = results.iter().filter_map(|r| r.as_ref().err().cloned()).collect();
    if version == RECORDED_WITH {
        wrong.extend(rows.iter().filter_map(|(c, t)| over(c, t, &ceilings()).filter(|_| !set("KVF_RECORD"))));
        wrong.extend(mix::gate(counted()).into_iter().filter(|_| !set("KVF_RECORD")));
    } else {
        println!("SKIPPED nvrtc gates: ceilings and mixes are of NVRTC {RECORDED_WITH:?}, this is {version:?}");
    }
    assert!(wrong.is_empty(), "{} of {} configurations:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

/// All kernels of a model of one codec, text and cubin, when the disk has them: best of five, the text made anew each time.
#[test]
fn a_second_start_takes_no_time() {
    if let Err(why) = runtime::nvrtc::version() {
        return println!("SKIPPED a_second_start_takes_no_time: {why}");
    }
    let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let folder = std::env::temp_dir().join(format!("kvf-second-start-{}", std::process::id()));
    for codec in ["int4", "e8q38"] {
        let start = |cache: &Cache| {
            let clock = Instant::now();
            for source in configs::model(codec) {
                compile_in(cache, &source, runtime::Arch::SM_90A).expect("it compiles");
            }
            clock.elapsed().as_secs_f64() * 1e3
        };
        let first = start(&Cache::at(&folder));
        let second = (0..5).map(|_| start(&Cache::at(&folder))).fold(f64::INFINITY, f64::min);
        println!("{codec}: first start {first:.0} ms, second start {second:.1} ms");
        assert!(second <= 50.0, "{codec}: a second start takes {second:.0} ms, the best of five");
    }
    std::fs::remove_dir_all(&folder).expect("the folder was made");
}
