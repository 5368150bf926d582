//! Everything that can go wrong, one variant a mistake; the text says what is wrong, then what to do.

use std::fmt;
use std::path::PathBuf;

use crate::argument::Misuse;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the runtime; [`Error::kind`] sorts it for callers that only want a class.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call's argument is wrong; nothing was enqueued.
    #[error(transparent)]
    Argument(#[from] Misuse),
    /// The arguments are sound but no kernel serves them; every reason is listed.
    #[error("unsupported: {0}")]
    Unsupported(Reasons),
    /// A codec name that is not in the registry.
    #[error(transparent)]
    Codec(#[from] kernels_gen::registry::UnknownCodec),
    /// A name of no format of rows.
    #[error(transparent)]
    Format(#[from] kernels_gen::latent::UnknownFormat),
    /// A calibration that cannot be used.
    #[error(transparent)]
    Calibration(#[from] kernels_gen::preset::BadCalibration),
    /// The kernel generator refused to write the kernel.
    #[error("the kernel could not be generated: {0}")]
    Generate(String),
    /// No CUDA driver on this machine.
    #[error("no libcuda.so.1 on the loader's path: install the NVIDIA driver, or use the scalar reference")]
    NoDriver,
    /// The driver is there, the asked device is not.
    #[error("no CUDA device {ordinal} ({count} visible): check CUDA_VISIBLE_DEVICES, or use the scalar reference")]
    NoDevice {
        /// The device asked for.
        ordinal: usize,
        /// How many devices the driver lists.
        count: usize,
    },
    /// NVRTC was not found anywhere.
    #[error("no libnvrtc found: install it (pip install nvidia-cuda-nvrtc) or set KVF_NVRTC to the file; looked at {0}")]
    NoNvrtc(Places),
    /// KVF_NVRTC or a found file does not load.
    #[error("{path} does not load as NVRTC: {why}")]
    NvrtcLoad {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        why: String,
    },
    /// NVRTC rejected the kernel's text.
    #[error("NVRTC rejected kernel `{kernel}` for {arch}:\n{log}{}", Dumped(.dump))]
    Compile {
        /// The kernel's name.
        kernel: String,
        /// The target.
        arch: String,
        /// NVRTC's log, whose lines carry Rust positions where the text has #line.
        log: String,
        /// Where the text was written, when KVF_DUMP_DIR is set.
        dump: Option<PathBuf>,
    },
    /// A call of the CUDA driver failed.
    #[error("CUDA driver, while {doing}: {text} (code {code}){}", hint(*.code))]
    Driver {
        /// What was being done.
        doing: &'static str,
        /// The CUresult.
        code: i32,
        /// The driver's words.
        text: String,
    },
}

/// The class of an [`Error`]; the C library's status codes are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An argument is wrong.
    Invalid,
    /// No kernel serves the (sound) arguments.
    Unsupported,
    /// No driver or no such device.
    NoGpu,
    /// No NVRTC.
    NoNvrtc,
    /// Generation or compilation failed.
    Compile,
    /// The driver failed.
    Cuda,
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Argument(_) | Error::Codec(_) | Error::Format(_) | Error::Calibration(_) => Kind::Invalid,
            Error::Unsupported(_) => Kind::Unsupported,
            Error::NoDriver | Error::NoDevice { .. } => Kind::NoGpu,
            Error::NoNvrtc(_) | Error::NvrtcLoad { .. } => Kind::NoNvrtc,
            Error::Compile { .. } | Error::Generate(_) => Kind::Compile,
            Error::Driver { .. } => Kind::Cuda,
        }
    }

    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Error::Unsupported(Reasons(vec![reason.into()]))
    }
}

/// All the reasons why something is refused, so that one look mends them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons(pub Vec<String>);

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// The places a search looked at.
#[derive(Debug, Clone)]
pub struct Places(pub Vec<PathBuf>);

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the loader's path")?;
        self.0.iter().try_for_each(|p| write!(f, ", {}", p.display()))
    }
}

struct Dumped<'a>(&'a Option<PathBuf>);

impl fmt::Display for Dumped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, "\nthe text is in {}", path.display()),
            None => f.write_str("\nset KVF_DUMP_DIR to a folder to keep the text"),
        }
    }
}

/// What to do about the driver errors that callers meet most.
fn hint(code: i32) -> &'static str {
    match code {
        3 => ": CUDA does not survive a fork; make and use plans in one process, after the fork",
        2 => ": free device memory or ask for less",
        35 | 803 => ": the driver is older than this CUDA; update it",
        201 | 400 => ": the stream or address belongs to another device or context",
        209 | 222 => ": the driver is older than the NVRTC that compiled this; update it or point KVF_NVRTC to an older one",
        700..=719 => ": the context is lost; restart the process, and check the device addresses given",
        900..=908 => ": this call may not happen while a stream is being captured; prepare first",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_to_do() {
        let driver = Error::Driver { doing: "launching a kernel", code: 700, text: "an illegal memory access".into() };
        assert_eq!(
            driver.to_string(),
            "CUDA driver, while launching a kernel: an illegal memory access (code 700): the context is lost; \
             restart the process, and check the device addresses given"
        );
        let none = Error::NoNvrtc(Places(vec!["/opt/a".into()]));
        assert!(none.to_string().ends_with("looked at the loader's path, /opt/a"));
        let two = Error::Unsupported(Reasons(vec!["a".into(), "b".into()]));
        assert_eq!((two.to_string().as_str(), two.kind()), ("unsupported: a; b", Kind::Unsupported));
    }
}
