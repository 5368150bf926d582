//! Compiling without a GPU: options, logs, errors, and the cache in front. Skipped where NVRTC is absent.

use kernel_dsl::Source;
use runtime::cache::Cache;
use runtime::compile::{Origin, compile_in};
use runtime::{Arch, Error, nvrtc};

fn present() -> bool {
    match nvrtc::version() {
        Ok(_) => true,
        Err(Error::NoNvrtc(places)) => {
            eprintln!("SKIPPED: no libnvrtc; set KVF_NVRTC_DIR (looked at {places})");
            false
        }
        Err(other) => panic!("{other}"),
    }
}

fn source(name: &str, body: &str) -> Source {
    let cuda = format!("#line 7 \"{name}.rs\"\nextern \"C\" __global__ void {name}(float* x, float y) {{\n{body}\n}}\n");
    Source { name: name.into(), cuda, threads: 32, shared_bytes: 0, min_blocks: 1 }
}

#[test]
fn a_kernel_compiles_once() {
    if !present() {
        return;
    }
    let cache = Cache::in_memory();
    let axpy = source("axpy", "x[threadIdx.x] = x[threadIdx.x] * y + 1.0f;");
    let first = compile_in(&cache, &axpy, Arch::SM_90A).unwrap();
    assert_eq!(first.origin, Origin::Compiled);
    assert_eq!(&first.cubin[..4], b"\x7fELF");
    let uses = first.resources();
    assert_eq!((uses.len(), uses[0].kernel.as_str(), uses[0].spills()), (1, "axpy", false), "{}", first.log);
    assert!((4..=64).contains(&uses[0].registers), "{uses:?}");
    let second = compile_in(&cache, &axpy, Arch::SM_90A).unwrap();
    assert_eq!((second.origin, &second.cubin, &second.log), (Origin::Memory, &first.cubin, &first.log));
    assert_eq!(nvrtc::version().unwrap(), first.nvrtc);
    assert!(nvrtc::file().is_some_and(|f| f.contains("libnvrtc")));
}

#[test]
fn every_served_arch_compiles() {
    if !present() {
        return;
    }
    for (major, minor) in [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)] {
        let arch = Arch::new(major, minor);
        let made = compile_in(&Cache::in_memory(), &source("k", "x[0] = y;"), arch).unwrap();
        assert!(made.log.contains(&arch.name()), "{arch}: {}", made.log);
    }
}

#[test]
fn an_error_names_the_rust_line() {
    if !present() {
        return;
    }
    let error = compile_in(&Cache::in_memory(), &source("bad", "x[0] = nothing;"), Arch::SM_90A).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Compile { .. }), "{text}");
    assert!(text.contains("bad.rs(8)") && text.contains("nothing") && text.contains("KVF_DUMP_DIR"), "{text}");
    let error = compile_in(&Cache::in_memory(), &source("old", ""), Arch::new(1, 3)).unwrap_err();
    assert!(error.to_string().contains("sm_13"), "{error}");
}

#[test]
fn shared_memory_stack_and_spills_are_read() {
    if !present() {
        return;
    }
    let body = "__shared__ float s[64]; float a[64]; \
                for (int i = 0; i < 64; i++) a[(i * int(y)) & 63] = x[i]; \
                s[threadIdx.x] = a[threadIdx.x & 63]; __syncthreads(); x[threadIdx.x] = s[63 - threadIdx.x];";
    let made = compile_in(&Cache::in_memory(), &source("local", body), Arch::SM_90A).unwrap();
    let uses = &made.resources()[0];
    assert!(uses.stack_bytes >= 256 && uses.shared_bytes >= 256, "{uses:?} {}", made.log);
}

/// A kernel that holds so many numbers at once, and is to leave room for four blocks of 128 threads: 128 registers each.
fn full(live: usize) -> Source {
    let cuda = format!(
        "extern \"C\" __global__ void __launch_bounds__(128, 4) full(volatile float* x) {{ float a[{live}];\n\
         #pragma unroll\nfor (int i = 0; i < {live}; i++) a[i] = x[32 * i];\n#pragma unroll\nfor (int i = 0; i < {live}; i++) x[32 * i] = a[{live} - 1 - i]; }}"
    );
    Source { name: "full".into(), cuda, threads: 128, shared_bytes: 0, min_blocks: 4 }
}

#[test]
fn a_kernel_that_spills_for_a_block_too_many_has_one_fewer() {
    if !present() {
        return;
    }
    let taken = |source: &Source| {
        let made = compile_in(&Cache::in_memory(), source, Arch::SM_90A).unwrap();
        let uses = made.resources();
        (uses[0].registers, uses[0].spills())
    };
    let (fits, mended, lost) = (taken(&full(100)), taken(&full(150)), taken(&full(240)));
    assert!(fits.0 <= 128 && !fits.1, "{fits:?}");
    assert!((129..=168).contains(&mended.0) && !mended.1, "{mended:?}");
    // Three blocks would not do: it keeps its four.
    assert!(lost.0 <= 128 && lost.1, "{lost:?}");
    let three = Source { min_blocks: 3, ..full(150) };
    assert!(taken(&three).1, "a third of the warps is more than it spills");
}

#[test]
fn multiplication_and_addition_stay_apart() {
    if !present() {
        return;
    }
    // Two kernels that only contraction could make alike: with --fmad=false they differ.
    let apart = compile_in(&Cache::in_memory(), &source("k", "x[0] = x[1] * y + x[2];"), Arch::SM_90A).unwrap();
    let fused = compile_in(&Cache::in_memory(), &source("k", "x[0] = __fmaf_rn(x[1], y, x[2]);"), Arch::SM_90A).unwrap();
    assert_ne!(apart.cubin, fused.cubin);
}

/// In a process of its own, since it sets the environment.
#[test]
fn a_dump_folder_keeps_text_log_and_cubin() {
    if !present() {
        return;
    }
    if std::env::var_os("KVF_TEST_DUMP").is_some() {
        compile_in(&Cache::in_memory(), &source("kept", "x[0] = y;"), Arch::SM_90A).unwrap();
        compile_in(&Cache::in_memory(), &source("broken", "x[0] = z;"), Arch::SM_90A).unwrap_err();
        return;
    }
    let folder = std::env::temp_dir().join(format!("kvf-dump-{}", std::process::id()));
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "a_dump_folder_keeps_text_log_and_cubin"]);
    assert!(again.env("KVF_TEST_DUMP", "1").env("KVF_DUMP_DIR", &folder).output().unwrap().status.success());
    let mut names: Vec<String> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let want = ["broken.sm_90a.cu", "broken.sm_90a.log", "kept.sm_90a.cu", "kept.sm_90a.cubin", "kept.sm_90a.log"];
    assert_eq!(names, want);
    std::fs::remove_dir_all(folder).unwrap();
}
