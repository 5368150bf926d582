//! A loaded kernel: what it uses, and its launch.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::CUfunction_attribute as Attribute;
use cudarc::driver::{CudaContext, CudaFunction, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use kernel_dsl::Source;

use super::context::enter;
use super::driver::{failed, has_symbol};
use super::memory::Span;
use super::stream::Stream;
use crate::arch::Arch;
use crate::argument::Misuse;
use crate::compile::Compiled;
use crate::error::{Error, Result};

/// More arguments than any kernel of ours takes; a launch keeps them on the stack.
const MAX_ARGS: usize = 32;

/// One kernel argument.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A device address.
    Ptr(Span<'a>),
    /// A 32-bit integer.
    I32(i32),
    /// A 64-bit integer.
    I64(i64),
    /// A float.
    F32(f32),
}

impl Arg<'_> {
    fn bytes(&self) -> usize {
        match self {
            Arg::Ptr(_) | Arg::I64(_) => 8,
            Arg::I32(_) | Arg::F32(_) => 4,
        }
    }

    /// The argument's bits, as the launch call wants to point at them (little endian).
    fn bits(&self) -> u64 {
        match self {
            Arg::Ptr(span) => span.address(),
            Arg::I64(v) => *v as u64,
            Arg::I32(v) => u64::from(*v as u32),
            Arg::F32(v) => u64::from(v.to_bits()),
        }
    }
}

/// What the driver says of a loaded kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Registers a thread.
    pub registers: i32,
    /// Local memory a thread in bytes: the stack and spills.
    pub local_bytes: i32,
    /// Static shared memory a block in bytes.
    pub static_shared_bytes: i32,
    /// Blocks that fit a multiprocessor at once.
    pub blocks_per_multiprocessor: u32,
}

/// A kernel loaded on a device. Immutable: launch it from any thread, on any stream of its device.
#[derive(Debug)]
pub struct Kernel {
    context: Arc<CudaContext>,
    function: CudaFunction,
    name: String,
    threads: u32,
    shared_bytes: u32,
    attributes: Attributes,
    /// It waits for its predecessor by itself, so it is launched before that one has ended.
    early: bool,
    // The sizes of its parameters, where the driver can tell (12.4 and later).
    params: Option<Vec<usize>>,
}

