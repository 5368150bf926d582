//! The PCA codec: blocks of rows in their own principal components, minus the nearest of a few directions, rotated, and
//! rounded to a table of a few levels (KakeyaTurbo v1.3).
//!
//! A block of rows is fitted when it is full: mean, principal components, spherical k-means. A row then is a segment, a
//! length along that segment's centre, the norm of what is left, and 1 to 4 bits a coordinate of it; coordinates beyond a
//! threshold may be kept as they are. Everything is a switch of [`Settings`]; `compat` brings back the defects of the
//! published implementation, so that its numbers can be checked and its cells repeated.
//!
//! A block's basis is known only once the block is full, so a cache that grows by a token holds the last rows raw; and every block
//! brings its own matrix. Blocks of [`pages`] are read by kernels as they are stored. What the idea is worth when the basis is fitted
//! ahead, the calibrated codecs show ([`crate::preset`]).

mod basis;
mod block;
mod bytes;
mod centres;
mod eigen;
mod error;
mod mix;
mod name;
mod pack;
pub mod pages;
mod random;
mod randomized;
mod row;
mod settings;
mod stream;
mod table;
mod whiten;

pub use basis::Basis;
pub use block::{Block, Skeleton};
pub use centres::Centres;
pub use eigen::eigen;
pub use error::PcaError;
pub use mix::{hadamard, signs};
pub use name::{Codec, codec};
pub use pack::{pack, unpack};
pub use random::Small;
pub use row::Coded;
pub use settings::{Grouping, Metric, Norm, Settings, Svd, Table};
pub use stream::{Coding, Stream, gather, scatter};
pub use table::{GAUSSIAN, PUBLISHED, Published, lloyd, nearest};
pub use whiten::Whitening;
