//! Handles that cannot dangle: a `kvf_codec*` or `kvf_plan*` is a number, looked up on each call.
//!
//! A number is never given out twice, so a handle used after its close, closed twice, of the wrong kind
//! or plain garbage is an error, not a crash. A look-up is one read lock and one hash.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock};

use crate::argument::Misuse;
use crate::error::Result;

/// The open objects of one kind.
pub(crate) struct Table<T> {
    kind: &'static str,
    open: LazyLock<RwLock<HashMap<usize, T>>>,
}

/// Starts high, so that a small integer cast to a pointer is no handle, and steps so that handles look
/// like aligned pointers.
static NEXT: AtomicUsize = AtomicUsize::new(0x6b76_0000);

impl<T: Clone> Table<T> {
    pub const fn new(kind: &'static str) -> Self {
        Table { kind, open: LazyLock::new(RwLock::default) }
    }

    /// The new handle of `object`.
    pub fn insert(&self, object: T) -> *mut c_void {
        let number = NEXT.fetch_add(16, Ordering::Relaxed);
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, object);
        std::ptr::without_provenance_mut(number)
    }

    /// The object behind `handle`.
    pub fn get(&self, handle: *mut c_void) -> Result<T> {
        self.not_null(handle)?;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.addr()).cloned().ok_or_else(|| self.unknown())
    }

    /// Closes `handle`; null is allowed, as for free().
    pub fn remove(&self, handle: *mut c_void) -> Result<()> {
        if handle.is_null() {
            return Ok(());
        }
        let removed = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.addr());
        removed.map(drop).ok_or_else(|| self.unknown())
    }

    fn not_null(&self, handle: *mut c_void) -> Result<()> {
        if handle.is_null() { Err(Misuse::Null { what: self.kind, want: "an open handle" }.into()) } else { Ok(()) }
    }

    fn unknown(&self) -> crate::Error {
        Misuse::Other(format!("this is no open {}; it was closed already, or never opened", self.kind)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_and_foreign_handles_are_errors() {
        static A: Table<i32> = Table::new("plan");
        static B: Table<i32> = Table::new("codec");
        let (a, b) = (A.insert(1), B.insert(2));
        assert_eq!((A.get(a).unwrap(), B.get(b).unwrap()), (1, 2));
        assert!(A.get(b).is_err() && B.get(a).is_err());
        assert!(A.remove(std::ptr::null_mut()).is_ok());
        A.remove(a).unwrap();
        let text = A.remove(a).unwrap_err().to_string();
        assert_eq!(text, "this is no open plan; it was closed already, or never opened");
        assert!(A.get(a).is_err() && A.get(std::ptr::dangling_mut()).is_err());
        assert!(A.get(std::ptr::null_mut()).unwrap_err().to_string().starts_with("plan is null"));
    }
}
