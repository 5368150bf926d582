//! Everything that can go wrong, one variant a mistake, and the exit code each one ends the program with.
//! Messages say what is wrong, then what to do; they name the file, tensor or position at fault.

use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the run is invalid: {}", reasons.join("; "))]
    Invalid { reasons: Vec<String> },
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    UnknownCodec(#[from] kernels_gen::registry::UnknownCodec),
    #[error("score range {text:?} is not usable: {why}; write first..end with first < end <= ctx, for example 512..1024")]
    ScoreRange { text: String, why: String },
    #[error("no assets folder at {}; run from the repository root or set KVF_ASSETS to the folder that holds qwen3-tiny and eval", looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" or "))]
    NoAssets { looked: Vec<PathBuf> },
    #[error("cannot {doing} {}: {source}", path.display())]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} is malformed: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
    #[error("model in {} is not supported: {why}", path.display())]
    Unsupported { path: PathBuf, why: String },
    #[error("tensor {name} is missing from the model in {}; the checkpoint is incomplete, or config.json belongs to another one", path.display())]
    MissingTensor { name: String, path: PathBuf },
    #[error("tensor {name} has dtype {found}; expected {wanted}")]
    Dtype { name: String, found: String, wanted: &'static str },
    #[error("tensor {name} has shape {found:?}; config.json asks for {wanted:?}")]
    Shape { name: String, found: Vec<usize>, wanted: Vec<usize> },
    #[error("passage {passage} holds token {id} at position {position}, but the vocabulary ends at {vocab}; the corpus belongs to another tokenizer")]
    Token { passage: usize, position: usize, id: u32, vocab: usize },
    #[error("there is no calibration at {}; run `harness calibrate --model {}`, or name its file with --calibration", path.display(), model.display())]
    NoCalibration { path: PathBuf, model: PathBuf },
    #[error("{}: {why}", path.display())]
    Calibration { path: PathBuf, why: kernels_gen::preset::BadCalibration },
    #[error(transparent)]
    BadCalibration(#[from] kernels_gen::preset::BadCalibration),
    #[error(transparent)]
    Pca(#[from] kernels_gen::pca::PcaError),
    #[error("{0}")]
    Data(String),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Misuse(#[from] runtime::Misuse),
    #[error("the kernel cannot be built: {0}")]
    Kernel(#[from] kernel_dsl::Report),
    #[error("tensor arithmetic failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// 1 gate failed or run invalid, 2 usage, 3 environment, 4 data.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Invalid { .. } => 1,
            Error::Usage(_) | Error::UnknownCodec(_) | Error::Pca(_) | Error::ScoreRange { .. } => 2,
            Error::Runtime(error) if matches!(error.kind(), runtime::Kind::Invalid | runtime::Kind::Unsupported) => 2,
            Error::Misuse(_) | Error::Runtime(_) | Error::NoAssets { .. } | Error::Tensor(_) | Error::Kernel(_) => 3,
            Error::File { .. }
            | Error::Malformed { .. }
            | Error::Unsupported { .. }
            | Error::MissingTensor { .. }
            | Error::Dtype { .. }
            | Error::Shape { .. }
            | Error::Token { .. }
            | Error::NoCalibration { .. }
            | Error::Calibration { .. }
            | Error::BadCalibration(_)
            | Error::Data(_) => 4,
        }
    }

    pub fn reading(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::File { doing: "read", path: path.to_path_buf(), source }
    }

    pub fn writing(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::File { doing: "write", path: path.to_path_buf(), source }
    }

    pub fn malformed(path: &std::path::Path, why: impl Into<String>) -> Error {
        Error::Malformed { path: path.to_path_buf(), why: why.into() }
    }
}
