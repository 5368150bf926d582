//! Formats of rows by name.

use std::fmt;

use super::floats::{Bf16Row, Fp8Row, Mxfp4Row};
use super::integers::Integers;
use super::{DIM, NOPE};
use crate::reference::to_bf16;

/// How rows are stored: `v4_bf16`, `v4_fp8`, `v4_mxfp4`, or `v4_NOPE_ROPE`, codes of the numbers without and with a position.
#[derive(Clone, Debug)]
pub struct Format {
    name: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Bf16,
    Fp8,
    Mxfp4,
    Integers(Integers),
}

/// No format has that name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownFormat {
    pub name: String,
}

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "no format of rows is called `{}`; there are v4_bf16, v4_fp8, v4_mxfp4 and v4_NOPE_ROPE, where NOPE is one of intW (W 2 to 8), e8wW (W 2 to 7) and e8qQ (Q 1 to 63), and ROPE is int8 or bf16", self.name)
    }
}

impl std::error::Error for UnknownFormat {}

/// The format of that name.
pub fn format(name: &str) -> Result<Format, UnknownFormat> {
    let kind = match name {
        "v4_bf16" => Some(Kind::Bf16),
        "v4_fp8" => Some(Kind::Fp8),
        "v4_mxfp4" => Some(Kind::Mxfp4),
        _ => name.strip_prefix("v4_").and_then(|n| n.rsplit_once('_')).and_then(|(nope, rope)| Integers::of(nope, rope)).map(Kind::Integers),
    };
    kind.map(|kind| Format { name: name.into(), kind }).ok_or_else(|| UnknownFormat { name: name.into() })
}

impl Format {
    /// One of each kind, for tests and tables.
    pub const FAMILIES: [&'static str; 11] = ["v4_bf16", "v4_fp8", "v4_mxfp4", "v4_int3_int8", "v4_int4_int8", "v4_int4_bf16", "v4_int8_int8", "v4_e8w3_int8", "v4_e8w4_int8", "v4_e8w5_int8", "v4_e8q38_int8"];

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Rows of integers under one scale, if they are that: see [`Integers`].
    pub fn integers(&self) -> Option<&Integers> {
        match &self.kind {
            Kind::Integers(i) => Some(i),
            _ => None,
        }
    }

    /// Bytes that a row takes, scales included.
    pub fn row_bytes(&self) -> usize {
        match &self.kind {
            Kind::Bf16 => Bf16Row::BYTES,
            Kind::Fp8 => Fp8Row::BYTES,
            Kind::Mxfp4 => Mxfp4Row::BYTES,
            Kind::Integers(i) => i.row_bytes(),
        }
    }

    /// Bytes of a page of `rows` rows. Pages of `v4_fp8` are padded to a multiple of 576 bytes, as engines have them.
    pub fn page_bytes(&self, rows: usize) -> usize {
        match self.kind {
            Kind::Fp8 => Fp8Row::page_bytes(rows),
            _ => rows * self.row_bytes(),
        }
    }

    /// Stores a vector as row `at` of a page of `rows` rows. Bytes of other rows stay as they are.
    pub fn store(&self, page: &mut [u8], rows: usize, at: usize, x: &[f32; DIM]) {
        let own = at * self.row_bytes()..(at + 1) * self.row_bytes();
        let rounded = rounded(x);
        match &self.kind {
            Kind::Bf16 => Bf16Row::encode(&rounded, &mut page[own]),
            Kind::Fp8 => Fp8Row::encode(&rounded, page, rows, at),
            Kind::Mxfp4 => Mxfp4Row::encode(&rounded, &mut page[own]),
            Kind::Integers(i) => i.encode(&rounded, &mut page[own]),
        }
    }

    /// The vector that row `at` of a page of `rows` rows stands for.
    pub fn load(&self, page: &[u8], rows: usize, at: usize) -> [f32; DIM] {
        let own = at * self.row_bytes()..(at + 1) * self.row_bytes();
        match &self.kind {
            Kind::Bf16 => Bf16Row::decode(&page[own]),
            Kind::Fp8 => Fp8Row::decode(page, rows, at),
            Kind::Mxfp4 => Mxfp4Row::decode(&page[own]),
            Kind::Integers(i) => i.decode(&page[own]),
        }
    }

    /// What becomes of a vector that is stored.
    pub fn round_trip(&self, x: &[f32; DIM]) -> [f32; DIM] {
        let mut page = vec![0; self.page_bytes(1)];
        self.store(&mut page, 1, 0, x);
        self.load(&page, 1, 0)
    }
}

/// The numbers without a position in bf16, as the model's norm leaves them; those with one as they are.
fn rounded(x: &[f32; DIM]) -> [f32; DIM] {
    std::array::from_fn(|i| if i < NOPE { to_bf16(x[i]) } else { x[i] })
}
