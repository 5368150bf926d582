//! The C ABI's frame: status codes, the last error, and the guard that no panic passes.
//!
//! `include/kvfuse.h` is the contract; the other `ffi_*` files implement it one object each.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::argument::Misuse;
use crate::error::{Error, Kind, Result};

pub(crate) const ABI_VERSION: u32 = 1;

/// The codes and their names; `KVF_ERR_*` in the header.
const STATUSES: [(i32, &std::ffi::CStr); 8] = [(0, c"ok"), (1, c"invalid argument"), (2, c"unsupported"), (3, c"no GPU or driver"), (4, c"no NVRTC"), (5, c"compilation failed"), (6, c"CUDA error"), (7, c"internal panic")];
const PANIC: i32 = 7;

fn status_of(error: &Error) -> i32 {
    match error.kind() {
        Kind::Invalid => 1,
        Kind::Unsupported => 2,
        Kind::NoGpu => 3,
        Kind::NoNvrtc => 4,
        Kind::Compile => 5,
        Kind::Cuda => 6,
    }
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

fn remember(text: String) {
    // A zero byte would end the text early for a C reader.
    let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
    // The thread may be ending, its storage gone: then there is nobody to read it.
    let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = text);
}

/// Runs the body of an entry point: its error or panic becomes a code and a text.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            remember(error.to_string());
            status_of(&error)
        }
        Err(payload) => {
            remember(format!("panic: {}; this is a fault of kvfuse, please report it", panic_text(&*payload)));
            // Dropping a payload may itself panic; leaking it cannot.
            std::mem::forget(payload);
            PANIC
        }
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Writes a result through a caller's pointer.
///
/// # Safety
/// `to` is null or valid for writing a `T`.
pub(crate) unsafe fn put<T>(to: *mut T, what: &'static str, value: T) -> Result<()> {
    if to.is_null() {
        return Err(Misuse::Null { what, want: "where the result goes" }.into());
    }
    if !to.is_aligned() {
        return Err(Misuse::Misaligned { what, address: to as u64, want: align_of::<T>() as u64 }.into());
    }
    // SAFETY: not null, aligned, and writable by the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes as much of a text as the caller has room for, and the bytes of all of it with its zero.
///
/// # Safety
/// `buffer` is null or has `capacity` writable bytes; `needed` is null or writable.
pub(crate) unsafe fn put_text(text: &str, buffer: *mut c_char, capacity: u64, needed: *mut u64) -> Result<()> {
    if !needed.is_null() {
        // SAFETY: not null, writable by the caller's promise.
        unsafe { put(needed, "needed", text.len() as u64 + 1) }?;
    }
    let room = usize::try_from(capacity).unwrap_or(usize::MAX);
    if buffer.is_null() || room == 0 {
        return Ok(());
    }
    let count = text.len().min(room - 1);
    // SAFETY: `count + 1 <= capacity` bytes are writable, and the text is not the caller's memory.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), count);
        buffer.add(count).write(0);
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_abi_version() -> u32 {
    ABI_VERSION
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_status_str(status: i32) -> *const c_char {
    let known = STATUSES.iter().find(|(code, _)| *code == status);
    known.map_or(c"unknown status", |(_, text)| text).as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn kvf_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Writes what `kvfuse doctor` prints; `needed` gets the bytes of the whole text with its zero.
///
/// # Safety
/// `buffer` is null or has `capacity` writable bytes; `needed` is null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvf_doctor(buffer: *mut c_char, capacity: u64, needed: *mut u64) -> i32 {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { put_text(&crate::doctor().to_string(), buffer, capacity, needed) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last() -> String {
        // SAFETY: the pointer is to this thread's terminated text.
        unsafe { CStr::from_ptr(kvf_last_error()) }.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_becomes_a_code_and_the_next_call_works() {
        assert_eq!(guard(|| panic!("code {}", 7)), PANIC);
        assert_eq!(last(), "panic: code 7; this is a fault of kvfuse, please report it");
        assert_eq!(guard(|| std::panic::panic_any(3)), PANIC);
        assert_eq!(guard(|| Ok(())), 0);
        assert_eq!(guard(|| Err(Misuse::Other("a\0b".into()).into())), 1);
        assert_eq!(last(), "a?b");
    }

    #[test]
    fn errors_are_each_threads_own() {
        assert_eq!(guard(|| Err(Error::NoDriver)), 3);
        let other = std::thread::spawn(last).join().unwrap();
        assert_eq!(other, "");
        assert!(last().contains("libcuda"));
    }
}
