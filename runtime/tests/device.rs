//! Everything around a kernel: memory, streams, launches, graphs, contexts, and every failing call.
//!
//! On a machine with a GPU the scenario runs there; on every machine it runs on a libcuda of our own
//! (tests/c/fake_cuda.c), which is strict about order and can fail any call. Both need NVRTC for a cubin.

mod fake;

use std::path::Path;

use kernel_dsl::Source;
use runtime::{Arg, Device, Error, Event, Graph, Kind, Memory, Misuse, Result, Stream, nvrtc};

const N: usize = 1000;

/// `y[i] = a * x[i] + y[i]`, the one kernel that the fake driver knows.
fn saxpy() -> Source {
    let cuda = "extern \"C\" __global__ void saxpy(float* y, const float* x, float a, int n) {\n\
                int i = blockIdx.x * blockDim.x + threadIdx.x;\nif (i < n) y[i] = a * x[i] + y[i];\n}\n";
    Source { name: "saxpy".into(), cuda: cuda.into(), threads: 128, shared_bytes: 0, min_blocks: 1 }
}

fn numbers(scale: f32) -> Vec<f32> {
    (0..N).map(|i| scale * (i as f32 - 300.0)).collect()
}

fn after(y: &[f32], x: &[f32], a: f32) -> Vec<f32> {
    y.iter().zip(x).map(|(y, x)| a * x + y).collect()
}

/// What an engine does, in short; every value is checked.
fn scenario(device: &Device) -> Result<()> {
    let (stream, kernel) = (device.stream()?, device.kernel(&saxpy())?);
    let (hx, hy) = (numbers(0.1), numbers(-0.7));
    let (x, y) = (Memory::from_slice(device, &hx)?, Memory::from_slice(device, &hy)?);
    let launch = |stream: &Stream, a: f32| {
        let args = [Arg::Ptr(y.span()), Arg::Ptr(x.span()), Arg::F32(a), Arg::I32(N as i32)];
        kernel.launch(stream, [N.div_ceil(128) as u32, 1, 1], &args)
    };
    launch(&stream, 0.3)?;
    let once = after(&hy, &hx, 0.3);
    assert_eq!(y.download::<f32>(&stream, 0, N)?, once);

    let graph = Graph::record(&stream, |s| launch(s, 0.5).and_then(|()| launch(s, 2.0)))?;
    assert_eq!(y.download::<f32>(&stream, 0, N)?, once, "recording runs nothing");
    graph.launch()?;
    assert_eq!(y.download::<f32>(&stream, 0, N)?, after(&after(&once, &hx, 0.5), &hx, 2.0));
    y.upload(&stream, 0, &hy)?;
    graph.launch()?;
    assert_eq!(y.download::<f32>(&stream, 0, N)?, after(&after(&hy, &hx, 0.5), &hx, 2.0));

    // SAFETY: `stream` outlives the borrow; null is the default stream.
    let (lent, default) = unsafe { (Stream::borrow(device, stream.handle()), Stream::borrow(device, std::ptr::null_mut())) };
    y.upload(&lent, 0, &hy)?;
    launch(&lent, 0.3)?;
    drop(lent);
    stream.synchronise()?;
    assert_eq!(y.download::<f32>(&stream, 4, N - 1)?, once[1..]);
    let (start, end) = (Event::new(device)?, Event::new(device)?);
    start.record(&default)?;
    launch(&default, 1.0)?;
    end.record(&default)?;
    assert!(start.elapsed_ms(&end)? > 0.0);
    assert_eq!(y.download::<f32>(&default, 0, N)?, after(&once, &hx, 1.0));

    y.fill(&stream, 0xff)?;
    assert_eq!(y.download::<u8>(&stream, 4 * N - 3, 3)?, [255; 3]);
    y.copy_from(&stream, 8, x.span().part(0, 8)?)?;
    assert_eq!(y.download::<f32>(&stream, 8, 2)?, hx[..2]);
    Ok(())
}

