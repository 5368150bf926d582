//! One array of rows through one codec, for comparisons with other implementations.

use std::path::PathBuf;

use kernels_gen::layout::Operand;
use kernels_gen::reference::Row;
use kernels_gen::registry::{CodecInfo, HEAD_DIMS_STORE, codec};
use rayon::prelude::*;

use crate::attention::{Geometry, Pages, SquaredError};
use crate::backend;
use crate::error::{Error, Result};
use crate::npy::{self, Array};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    pub codec: String,
    /// rows [n, d] f32 as .npy
    #[arg(long = "in")]
    pub input: PathBuf,
    /// where the decoded rows [n, d] f32 go
    #[arg(long)]
    pub out: PathBuf,
    /// where the packed rows [n, bytes] u8 go: code words of BITS bits one after the other, then the f16 sides
    #[arg(long)]
    pub codes: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "cpu")]
    pub backend: backend::Choice,
}

/// Returns one line about what was done.
pub fn run(options: &Options) -> Result<String> {
    let codec = codec(&options.codec)?;
    let array = Array::read(&options.input)?;
    let [rows, d] = array.shape[..] else {
        return Err(Error::malformed(&options.input, format!("its shape is {:?}; rows are [n, d]", array.shape)));
    };
    if !HEAD_DIMS_STORE.contains(&d) {
        return Err(Error::malformed(&options.input, format!("its rows have {d} elements; head dims are {HEAD_DIMS_STORE:?}")));
    }
    let Some(values) = array.to_f32() else {
        return Err(Error::malformed(&options.input, format!("its elements are {:?}; rows are float32", array.kind)));
    };
    if rows == 0 {
        return Err(Error::malformed(&options.input, "it holds no rows; save at least one"));
    }
    let stored = stored(options, codec, &values, d)?;
    let through = |row: &Row| (packed(codec, row), codec.k.decode_row(row, d));
    let coded: Vec<(Vec<u8>, Vec<f32>)> = stored.par_iter().map(through).collect();
    let decoded: Vec<f32> = coded.iter().flat_map(|(_, row)| row).copied().collect();
    npy::write_f32(&options.out, &[rows, d], &decoded)?;
    if let Some(path) = &options.codes {
        let bytes: Vec<u8> = coded.iter().flat_map(|(codes, _)| codes).copied().collect();
        npy::write_u8(path, &[rows, vector_bytes(codec, d)], &bytes)?;
    }
    let error = values.chunks_exact(d).zip(decoded.chunks_exact(d)).map(|(x, y)| SquaredError::of_row(x, y));
    let error = error.fold(SquaredError::default(), |a, b| a + b);
    Ok(format!("{}: {rows} rows of {d}, {:.3} bits/el, rel-MSE {:.3e}", codec.name, codec.stored_bits_per_element(d), error.relative()))
}

/// Bytes of one coded vector.
pub fn vector_bytes(codec: &CodecInfo, d: usize) -> usize {
    codec.k.vector_bytes(d)
}

/// Every row through a cache of the backend and out of its bytes again.
fn stored(options: &Options, codec: &'static CodecInfo, values: &[f32], d: usize) -> Result<Vec<Row>> {
    let rows = values.len() / d;
    let (pages, geometry) = (Pages::new(rows, 64), Geometry { layers: 1, heads: 1, kv_heads: 1, d, scale: 1.0 });
    let mut cache = backend::open(options.backend)?.cache(codec, &geometry, &pages)?;
    cache.store(0, 0, values, values, &pages)?;
    let bytes = cache.bytes(0)?;
    Ok((0..rows).into_par_iter().map(|row| pages.row(codec, &bytes, (1, d), (row, 0), Operand::K)).collect())
}

/// The code words one after the other, lowest bit first, then the sides.
fn packed(codec: &CodecInfo, row: &Row) -> Vec<u8> {
    let widths: Vec<usize> = (0..row.codes.len()).map(|block| codec.k.codec(block, row.codes.len()).spec().bits).collect();
    let mut bytes = vec![0_u8; widths.iter().sum::<usize>() / 8];
    let mut at = 0;
    for (code, width) in row.codes.iter().zip(widths) {
        for bit in 0..width {
            bytes[at / 8] |= ((code[bit / 32] >> (bit % 32) & 1) as u8) << (at % 8);
            at += 1;
        }
    }
    bytes.extend(row.side.iter().take(codec.k.sides).flat_map(|side| side.to_le_bytes()));
    bytes
}