impl Kernel {
    pub(super) fn load(context: &Arc<CudaContext>, arch: Arch, limit: usize, source: &Source, compiled: &Compiled) -> Result<Self> {
        if source.shared_bytes as usize > limit {
            return Err(Error::unsupported(format!("kernel `{}` wants {} bytes of shared memory a block and the device has {limit}", source.name, source.shared_bytes)));
        }
        if source.name.contains('\0') {
            return Err(Error::Generate("a kernel's name holds a zero byte".into()));
        }
        let _here = enter(context)?;
        let module = context.load_module(Ptx::from_binary(compiled.cubin.to_vec())).map_err(|e| failed("loading a cubin", e))?;
        let function = module.load_function(&source.name).map_err(|e| failed("finding the kernel in its cubin", e))?;
        let attributes = prepare(&function, source).map_err(|e| failed("preparing a kernel", e))?;
        let params = parameter_sizes(&function);
        let (name, threads, shared_bytes) = (source.name.clone(), source.threads, source.shared_bytes);
        let early = source.waits() && arch >= Arch::SM_90A && has_symbol("cuLaunchKernelEx");
        Ok(Kernel { context: context.clone(), function, name, threads, shared_bytes, attributes, early, params })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the driver says of it.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// Enqueues one launch over `grid` blocks. No allocation, no wait: may be captured into a graph.
    ///
    /// The arguments' number and sizes are checked against the kernel; their meaning is the caller's.
    pub fn launch(&self, stream: &Stream, grid: [u32; 3], args: &[Arg<'_>]) -> Result<()> {
        self.check(stream, grid, args)?;
        let mut values = [0_u64; MAX_ARGS];
        let mut pointers = [std::ptr::null_mut::<c_void>(); MAX_ARGS];
        for (value, arg) in values.iter_mut().zip(args) {
            *value = arg.bits();
        }
        for (value, pointer) in values.iter_mut().zip(&mut pointers) {
            *pointer = std::ptr::from_mut(value).cast();
        }
        let _here = stream.enter()?;
        if self.early {
            return self.launch_early(stream, grid, &mut pointers);
        }
        let (grid, block) = ((grid[0], grid[1], grid[2]), (self.threads, 1, 1));
        // SAFETY: function and stream are live and of one context; each pointer, and there are more than
        // any kernel has parameters, is to 8 readable bytes that the driver copies before it returns; the
        // addresses among them are spans, live by their makers' promise.
        unsafe {
            let function = self.function.cu_function();
            result::launch_kernel(function, grid, block, self.shared_bytes, stream.raw(), &mut pointers)
        }
        .map_err(|e| failed("launching a kernel", e))
    }

    /// As `launch`, with the arguments of all lists, one after another.
    pub fn launch_with(&self, stream: &Stream, grid: [u32; 3], lists: &[&[Arg<'_>]]) -> Result<()> {
        let mut all = [Arg::I32(0); MAX_ARGS];
        let mut count = 0;
        for arg in lists.iter().copied().flatten() {
            *all.get_mut(count).ok_or_else(|| Misuse::Other(self.describe_args(&[])))? = *arg;
            count += 1;
        }
        self.launch(stream, grid, &all[..count])
    }

    /// Programmatic dependent launch: blocks start when the kernel before them has no more to start.
    fn launch_early(&self, stream: &Stream, grid: [u32; 3], pointers: &mut [*mut c_void]) -> Result<()> {
        let mut attribute = sys::CUlaunchAttribute { id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, pad: [0; 4], value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 } };
        let config =
            sys::CUlaunchConfig { gridDimX: grid[0], gridDimY: grid[1], gridDimZ: grid[2], blockDimX: self.threads, blockDimY: 1, blockDimZ: 1, sharedMemBytes: self.shared_bytes, hStream: stream.raw(), attrs: &mut attribute, numAttrs: 1 };
        // SAFETY: as in `launch`, which made the pointers; the configuration outlives the call.
        unsafe { sys::cuLaunchKernelEx(&config, self.function.cu_function(), pointers.as_mut_ptr(), std::ptr::null_mut()) }.result().map_err(|e| failed("launching a kernel", e))
    }

    fn check(&self, stream: &Stream, grid: [u32; 3], args: &[Arg<'_>]) -> std::result::Result<(), Misuse> {
        let name = &self.name;
        if stream.context().cu_ctx() != self.context.cu_ctx() {
            return Err(Misuse::Other(format!("kernel `{name}` is loaded on another device than the stream's")));
        }
        if grid.contains(&0) || grid[0] > i32::MAX as u32 || grid[1] > 65535 || grid[2] > 65535 {
            return Err(Misuse::Other(format!("kernel `{name}` has no grid of {grid:?} blocks; use 1 to [2^31-1, 65535, 65535]")));
        }
        let told = self.params.as_ref().is_none_or(|params| params.iter().copied().eq(args.iter().map(Arg::bytes)));
        if told && args.len() <= MAX_ARGS { Ok(()) } else { Err(Misuse::Other(self.describe_args(args))) }
    }

    fn describe_args(&self, args: &[Arg<'_>]) -> String {
        let given: Vec<usize> = args.iter().map(Arg::bytes).collect();
        let wanted = self.params.clone().unwrap_or_default();
        format!("kernel `{}` takes arguments of {wanted:?} bytes and was given {given:?}", self.name)
    }
}

/// Allows the dynamic shared memory and reads the attributes.
fn prepare(function: &CudaFunction, source: &Source) -> std::result::Result<Attributes, DriverError> {
    // Beyond 48 KiB a kernel must ask.
    if source.shared_bytes > 48 * 1024 {
        let limit = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(limit, source.shared_bytes as i32)?;
    }
    let occupancy = function.occupancy_max_active_blocks_per_multiprocessor(source.threads, source.shared_bytes as usize, None)?;
    Ok(Attributes { registers: function.num_regs()?, local_bytes: function.local_size_bytes()?, static_shared_bytes: function.shared_size_bytes()?, blocks_per_multiprocessor: occupancy })
}

/// The parameters' sizes, or `None` where the driver cannot tell.
fn parameter_sizes(function: &CudaFunction) -> Option<Vec<usize>> {
    if !has_symbol("cuFuncGetParamInfo") {
        return None;
    }
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the symbol was found; both pointers are to locals.
        let asked = unsafe { sys::cuFuncGetParamInfo(function.cu_function(), sizes.len(), &mut offset, &mut size) };
        match asked {
            sys::CUresult::CUDA_SUCCESS => sizes.push(size),
            // Past the last parameter.
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => return Some(sizes),
            _ => return None,
        }
    }
}