/// Wrong use of the safe interface: a typed error, and everything works afterwards.
fn misuse(device: &Device) -> Result<()> {
    let (stream, kernel) = (device.stream()?, device.kernel(&saxpy())?);
    let memory = Memory::zeroed(device, 4 * N)?;
    let (y, a, n) = (Arg::Ptr(memory.span()), Arg::F32(1.0), Arg::I32(4));
    let refused = |grid, args: &[Arg]| match kernel.launch(&stream, grid, args) {
        Err(error @ Error::Argument(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let one = [1, 1, 1];
    assert!(refused(one, &[y, y, a]).contains("takes arguments of [8, 8, 4, 4] bytes and was given [8, 8, 4]"));
    assert!(refused(one, &[y, y, a, Arg::I64(4)]).contains("[8, 8, 4, 8]"));
    assert!(refused(one, &[n; 40]).contains("takes"));
    for grid in [[0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 65536, 1], [1, 1, u32::MAX], [u32::MAX, 1, 1]] {
        assert!(refused(grid, &[y, y, a, n]).contains("grid"), "{grid:?}");
    }
    assert!(memory.upload(&stream, 4, &[0.0_f32; N]).is_err() && memory.download::<u64>(&stream, usize::MAX, 1).is_err());
    let huge = Memory::zeroed(device, 1 << 52).err();
    assert!(huge.is_some_and(|e| e.kind() == Kind::Cuda && e.to_string().contains("free device memory")));
    let empty = Graph::record(&stream, |_| Ok(()));
    if let Ok(graph) = empty {
        graph.launch()?;
    }
    let failed = Graph::record(&stream, |s| {
        kernel.launch(s, one, &[y, y, a, n])?;
        Err(Misuse::Other("stop".into()).into())
    });
    assert!(failed.is_err_and(|e| e.to_string() == "stop"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(Graph::record(&stream, |_| panic!("in a capture")))));
    assert!(panicked.is_err());
    // The driver gives up a capture in whose course anybody waits for the whole device.
    assert!(Graph::record(&stream, |_| device.synchronise()).is_err());
    kernel.launch(&stream, one, &[y, y, a, n])?;
    stream.synchronise()?;
    device.synchronise()?;
    assert_eq!(Memory::zeroed(device, 0)?.bytes(), 0);
    assert!(Device::open(99).is_err_and(|e| e.kind() == Kind::NoGpu));
    Ok(())
}

/// A thread's current context is what it was after any call of ours.
fn contexts(device: &Device) {
    let current = || cudarc::driver::result::ctx::get_current().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(current(), None);
            scenario(device).unwrap();
            assert_eq!(current(), None, "left a context behind");
        });
        (0..8).for_each(|_| drop(scope.spawn(|| (0..20).for_each(|_| scenario(device).unwrap()))));
    });
}

#[test]
fn on_a_device() {
    let device = match (Device::open(0), nvrtc::version()) {
        (Ok(device), Ok(_)) => device,
        (Err(error), _) | (_, Err(error)) => return eprintln!("SKIPPED: {error}"),
    };
    scenario(&device).unwrap();
    misuse(&device).unwrap();
    contexts(&device);
    eprintln!("RAN on {device:?}");
}

/// Runs one test of this file again, on the fake driver.
fn again(folder: &Path, test: &str, vars: &[(&str, String)]) -> String {
    fake::run(folder, &std::env::current_exe().unwrap(), &["--exact", test, "--nocapture"], vars)
}

