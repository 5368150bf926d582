//! One array of rows through one codec, for comparisons with other implementations.

use std::path::PathBuf;

use kernels_gen::registry::{CodecInfo, HEAD_DIMS_STORE, codec};
use rayon::prelude::*;

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
        return Err(Error::malformed(
            &options.input,
            format!("its rows have {d} elements; head dims are {HEAD_DIMS_STORE:?}"),
        ));
    }
    let Some(values) = array.to_f32() else {
        return Err(Error::malformed(&options.input, format!("its elements are {:?}; rows are float32", array.kind)));
    };
    let coded: Vec<(Vec<u8>, Vec<f32>)> = values.par_chunks_exact(d).map(|x| through(codec, x)).collect();
    let decoded: Vec<f32> = coded.iter().flat_map(|(_, row)| row).copied().collect();
    npy::write_f32(&options.out, &[rows, d], &decoded)?;
    if let Some(path) = &options.codes {
        let bytes: Vec<u8> = coded.iter().flat_map(|(codes, _)| codes).copied().collect();
        npy::write_u8(path, &[rows, vector_bytes(codec, d)], &bytes)?;
    }
    let error =
        values.chunks_exact(d).zip(decoded.chunks_exact(d)).map(|(x, y)| crate::attention::SquaredError::of_row(x, y));
    let error = error.fold(crate::attention::SquaredError::default(), |a, b| a + b);
    Ok(format!(
        "{}: {rows} rows of {d}, {:.3} bits/el, rel-MSE {:.3e}",
        codec.name,
        codec.stored_bits_per_element(d),
        error.relative()
    ))
}

/// Bytes of one coded vector.
pub fn vector_bytes(codec: &CodecInfo, d: usize) -> usize {
    d / 8 * codec.bits / 8 + 2 * codec.sides
}

fn through(codec: &CodecInfo, x: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let row = codec.encode_row(x);
    let mut bytes = vec![0_u8; x.len() / 8 * codec.bits / 8];
    for (block, code) in row.codes.iter().enumerate() {
        for bit in 0..codec.bits {
            let at = block * codec.bits + bit;
            bytes[at / 8] |= ((code[bit / 32] >> (bit % 32) & 1) as u8) << (at % 8);
        }
    }
    bytes.extend(row.side.iter().take(codec.sides).flat_map(|side| side.to_le_bytes()));
    (bytes, codec.decode_row(&row, x.len()))
}
