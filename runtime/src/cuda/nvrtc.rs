//! NVRTC's eight functions, resolved from one exact file.
//!
//! cudarc would pick a library by name, let a stray libnvrtc.so of another CUDA win, and panic when none
//! is found. We open the file we chose, so the version in a cache key is the version that compiles.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

type Program = *mut c_void;

/// NVRTC, loaded; it stays so for the life of the process.
pub(crate) struct Nvrtc {
    version: (i32, i32),
    create: unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// The outcome of a compilation that NVRTC ran: the cubin, or `None` with the reason in the log.
pub(crate) struct Outcome {
    pub cubin: Option<Vec<u8>>,
    pub log: String,
}

impl Nvrtc {
    /// Opens `file`, a path or a name for the loader to search.
    pub fn open(file: &Path) -> Result<Self, String> {
        preload_builtins(file);
        let library = open_global(file)?;
        let nvrtc = resolve(&library)?;
        // The functions outlive every handle: NVRTC keeps threads and exit handlers, and is never unloaded.
        std::mem::forget(library);
        Ok(nvrtc)
    }

    /// (major, minor).
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles `source` to a cubin. `name` is what the log calls the text.
    pub fn compile(&self, source: &CStr, name: &CStr, options: &[CString]) -> Outcome {
        let mut program: Program = std::ptr::null_mut();
        let none = std::ptr::null();
        // SAFETY: the strings are terminated and outlive the program, which `Open` destroys below.
        let created = unsafe { (self.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, none, none) };
        if created != 0 {
            return Outcome { cubin: None, log: self.text(created) };
        }
        let open = Open { nvrtc: self, program };
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program is live; the option strings are terminated and live.
        let compiled = unsafe { (self.compile)(program, pointers.len() as c_int, pointers.as_ptr()) };
        let mut log = open.bytes(self.log_size, self.log).map(|b| text(&b)).unwrap_or_default();
        let cubin = (compiled == 0).then(|| open.bytes(self.cubin_size, self.cubin)).flatten().filter(|b| !b.is_empty());
        if cubin.is_none() && log.is_empty() {
            log = self.text(compiled);
        }
        Outcome { cubin, log }
    }

    fn text(&self, code: c_int) -> String {
        // SAFETY: the function returns a static string for every code.
        let text = unsafe { CStr::from_ptr((self.error_string)(code)) };
        format!("{} (code {code})", text.to_string_lossy())
    }
}

/// A program that is destroyed on every way out.
struct Open<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl Open<'_> {
    fn bytes(&self, size: unsafe extern "C" fn(Program, *mut usize) -> c_int, read: unsafe extern "C" fn(Program, *mut c_char) -> c_int) -> Option<Vec<u8>> {
        let mut length = 0;
        // SAFETY: the program is live and the pointer is to a local.
        (unsafe { size(self.program, &mut length) } == 0).then_some(())?;
        let mut bytes = vec![0_u8; length];
        // SAFETY: the buffer has the size that NVRTC asked for.
        (unsafe { read(self.program, bytes.as_mut_ptr().cast()) } == 0).then_some(bytes)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        unsafe { (self.nvrtc.destroy)(&mut self.program) };
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').trim().to_string()
}

fn open_global(file: &Path) -> Result<Library, String> {
    // SAFETY: NVRTC's initialisers have no precondition. Global, so that its later dlopen of the
    // builtins by name is answered by the file opened here.
    unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| e.to_string())
}

/// The wheel's libnvrtc has no RUNPATH: unless its builtins are mapped first, every compilation fails.
fn preload_builtins(file: &Path) {
    let Some(folder) = file.parent().filter(|p| !p.as_os_str().is_empty()) else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so")
            && let Ok(library) = open_global(&entry.path())
        {
            std::mem::forget(library);
        }
    }
}

fn resolve(library: &Library) -> Result<Nvrtc, String> {
    macro_rules! symbol {
        ($name:literal) => {
            // SAFETY: the type is the one nvrtc.h declares; the library stays loaded.
            *unsafe { library.get($name.as_bytes()) }.map_err(|e| format!("no {}: {e}", $name))?
        };
    }
    let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = symbol!("nvrtcVersion");
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to locals.
    if unsafe { version(&mut major, &mut minor) } != 0 {
        return Err("nvrtcVersion failed".into());
    }
    Ok(Nvrtc {
        version: (major, minor),
        create: symbol!("nvrtcCreateProgram"),
        compile: symbol!("nvrtcCompileProgram"),
        destroy: symbol!("nvrtcDestroyProgram"),
        log_size: symbol!("nvrtcGetProgramLogSize"),
        log: symbol!("nvrtcGetProgramLog"),
        cubin_size: symbol!("nvrtcGetCUBINSize"),
        cubin: symbol!("nvrtcGetCUBIN"),
        error_string: symbol!("nvrtcGetErrorString"),
    })
}
