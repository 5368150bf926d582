//! The C library from C: the example engine, and every misuse we could list. Skipped where gcc is absent.

mod fake;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The libruntime.a that cargo built beside this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().join("libruntime.a")
}

/// Compiles `source` against the header and the library; `None`, said aloud, without a compiler.
fn build(compiler: &str, flags: &[&str], source: &str, name: &str) -> Option<PathBuf> {
    if Command::new(compiler).arg("--version").output().is_err() {
        eprintln!("SKIPPED: no {compiler} on the path");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let built = Command::new(compiler)
        .args(flags)
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-Wl,--fatal-warnings", "-Wl,--gc-sections"])
        .arg("-I")
        .arg(root.join("include"))
        .arg(root.join(source))
        .args(["-x", "none"])
        .arg(library())
        .args(["-ldl", "-lgcc_s", "-lrt", "-lpthread", "-lm", "-lc", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

fn run(program: &Path, args: &[&str]) -> String {
    let ran = Command::new(program).args(args).env("KVF_CACHE_DIR", "off").current_dir(env!("CARGO_TARGET_TMPDIR")).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program:?} {args:?}: {:?}\n{text}", ran.status);
    eprintln!("{text}");
    text
}

#[test]
fn the_example_engine_decodes() {
    let Some(program) = build("gcc", &["-std=c11"], "examples/c/paged_decode.c", "paged_decode") else { return };
    for codec in kernels_gen::registry::codecs() {
        let text = run(&program, &[codec.name]);
        assert!(text.contains("good") && (text.contains("GPU against") || text.contains("no usable GPU")), "{text}");
    }
}

#[test]
fn the_example_of_rope_decodes() {
    let Some(program) = build("gcc", &["-std=c11"], "examples/c/rope_store.c", "rope_store") else { return };
    for codec in ["int8", "int4", "bf16"] {
        let text = run(&program, &[codec]);
        assert!(text.contains(": good") && (text.contains("GPU as the reference") || text.contains("no usable GPU")), "{text}");
    }
}

/// Tiles beside raw tokens, and rows of one head.
#[test]
fn the_examples_of_kivi_and_of_rows_of_one_head_decode() {
    for (source, names) in [("kivi_window", ["kivi_k4v4", "kivi_k2v2"]), ("latent_rows", ["v4_e8w4_int8", "v4_int8_int8"])] {
        let Some(program) = build("gcc", &["-std=c11"], &format!("examples/c/{source}.c"), source) else { return };
        for name in names {
            let text = run(&program, &[name]);
            assert!(text.contains(": good") && (text.contains("every bit equal") || text.contains("no usable GPU")), "{text}");
        }
    }
}

/// The one that was fitted to the bundled model.
const CALIBRATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/qwen3-tiny/kvfuse.calibration");

#[test]
fn the_example_engine_decodes_with_a_calibration() {
    let Some(program) = build("gcc", &["-std=c11"], "examples/c/paged_decode.c", "paged_decode_fitted") else { return };
    for codec in ["kvfuse-2", "kvfuse-4"] {
        let text = run(&program, &[codec, CALIBRATION]);
        assert!(text.contains("every bit equal") && text.contains(": good"), "{text}");
    }
}

#[test]
fn every_misuse_of_a_calibration_is_an_error() {
    let Some(program) = build("gcc", &["-std=gnu11"], "tests/c/calibration.c", "calibration") else { return };
    let text = run(&program, &[CALIBRATION]);
    assert!(text.contains("cases, 0 failures"), "{text}");
}

#[test]
fn a_block_is_coded_by_the_host() {
    let Some(program) = build("gcc", &["-std=gnu11"], "tests/c/block.c", "block") else { return };
    let text = run(&program, &[]);
    assert!(text.contains("cases, 0 failures"), "{text}");
}

#[test]
fn every_misuse_is_an_error() {
    let Some(program) = build("gcc", &["-std=gnu11"], "tests/c/misuse.c", "misuse") else { return };
    let text = run(&program, &[]);
    let cases: u32 = text.lines().last().and_then(|l| l.split(' ').next()?.parse().ok()).unwrap();
    assert!(cases >= 300 && text.contains("0 failures"), "{text}");
}

#[test]
fn every_misuse_of_rows_of_one_head_is_an_error() {
    let Some(program) = build("gcc", &["-std=gnu11"], "tests/c/latent.c", "latent") else { return };
    assert!(run(&program, &[]).contains(" 0 failures"));
}

/// Threads, a second device, a fork, a lost context: with the driver that is here.
#[test]
fn a_process_lives_through_its_driver() {
    let Some(program) = build("gcc", &["-std=gnu11"], "tests/c/lives.c", "lives") else { return };
    let text = run(&program, &[]);
    assert!(text.contains("SKIPPED") || text.contains(" 0 failures"), "{text}");
}

/// What a machine without a GPU cannot say of plans: their kernels load, their launches have the arguments of their kernels, and
/// every wrong call is refused before it reaches the driver.
#[test]
fn plans_are_misused_on_a_fake_driver() {
    let Some(folder) = fake::build() else { return };
    let cache = [("KVF_CACHE_DIR", "off".into()), ("FAKE_CUDA_DEVICES", "2".into())];
    for source in ["misuse", "latent", "lives"] {
        let Some(program) = build("gcc", &["-std=gnu11"], &format!("tests/c/{source}.c"), &format!("{source}_fake")) else { return };
        let text = fake::run(&folder, &program, &[], &cache);
        assert!(text.contains(" 0 failures") && !text.contains("SKIPPED"), "{text}");
        eprintln!("{source}: {text}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_header_is_cpp_too() {
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("version.cpp");
    std::fs::write(&source, "#include \"kvfuse_latent.h\"\nint main() { return kvf_abi_version() != KVF_ABI_VERSION; }\n").unwrap();
    let Some(program) = build("g++", &["-std=c++17"], source.to_str().unwrap(), "version") else { return };
    run(&program, &[]);
}

/// What `scripts/install` leaves is found by pkg-config, and the program by its loader.
#[test]
fn the_installed_library_is_found() {
    if ["pkg-config", "gcc", "strip"].iter().any(|tool| Command::new(tool).arg("--version").output().is_err()) {
        return eprintln!("SKIPPED: needs pkg-config, gcc and strip on the path");
    }
    let (root, prefix) = (Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(env!("CARGO_TARGET_TMPDIR")).join("prefix"));
    let sound = |command: &mut Command| {
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let built = library();
    sound(Command::new(root.join("../scripts/install")).arg(&prefix).env("KVF_BUILT", built.parent().unwrap()));
    let packages = prefix.join("lib/pkgconfig");
    let found = sound(Command::new("pkg-config").args(["--cflags", "--libs", "kvfuse"]).env("PKG_CONFIG_PATH", packages));
    let program = prefix.join("engine");
    let flags: Vec<&str> = found.split_whitespace().collect();
    sound(Command::new("gcc").arg("-std=c11").arg(root.join("examples/c/paged_decode.c")).args(flags).args(["-ldl", "-lm", "-o"]).arg(&program));
    let text = sound(Command::new(&program).arg("int8").env("LD_LIBRARY_PATH", prefix.join("lib")).env("KVF_CACHE_DIR", "off"));
    assert!(text.contains(": good"), "{text}");
    // The static one has no name but its own, so a second library written in Rust fits beside it.
    let names = sound(Command::new("nm").args(["-g", "--defined-only"]).arg(prefix.join("lib/libkvfuse.a")));
    let names: Vec<&str> = names.lines().filter_map(|l| l.split(' ').nth(2)).collect();
    assert!(names.len() > 30 && names.iter().all(|name| name.starts_with("kvf_")), "{names:?}");
    let other = "#[unsafe(no_mangle)]\npub extern \"C\" fn other(x: i32) -> i32 {\nstd::panic::catch_unwind(|| if x > 0 { panic!() } else { 3 }).unwrap_or(9)\n}\n";
    let main = "#include \"kvfuse.h\"\nint other(int);\nint main(void) { kvf_codec *c; return other(1) != 9 || kvf_codec_open(\"int4\", &c) || kvf_codec_close(c); }\n";
    std::fs::write(prefix.join("other.rs"), other).unwrap();
    std::fs::write(prefix.join("main.c"), main).unwrap();
    sound(Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).args(["--edition=2024", "--crate-type=staticlib", "other.rs"]).current_dir(&prefix));
    let libraries = ["main.c", "lib/libkvfuse.a", "libother.a", "-Iinclude", "-Wl,--fatal-warnings", "-ldl", "-lgcc_s", "-lrt", "-lpthread", "-lm", "-lc", "-o", "both"];
    sound(Command::new("gcc").args(libraries).current_dir(&prefix));
    sound(&mut Command::new(prefix.join("both")));
    std::fs::remove_dir_all(prefix).unwrap();
}

/// Whatever the header declares is exported, and nothing else.
#[test]
fn the_header_and_the_library_list_the_same_functions() {
    let shared = library().with_file_name("libruntime.so");
    let Ok(listed) = Command::new("nm").args(["-D", "--defined-only"]).arg(&shared).output() else {
        return eprintln!("SKIPPED: no nm on the path");
    };
    let names = String::from_utf8_lossy(&listed.stdout);
    let mut exported: Vec<&str> = names.lines().filter_map(|l| l.split(' ').nth(2)).collect();
    let header = concat!(include_str!("../include/kvfuse.h"), include_str!("../include/kvfuse_latent.h"));
    let calls = header.split(['(', ' ', '*']).zip(header.match_indices(['(', ' ', '*']));
    let mut declared: Vec<&str> = calls.filter(|(word, (_, end))| word.starts_with("kvf_") && *end == "(").map(|(word, _)| word).collect();
    exported.sort();
    declared.sort();
    declared.dedup();
    assert_eq!(exported, declared);
}
