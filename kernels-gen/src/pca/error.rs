//! What can be wrong with the settings of the PCA codec, or with the rows it is given.

use std::fmt;

#[derive(Clone, PartialEq, Debug)]
pub enum PcaError {
    /// a setting that cannot be: its name, what it is, what it may be
    Setting { what: &'static str, is: String, wanted: String },
    /// two settings that exclude each other
    Conflict { one: &'static str, other: &'static str, why: &'static str },
    /// a word of a codec's name that says nothing
    Word { name: String, word: String },
    /// the published implementation ends here by a panic or without an end; only under `compat`
    Original { does: &'static str, on: &'static str },
    /// bytes that are no block
    Bytes { why: String },
    /// a matrix that has no Cholesky factor
    NotPositive { column: usize },
    /// what is fitted to a model is missing
    Missing { what: &'static str },
}

impl fmt::Display for PcaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PcaError::Setting { what, is, wanted } => write!(f, "{what} of the PCA codec is {is}; give {wanted}"),
            PcaError::Conflict { one, other, why } => write!(f, "{one} and {other} exclude each other: {why}"),
            PcaError::Word { name, word } => write!(
                f,
                "`{name}`: `{word}` is no option of the PCA codec; write pca_static_W (W 2, 3, 4 or 6), or pca_v13 or pca_b1 to pca_b4, then _bN bits, _kN centres, _rN rank, \
                 _vrN percent of variance, _nN rows of a block, _sN seed, _tN threshold of outliers (_t0: none), _exact or _random, \
                 _gauss, _ds or _fitted tables, _qp or _noqp, _pre or _post RoPE, _thetaN its base, _share or _own basis, _head or _pooled blocks, \
                 _norm, _f32, _mse, _ip or _linf, _rawA.B raw layers, _compat; KEYS/VALUES for two of them"
            ),
            PcaError::Original { does, on } => {
                write!(f, "compat: the published implementation {does} on {on}; leave out compat")
            }
            PcaError::Bytes { why } => write!(f, "the bytes are no block of the PCA codec: {why}"),
            PcaError::NotPositive { column } => {
                write!(f, "second moments are not positive definite at column {column}; give more queries or a larger ridge")
            }
            PcaError::Missing { what } => {
                write!(f, "the PCA codec needs {what}, which is fitted ahead: `harness ppl` does so; open_fitted takes levels, fit_bases makes pages of bases")
            }
        }
    }
}

impl std::error::Error for PcaError {}
