//! The C ABI under random arguments: whatever numbers a caller passes, a call ends in a status and a sentence, never in a panic.
//!
//! Pointers to structs and, for the reference, to numbers are live, as the header asks; everything else is drawn from edge cases and
//! noise. The part with plans runs on a libcuda of our own (tests/c/fake_cuda.c), which refuses launches that no driver would take.

mod fake;

use std::ffi::{CStr, c_char, c_void};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

type Bytes = *mut c_void;

unsafe extern "C" {
    fn kvf_last_error() -> *const c_char;
    fn kvf_codec_open(name: *const c_char, codec: *mut Bytes) -> i32;
    fn kvf_block_bytes(codec: Bytes, head_dim: i32, page_tokens: i32, bytes: *mut u64) -> i32;
    fn kvf_plan_create(desc: Bytes, plan: *mut Bytes) -> i32;
    fn kvf_plan_destroy(plan: Bytes) -> i32;
    fn kvf_workspace_bytes(plan: Bytes, batch: i32, stride: i32, bytes: *mut u64) -> i32;
    fn kvf_queries_workspace_bytes(plan: Bytes, batch: i32, queries: i32, stride: i32, bytes: *mut u64) -> i32;
    fn kvf_store_workspace_bytes(plan: Bytes, tokens: i64, bytes: *mut u64) -> i32;
    fn kvf_store(plan: Bytes, cache: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_decode(plan: Bytes, cache: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_load(plan: Bytes, cache: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_merge(plan: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_store_slots(plan: Bytes, slots: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_import_slots(plan: Bytes, slots: Bytes, cache: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_step_create(plan: Bytes, cache: Bytes, store: Bytes, decode: Bytes, step: *mut Bytes) -> i32;
    fn kvf_step_launch(step: Bytes, stream: Bytes) -> i32;
    fn kvf_step_destroy(step: Bytes) -> i32;
    fn kvf_latent_create(desc: Bytes, latent: *mut Bytes) -> i32;
    fn kvf_latent_store(latent: Bytes, cache: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_latent_decode(latent: Bytes, window: Bytes, extra: Bytes, args: Bytes, stream: Bytes) -> i32;
    fn kvf_ref_store(codec: Bytes, dtype: i32, cache: Bytes, args: Bytes) -> i32;
    fn kvf_ref_decode(codec: Bytes, dtype: i32, heads: i32, cache: Bytes, args: Bytes) -> i32;
    fn kvf_ref_load(codec: Bytes, dtype: i32, cache: Bytes, args: Bytes) -> i32;
    fn kvf_ref_latent_store(format: *const c_char, cache: Bytes, args: Bytes) -> i32;
    fn kvf_ref_latent_decode(format: *const c_char, window: Bytes, extra: Bytes, args: Bytes) -> i32;
}

const PANIC: i32 = 7;

/// A status of the header, and a sentence with it; a panic fails the case.
fn sound(what: &str, rc: i32) -> Result<i32, TestCaseError> {
    // SAFETY: this thread's terminated text.
    let said = unsafe { CStr::from_ptr(kvf_last_error()) }.to_string_lossy().into_owned();
    prop_assert!((0..PANIC).contains(&rc), "{what}: status {rc}: {said}");
    prop_assert!(rc == 0 || said.len() > 10, "{what}: status {rc} says {said:?}");
    Ok(rc)
}

/// What is drawn from: the numbers of a case, one after another.
struct Draw(Vec<u64>, usize);

impl Draw {
    fn next(&mut self) -> u64 {
        self.1 += 1;
        self.0[self.1 % self.0.len()].wrapping_add((self.1 / self.0.len()) as u64)
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }

    /// Any number: small, an edge, noise.
    fn any(&mut self) -> u64 {
        let noise = self.next();
        self.of(&[0, 1, 2, 3, 4, 8, 16, 31, 32, 64, 100, 128, 1 << 16, 1 << 31, u64::MAX, i64::MAX as u64, i64::MIN as u64, i32::MAX as u64, noise, noise >> 33, 0x7fff_fff0, 1 << 40])
    }
}

/// A struct of the header as bytes: sizes first, then fields of 8 and 4 bytes. One in eight headers is wrong.
struct Struct(Vec<u64>, usize);

impl Struct {
    fn new(bytes: u32, draw: &mut Draw) -> Struct {
        let head = draw.of(&[(bytes, 1_u32), (bytes, 1), (bytes, 1), (bytes, 1), (bytes, 1), (bytes, 1), (bytes, 1), (0, 9)]);
        let mut words = vec![0_u64; 1024];
        words[0] = u64::from(head.0) | u64::from(head.1) << 32;
        Struct(words, 8)
    }

    fn wide(mut self, x: u64) -> Struct {
        self.1 = self.1.next_multiple_of(8);
        self.0[self.1 / 8] = x;
        self.1 += 8;
        self
    }

    fn wides(self, x: &[u64]) -> Struct {
        x.iter().fold(self, |s, x| s.wide(*x))
    }

    fn narrow(mut self, x: i32) -> Struct {
        self.0[self.1 / 8] |= u64::from(x as u32) << (8 * (self.1 % 8));
        self.1 += 4;
        self
    }

    fn narrows(self, x: &[i32]) -> Struct {
        x.iter().fold(self, |s, x| s.narrow(*x))
    }

    fn at(&mut self) -> Bytes {
        self.0.as_mut_ptr().cast()
    }
}

/// Live memory for the numbers of any case of the reference, full of edge cases.
fn arena() -> Vec<u64> {
    let edges = [0_u64, 1, 33, 0xffff_ffff_ffff_ffff, 0x7fc0_0000_ff80_0000, 0x3f80_0000_bf80_0000, 0x7fff_ffff_8000_0000, 0x0000_0005_0000_0002];
    (0..1 << 18).map(|i: usize| edges[i * i % 8 ^ i / 7 % 8]).collect()
}

fn codec(name: &CStr) -> Bytes {
    let mut codec = std::ptr::null_mut();
    // SAFETY: live pointers.
    assert_eq!(unsafe { kvf_codec_open(name.as_ptr(), &mut codec) }, 0);
    codec
}

fn cases(n: u32, run: impl Fn(&mut Draw) -> Result<(), TestCaseError>) {
    let config = Config { cases: n, failure_persistence: None, ..Config::default() };
    let drawn = proptest::collection::vec(any::<u64>(), 48);
    TestRunner::new(config).run(&drawn, |numbers| run(&mut Draw(numbers, 0))).unwrap();
}

/// A cache whose size never says more than the memory has.
fn host_cache(d: &mut Draw, memory: u64) -> Struct {
    let (base, bytes) = (d.of(&[memory, memory, memory, memory + 8, 0]), d.of(&[1 << 20, 1 << 20, 1 << 20, 9216, 0]));
    let pages = d.of(&[1, 3, 5, 0, -1, i64::MAX, 1 << 40]) as u64;
    Struct::new(80, d)
        .wides(&[base, bytes, pages])
        .narrows(&[d.of(&[32, 32, 64, 96, 0, -32, 33, i32::MAX]), d.of(&[1, 2, 2, 3, 0, -1, i32::MAX]), d.of(&[64, 64, 128, 256, 0, -64, 80, i32::MIN]), d.of(&[0, 0, 0, 7])])
        .wide(d.of(&[0, 0, 0, 77]))
}

/// Rows of the reference: pointers are live for every count that passes.
fn host_pointer(d: &mut Draw, memory: u64) -> u64 {
    d.of(&[memory, memory, memory, memory, memory, memory + 1, memory + 4, 0])
}

#[test]
fn the_reference_survives_any_numbers() {
    let names = [c"int4", c"e8w2", c"bf16", c"turboquant_3bit_nc", c"nvfp4", c"e8q7", c"kivi_k2v3"];
    let codecs = names.map(codec);
    cases(400, |d| {
        let memory = arena();
        let at = memory.as_ptr() as u64;
        let (own, dtype) = (d.of(&codecs), d.of(&[1, 2, 2, 0, -1]));
        let mut cache = host_cache(d, at);
        let far = |d: &mut Draw| host_pointer(d, at + (1 << 20));
        let stride = |d: &mut Draw| d.of(&[64_i64, 128, 256, 8, 0, 1, -8, i64::MIN, i64::MAX]) as u64;
        let tokens = d.of(&[1, 3, 32, 0, -1, i64::MIN, i64::MAX]) as u64;
        let mut store = Struct::new(112, d).wides(&[far(d), far(d), far(d), far(d), tokens, stride(d), stride(d), stride(d), stride(d), far(d), 0, 0, 0]);
        let mut load = Struct::new(72, d).wides(&[far(d), far(d), far(d), far(d), tokens]);
        let mut decode = Struct::new(120, d).wides(&[far(d), far(d), far(d), far(d), d.of(&[0, at + (1 << 20)]), 0, 0, far(d)]).narrows(&[
            d.of(&[1, 2, 3, 0, -1, 70000, i32::MIN]),
            d.of(&[1, 2, 4, 0, -1, i32::MAX]),
            d.of(&[0x3dcc_cccd, 0x3dcc_cccd, 0x7fc0_0000, 0x7f80_0000, 0]),
            d.of(&[0, 1, 2, -1, i32::MIN]),
        ]);
        let heads = d.of(&[2, 4, 6, 16, 1, 0, -2, 3, i32::MAX]);
        // SAFETY: structs are live; numbers are where they say for every count that the calls accept.
        unsafe {
            sound("kvf_ref_store", kvf_ref_store(own, dtype, cache.at(), store.at()))?;
            sound("kvf_ref_load", kvf_ref_load(own, dtype, cache.at(), load.at()))?;
            sound("kvf_ref_decode", kvf_ref_decode(own, dtype, heads, cache.at(), decode.at()))?;
            let mut bytes = 0;
            sound("kvf_block_bytes", kvf_block_bytes(own, d.any() as i32, d.any() as i32, &mut bytes))?;
        }
        Ok(())
    });
    let formats = [c"v4_int4_int8", c"v4_e8w4_int8", c"v4_int8_int8", c"v4_e8q38_int8", c"v4_fp8", c"v4_int2_int8", c"nothing"];
    cases(40, |d| {
        let memory = arena();
        let at = memory.as_ptr() as u64;
        let name = d.of(&formats).as_ptr();
        let cache = |d: &mut Draw| Struct::new(48, d).wides(&[d.of(&[at, at, at + 8, 0]), d.of(&[1 << 16, 1 << 16, 600, 0]), d.of(&[1, 5, 40, 0, -1, i64::MAX]) as u64]);
        let (mut near, mut extra) = (cache(d), cache(d));
        let far = |d: &mut Draw| host_pointer(d, at + (1 << 20));
        let mut store = Struct::new(64, d).wides(&[far(d), far(d), far(d), d.of(&[1, 5, 0, -1, i64::MAX]) as u64]);
        let mut decode = Struct::new(136, d).wides(&[far(d), far(d), far(d), far(d), far(d), far(d), far(d), 0, 0]).narrows(&[
            d.of(&[0, 1, 130, -1, i32::MIN]),
            d.of(&[0, 1, 200, -1, i32::MIN]),
            d.of(&[1, 0, -1, 70000]),
            d.of(&[64, 64, 0, 63, -64]),
            d.of(&[128, 256, 0, 100, -128]),
            d.of(&[0x3dcc_cccd, 0x3dcc_cccd, 0x7fc0_0000]),
        ]);
        // SAFETY: as above.
        unsafe {
            sound("kvf_ref_latent_store", kvf_ref_latent_store(name, near.at(), store.at()))?;
            sound("kvf_ref_latent_decode", kvf_ref_latent_decode(name, near.at(), extra.at(), decode.at()))?;
        }
        Ok(())
    });
}

#[test]
fn rows_need_room_whichever_tokens_are_stored() {
    let (memory, slots, mut status) = (arena(), [-1_i64, 0], [0_i32; 4]);
    let (base, d) = (memory.as_ptr() as u64, &mut Draw(vec![0], 0));
    let mut cache = Struct::new(80, d).wides(&[base, 1 << 20, 1]).narrows(&[32, 1, 64, 0]);
    for (k, v) in [(0, base + (1 << 20)), (base + (1 << 20), 0), (base + (1 << 20) + 1, base + (1 << 20))] {
        let mut load = Struct::new(72, d).wides(&[k, v, slots.as_ptr() as u64, status.as_mut_ptr() as u64, 2]);
        // SAFETY: live structs, and memory for all that a sound call would write.
        let rc = unsafe { kvf_ref_load(codec(c"int4"), 1, cache.at(), load.at()) };
        // SAFETY: this thread's terminated text.
        let said = unsafe { CStr::from_ptr(kvf_last_error()) }.to_string_lossy().into_owned();
        assert!(rc != 0 && (said.contains("null") || said.contains("align it")), "{rc}: {said}");
    }
}

#[test]
fn plans_survive_any_numbers_on_a_fake_driver() {
    let Some(folder) = fake::build() else { return };
    let program = std::env::current_exe().unwrap();
    let text = fake::run(&folder, &program, &["--exact", "plans_survive_any_numbers", "--nocapture"], &[("KVF_CACHE_DIR", "off".into())]);
    assert!(text.contains("launched"), "{text}");
    eprintln!("{text}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// A plan of those flags over 64 dims.
fn plan(name: &CStr, flags: i32, [queries, slot_page, rotary]: [i32; 3]) -> Bytes {
    let sizes = [0, 64, 4, 2, 32, 2, 0, flags, queries, slot_page, rotary, if rotary > 0 { 2 | 16 } else { 0 }];
    let mut desc = Struct::new(80, &mut Draw(vec![0], 0)).wide(codec(name).addr() as u64).narrows(&sizes);
    let mut plan = std::ptr::null_mut();
    // SAFETY: live structs, here and below.
    let rc = unsafe { kvf_plan_create(desc.at(), &mut plan) };
    // SAFETY: this thread's terminated text.
    assert_eq!(rc, 0, "{:?}", unsafe { CStr::from_ptr(kvf_last_error()) });
    plan
}

/// Child only: launches go to the fake driver, so addresses may be anything.
#[test]
fn plans_survive_any_numbers() {
    if std::env::var_os("KVF_TEST_FAKE").is_none() {
        return;
    }
    let mut desc = Struct::new(56, &mut Draw(vec![0], 0)).wide(c"v4_int4_int8".as_ptr() as u64);
    let mut latent = std::ptr::null_mut();
    // SAFETY: live structs and texts.
    assert_eq!(unsafe { kvf_latent_create(desc.at(), &mut latent) }, 0);
    let plans = [plan(c"int4", 1 | 2 | 32 | 64, [4, 0, 0]), plan(c"turboquant_4bit_nc", 1 | 2 | 8, [1, 16, 0]), plan(c"int8", 2 | 16, [1, 0, 64]), plan(c"kivi_k4v4", 1 | 2, [1, 0, 0])];
    let launched = std::cell::Cell::new(0);
    cases(3000, |d| {
        let own = d.of(&plans);
        let words = |d: &mut Draw, n: usize| (0..n).map(|_| d.any()).collect::<Vec<u64>>();
        let address = |d: &mut Draw| d.of(&[1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, (1 << 20) + 4, 0]);
        let sound_or = |d: &mut Draw, sound: i32| if d.next() % 8 == 0 { d.any() as i32 } else { sound };
        let wide_or = |d: &mut Draw, sound: u64| if d.next() % 8 == 0 { d.any() } else { sound };
        let mut cache = Struct::new(80, d).wides(&[address(d), wide_or(d, 1 << 40), wide_or(d, 7)]).narrows(&[sound_or(d, 32), sound_or(d, 2), sound_or(d, 64), sound_or(d, 0)]);
        let mut rope = Struct::new(128, d).wides(&[address(d), wide_or(d, 9), address(d), address(d), address(d), (1 << 21), 0, wide_or(d, 256), wide_or(d, 64)]).narrows(&[sound_or(d, 64), sound_or(d, 18), sound_or(d, 4), 0x3586_37bd]);
        let roped = if d.next() % 2 == 0 { rope.at().addr() as u64 } else { 0 };
        let mut store = Struct::new(112, d).wides(&[address(d), address(d), address(d), address(d), wide_or(d, 32), wide_or(d, 128), wide_or(d, 64), wide_or(d, 128), wide_or(d, 64), address(d), 0, 0, roped]);
        let mut load = Struct::new(72, d).wides(&[address(d), address(d), address(d), address(d), wide_or(d, 5)]);
        let mut merge = Struct::new(88, d).wides(&[address(d), address(d), address(d), address(d), address(d), address(d), wide_or(d, 5)]);
        let mut slots = Struct::new(88, d).wides(&[address(d), wide_or(d, 1 << 40), wide_or(d, 7), wide_or(d, 1 << 14), wide_or(d, 512), wide_or(d, 128)]).narrows(&[sound_or(d, 16), sound_or(d, 2)]);
        let mut moves = Struct::new(64, d).wides(&[address(d), address(d), address(d), wide_or(d, 5)]);
        let mut decode = Struct::new(120, d).wides(&[address(d), address(d), address(d), address(d), d.of(&[0, 1 << 20]), address(d), wide_or(d, 1 << 40), address(d)]).narrows(&[
            sound_or(d, 3),
            sound_or(d, 4),
            sound_or(d, 0x3dcc_cccd),
            d.of(&[0, 0, 0, 0, 1, 2, 5, -1, 1 << 30]),
        ]);
        let mut noise = Struct::new(80, d).wides(&words(d, 9));
        let (mut bytes, mut step) = (0, std::ptr::null_mut());
        // SAFETY: structs are live; addresses reach nothing but the fake driver.
        unsafe {
            let done = [
                sound("kvf_store", kvf_store(own, cache.at(), store.at(), std::ptr::null_mut()))?,
                sound("kvf_decode", kvf_decode(own, cache.at(), decode.at(), std::ptr::null_mut()))?,
                sound("kvf_load", kvf_load(own, cache.at(), load.at(), std::ptr::null_mut()))?,
                sound("kvf_merge", kvf_merge(own, merge.at(), std::ptr::null_mut()))?,
                sound("kvf_store_slots", kvf_store_slots(own, slots.at(), store.at(), std::ptr::null_mut()))?,
                sound("kvf_import_slots", kvf_import_slots(own, slots.at(), cache.at(), moves.at(), std::ptr::null_mut()))?,
                sound("kvf_step_create", kvf_step_create(own, cache.at(), store.at(), decode.at(), &mut step))?,
            ];
            if !step.is_null() {
                sound("kvf_step_launch", kvf_step_launch(step, std::ptr::null_mut()))?;
                sound("kvf_step_destroy", kvf_step_destroy(step))?;
            }
            launched.set(launched.get() + done.iter().filter(|rc| **rc == 0).count());
            sound("kvf_workspace_bytes", kvf_workspace_bytes(own, d.any() as i32, d.any() as i32, &mut bytes))?;
            sound("kvf_queries_workspace_bytes", kvf_queries_workspace_bytes(own, d.any() as i32, d.any() as i32, d.any() as i32, &mut bytes))?;
            sound("kvf_store_workspace_bytes", kvf_store_workspace_bytes(own, d.any() as i64, &mut bytes))?;
            // The number after a plan's is that of a codec or a step.
            for wrong in [d.any() as usize, own.addr() + 16] {
                sound("kvf_plan_destroy", kvf_plan_destroy(std::ptr::without_provenance_mut(wrong)))?;
            }
            // Any fields under a plan's header: a codec of chance is no open handle.
            let mut none = std::ptr::null_mut();
            prop_assert!(sound("kvf_plan_create", kvf_plan_create(noise.at(), &mut none))? != 0 && none.is_null());
            let mut near = Struct::new(48, d).wides(&[address(d), wide_or(d, 1 << 40), wide_or(d, 300)]);
            let mut far = Struct::new(48, d).wides(&[address(d), wide_or(d, 1 << 40), wide_or(d, 300)]);
            let mut rows = Struct::new(64, d).wides(&[address(d), address(d), address(d), wide_or(d, 300)]);
            let mut seen = Struct::new(136, d).wides(&[address(d), address(d), address(d), address(d), address(d), address(d), address(d), address(d), wide_or(d, 1 << 40)]).narrows(&[
                sound_or(d, 128),
                sound_or(d, 512),
                sound_or(d, 2),
                sound_or(d, 64),
                sound_or(d, 256),
                sound_or(d, 0x3dcc_cccd),
            ]);
            let done = [sound("kvf_latent_store", kvf_latent_store(latent, near.at(), rows.at(), std::ptr::null_mut()))?, sound("kvf_latent_decode", kvf_latent_decode(latent, near.at(), far.at(), seen.at(), std::ptr::null_mut()))?];
            launched.set(launched.get() + done.iter().filter(|rc| **rc == 0).count());
        }
        Ok(())
    });
    println!("{} calls launched", launched.get());
    assert!(launched.get() > 500, "nearly all calls were refused: {}", launched.get());
}
