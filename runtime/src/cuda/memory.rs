//! Device memory: ours for tests and tools, and views of a caller's.
//!
//! A [`Span`] is the only form in which an address reaches a kernel. It is made from memory of our own,
//! or by an unsafe call in which the caller promises that the bytes are there.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};
use half::{bf16, f16};

use super::context::enter;
use super::device::Device;
use super::driver::failed;
use super::stream::Stream;
use crate::argument::Misuse;
use crate::error::Result;

/// A range of device bytes that lives at least as long as `'a`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Span<'a> {
    address: u64,
    bytes: u64,
    _memory: PhantomData<&'a Memory>,
}

impl Span<'_> {
    /// A range that no test of arguments ever uses.
    #[cfg(test)]
    pub(crate) fn made_up(address: u64, bytes: u64) -> Self {
        Span { address, bytes, _memory: PhantomData }
    }

    /// Nowhere: for what a kernel does not look at.
    pub(crate) fn null() -> Self {
        Span { address: 0, bytes: 0, _memory: PhantomData }
    }

    /// A caller's range. Give `u64::MAX` where the size is not known: it then passes every size check.
    ///
    /// # Safety
    /// The bytes are device memory, live while anything enqueued with the result may run, and not
    /// otherwise used meanwhile except as stream order allows.
    pub unsafe fn from_raw(address: u64, bytes: u64) -> Self {
        Span { address, bytes, _memory: PhantomData }
    }

    /// The first byte's device address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The part of `bytes` bytes from `offset`.
    pub fn part(&self, offset: u64, bytes: u64) -> std::result::Result<Self, Misuse> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(Span { address: self.address + offset, bytes, _memory: PhantomData }),
            end => Err(Misuse::Short { what: "the span", have: self.bytes, need: end.unwrap_or(u64::MAX) }),
        }
    }

    /// Enqueues a copy of all of `from` to the first byte on.
    pub fn copy_from(&self, stream: &Stream, from: Span<'_>) -> Result<()> {
        let part = self.part(0, from.bytes)?;
        let _here = stream.enter()?;
        // SAFETY: both ranges are live, by their makers' promise, and of that size.
        unsafe { result::memcpy_dtod_async(part.address, from.address, from.bytes as usize, stream.raw()) }.map_err(|e| failed("copying on the device", e))
    }

    /// Fails unless the span is not null, aligned, and of at least `need` bytes.
    pub fn expect(&self, what: &'static str, want: &'static str, align: u64, need: u64) -> std::result::Result<(), Misuse> {
        if self.address == 0 {
            return Err(Misuse::Null { what, want });
        }
        if !self.address.is_multiple_of(align) {
            return Err(Misuse::Misaligned { what, address: self.address, want: align });
        }
        if self.bytes < need {
            return Err(Misuse::Short { what, have: self.bytes, need });
        }
        Ok(())
    }
}

impl fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({:#x}, {} bytes)", self.address, self.bytes)
    }
}

/// Types that are their bytes: any bit pattern is a value, no padding.
///
/// # Safety
/// Implementors keep that promise.
pub unsafe trait Plain: Copy + Default + 'static {}

macro_rules! plain {
    ($($t:ty)*) => { $(
        // SAFETY: a number without padding; every bit pattern is a value.
        unsafe impl Plain for $t {}
    )* };
}
plain!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 f16 bf16);

/// Device memory of our own, freed on drop (which waits for the device, so nothing enqueued still uses it).
pub struct Memory {
    context: Arc<CudaContext>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// `bytes` zero bytes.
    pub fn zeroed(device: &Device, bytes: usize) -> Result<Self> {
        let _here = device.enter()?;
        // SAFETY: the context is current; a size of 0 is an error for the driver, so round up.
        let address = unsafe { result::malloc_sync(bytes.max(16)) }.map_err(|e| failed("allocating device memory", e))?;
        let memory = Memory { context: device.context().clone(), address, bytes };
        // SAFETY: the range was just allocated.
        unsafe { result::memset_d8_sync(address, 0, bytes.max(16)) }.map_err(|e| failed("clearing device memory", e))?;
        settle()?;
        Ok(memory)
    }

    /// A copy of `values`.
    pub fn from_slice<T: Plain>(device: &Device, values: &[T]) -> Result<Self> {
        let memory = Memory::zeroed(device, size_of_val(values))?;
        let _here = device.enter()?;
        // SAFETY: the memory has the slice's size, and `settle` waits for the copy.
        unsafe { result::memcpy_htod_sync(memory.address, values) }.map_err(|e| failed("copying to the device", e))?;
        settle()?;
        Ok(memory)
    }

    /// The whole of it.
    pub fn span(&self) -> Span<'_> {
        Span { address: self.address, bytes: self.bytes as u64, _memory: PhantomData }
    }

    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Enqueues setting every byte.
    pub fn fill(&self, stream: &Stream, byte: u8) -> Result<()> {
        let _here = stream.enter()?;
        // SAFETY: the whole of a live allocation, on a live stream.
        unsafe { result::memset_d8_async(self.address, byte, self.bytes, stream.raw()) }.map_err(|e| failed("filling device memory", e))
    }

    /// Overwrites from `offset` bytes on, in stream order; returns when `values` has been read.
    pub fn upload<T: Plain>(&self, stream: &Stream, offset: usize, values: &[T]) -> Result<()> {
        let part = self.span().part(offset as u64, size_of_val(values) as u64)?;
        let _here = stream.enter()?;
        // SAFETY: the range was checked; the stream is waited for before `values` can go.
        unsafe { result::memcpy_htod_async(part.address, values, stream.raw()) }.map_err(|e| failed("copying to the device", e))?;
        stream.synchronise()
    }

    /// Reads `count` values from `offset` bytes on, after everything enqueued on `stream`.
    pub fn download<T: Plain>(&self, stream: &Stream, offset: usize, count: usize) -> Result<Vec<T>> {
        let mut values = vec![T::default(); count];
        let part = self.span().part(offset as u64, size_of_val(values.as_slice()) as u64)?;
        let _here = stream.enter()?;
        // SAFETY: the range was checked; T is plain; the stream is waited for before `values` is read.
        unsafe { result::memcpy_dtoh_async(&mut values, part.address, stream.raw()) }.map_err(|e| failed("copying from the device", e))?;
        stream.synchronise()?;
        Ok(values)
    }

    /// Enqueues a copy of all of `from` to `offset` bytes on.
    pub fn copy_from(&self, stream: &Stream, offset: usize, from: Span<'_>) -> Result<()> {
        self.span().part(offset as u64, from.bytes)?.copy_from(stream, from)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _here = enter(&self.context);
        // SAFETY: allocated by us, freed once. A failure means that the context is lost.
        let _ = unsafe { result::free_sync(self.address) };
    }
}

/// Waits for the default stream: even the driver's "synchronous" calls may return before the device is done,
/// and our streams do not wait for that stream.
fn settle() -> Result<()> {
    // SAFETY: null is the current context's default stream.
    unsafe { result::stream::synchronize(std::ptr::null_mut()) }.map_err(|e| failed("waiting for a copy", e))
}

/// Whether CUDA knows `address` as device-accessible memory; a plain host address is not.
pub(crate) fn is_device_address(device: &Device, address: u64) -> Result<bool> {
    let _here = device.enter()?;
    let mut kind: u32 = 0;
    let attribute = sys::CUpointer_attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE;
    // SAFETY: the attribute is an unsigned int, written to a local.
    let asked = unsafe { sys::cuPointerGetAttribute((&raw mut kind).cast::<c_void>(), attribute, address) };
    Ok(asked.result().is_ok())
}