#[test]
fn on_a_fake_driver() {
    let Some(folder) = fake::build() else { return };
    let text = again(&folder, "on_a_device", &[]);
    assert!(text.contains("RAN on Device(0: fake 0, sm_90a)"), "{text}");
    again(&folder, "any_call_may_fail", &[]);
    again(&folder, "a_launch_only_enqueues", &[]);
    for n in 1..=40 {
        again(&folder, "opening_may_fail", &[("FAKE_CUDA_FAIL", n.to_string())]);
    }
    again(&folder, "opening_may_fail", &[("FAKE_CUDA_NO_DEVICE", "1".into())]);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Child only: with one call failing, opening is an error, and works the next time.
#[test]
fn opening_may_fail() {
    if std::env::var_os("KVF_TEST_FAKE").is_none() {
        return;
    }
    if std::env::var_os("FAKE_CUDA_NO_DEVICE").is_some() {
        let error = Device::open(0).unwrap_err();
        return assert!(error.kind() == Kind::NoGpu && runtime::doctor().gpus.is_err(), "{error}");
    }
    let attempt = || Device::open(0).and_then(|device| scenario(&device));
    if let Err(error) = attempt() {
        assert!(error.to_string().contains("injected failure"), "{error}");
    }
    attempt().unwrap();
}

/// What the fake driver lets a test see.
struct Fake {
    calls: unsafe extern "C" fn() -> i64,
    live: unsafe extern "C" fn() -> i64,
    fired: unsafe extern "C" fn() -> i32,
    fail_at: unsafe extern "C" fn(i64),
}

impl Fake {
    fn find() -> Self {
        // SAFETY: the fake driver is loaded (and stays so), and has these functions of these types.
        unsafe {
            let library = libloading::Library::new("libcuda.so").unwrap();
            let fake = Fake { calls: *library.get(b"fake_calls").unwrap(), live: *library.get(b"fake_live").unwrap(), fired: *library.get(b"fake_fired").unwrap(), fail_at: *library.get(b"fake_fail_at").unwrap() };
            std::mem::forget(library);
            fake
        }
    }
}

/// Child only: a launch asks for the current context and launches; where it is not current, it is set and
/// put back. Nothing else: no allocation, no wait.
#[test]
fn a_launch_only_enqueues() {
    if std::env::var_os("KVF_TEST_FAKE").is_none() {
        return;
    }
    let device = Device::open(0).unwrap();
    let (stream, kernel, calls) = (device.stream().unwrap(), device.kernel(&saxpy()).unwrap(), Fake::find().calls);
    let (x, y) = (Memory::zeroed(&device, 64).unwrap(), Memory::zeroed(&device, 64).unwrap());
    let cost = || {
        // SAFETY: a plain function on a counter, here and below.
        let before = unsafe { calls() };
        let args = [Arg::Ptr(y.span()), Arg::Ptr(x.span()), Arg::F32(1.0), Arg::I32(16)];
        kernel.launch(&stream, [1, 1, 1], &args).unwrap();
        // SAFETY: as above.
        unsafe { calls() - before }
    };
    assert_eq!(cost(), 4);
    let context = cudarc::driver::CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    assert_eq!(cost(), 2);
}

/// Child only: each call of the scenario fails in turn; that is an error, leaks nothing, breaks nothing.
#[test]
fn any_call_may_fail() {
    if std::env::var_os("KVF_TEST_FAKE").is_none() {
        return;
    }
    let device = Device::open(0).unwrap();
    scenario(&device).unwrap();
    let Fake { live, fired, fail_at, .. } = Fake::find();
    // SAFETY: plain functions on counters, here and below.
    let baseline = unsafe { live() };
    for n in 1.. {
        // SAFETY: as above.
        unsafe { fail_at(n) };
        let outcome = scenario(&device);
        // SAFETY: as above.
        let hit = unsafe { fired() } == 1;
        if let Err(error) = &outcome {
            assert!(hit && error.to_string().contains("injected failure"), "call {n}: {error}");
        }
        // SAFETY: as above.
        unsafe { fail_at(0) };
        // SAFETY: as above.
        assert_eq!(unsafe { live() }, baseline, "call {n} leaks: {outcome:?}");
        scenario(&device).unwrap_or_else(|e| panic!("after call {n} failed: {e}"));
        if !hit {
            assert!(n > 100, "only {n} calls seen");
            return;
        }
    }
}
