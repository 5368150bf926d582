//! One entry a device: its context, what it can do, and the kernels loaded on it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{CudaContext, DriverError};
use kernel_dsl::Source;

use super::context::{Entered, enter, remember};
use super::driver::{device_count, failed, initialise};
use super::kernel::Kernel;
use super::stream::Stream;
use crate::arch::Arch;
use crate::cache::Key;
use crate::compile;
use crate::error::{Error, Result};

/// A GPU that kernels can be loaded on. Cheap to clone; the same ordinal is always the same device,
/// on its primary context (the one engines use too). Usable from any thread.
#[derive(Clone)]
pub struct Device(Arc<Entry>);

struct Entry {
    context: Arc<CudaContext>,
    name: String,
    arch: Arch,
    multiprocessors: usize,
    l2_bytes: usize,
    shared_bytes: usize,
    kernels: Mutex<HashMap<Key, Arc<Kernel>>>,
}

static DEVICES: OnceLock<Mutex<BTreeMap<usize, Device>>> = OnceLock::new();

impl Device {
    /// Opens device `ordinal`. The first call retains its primary context for the process's life.
    pub fn open(ordinal: usize) -> Result<Self> {
        initialise()?;
        let mut devices = DEVICES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(&ordinal) {
            return Ok(device.clone());
        }
        let count = device_count()?;
        if ordinal >= count {
            return Err(Error::NoDevice { ordinal, count });
        }
        let _restore = remember()?;
        let device = Device(Arc::new(Entry::new(ordinal).map_err(|e| failed("opening the device", e))?));
        devices.insert(ordinal, device.clone());
        Ok(device)
    }

    /// The device's name, as the driver gives it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its number.
    pub fn ordinal(&self) -> usize {
        self.0.context.ordinal()
    }

    /// What kernels are compiled for.
    pub fn arch(&self) -> Arch {
        self.0.arch
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> usize {
        self.0.multiprocessors
    }

    /// Bytes of L2 cache.
    pub fn l2_bytes(&self) -> usize {
        self.0.l2_bytes
    }

    /// Bytes of shared memory one block may use.
    pub fn shared_bytes(&self) -> usize {
        self.0.shared_bytes
    }

    /// Bytes of device memory, (free, total).
    pub fn memory_bytes(&self) -> Result<(usize, usize)> {
        let _here = self.enter()?;
        cudarc::driver::result::mem_get_info().map_err(|e| failed("asking for free memory", e))
    }

    /// A new stream of our own, for tests and tools; engines lend theirs ([`Stream::borrow`]).
    pub fn stream(&self) -> Result<Stream> {
        Stream::create(&self.0.context)
    }

    /// Compiles (or finds in a cache) and loads `source`, for no more blocks a multiprocessor than its shared memory lets in; the second call returns the first's kernel.
    /// May allocate, compile and touch the disk: never call it while a stream is being captured.
    pub fn kernel(&self, source: &Source) -> Result<Arc<Kernel>> {
        let source = &*source.within(self.0.shared_bytes);
        let key = compile::key(source, self.0.arch)?;
        if let Some(kernel) = self.lock_kernels().get(&key) {
            return Ok(kernel.clone());
        }
        let compiled = compile::compile(source, self.0.arch)?;
        // Also for the drop of a kernel that another thread loaded first.
        let _here = self.enter()?;
        let kernel = Arc::new(Kernel::load(&self.0.context, self.0.arch, self.0.shared_bytes, source, &compiled)?);
        Ok(self.lock_kernels().entry(key).or_insert(kernel).clone())
    }

    /// Waits for all work on the device. The driver refuses that, and gives up the capture, while anybody captures one of its streams: [`Stream::synchronise`]
    /// waits for one stream and disturbs none.
    pub fn synchronise(&self) -> Result<()> {
        let _here = self.enter()?;
        cudarc::driver::result::ctx::synchronize().map_err(|e| failed("waiting for the device", e))
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.0.context
    }

    pub(super) fn enter(&self) -> Result<Entered> {
        enter(&self.0.context)
    }

    fn lock_kernels(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Kernel>>> {
        self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(ordinal: usize) -> std::result::Result<Self, DriverError> {
        let context = CudaContext::new(ordinal)?;
        // SAFETY: no slice of cudarc's is ever made on this context, so there is nothing to track;
        // left on, its events would leak into captured graphs.
        unsafe { context.disable_event_tracking() };
        let (major, minor) = context.compute_capability()?;
        let number = |a| context.attribute(a).map(|v| usize::try_from(v).unwrap_or(0));
        Ok(Entry {
            name: context.name()?,
            arch: Arch::new(major, minor),
            multiprocessors: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1),
            l2_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
            shared_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            kernels: Mutex::default(),
            context,
        })
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}: {}, {})", self.ordinal(), self.name(), self.arch())
    }
}
