//! Byte-addressed buffers whose every access is checked.

use super::Arg;
use super::trap::Wrong;
use crate::ir::{Param, Program};

/// What memory holds before anyone writes it: a pattern that no result should show.
pub const POISON: u8 = 0xa5;

/// A kernel argument, a shared array or a copied page.
#[derive(Clone, Debug)]
pub struct Region {
    pub name: String,
    pub bytes: Vec<u8>,
    pub writable: bool,
}

impl Region {
    pub fn poisoned(name: String, len: usize) -> Region {
        Region { name, bytes: vec![POISON; len], writable: true }
    }

    /// Index of the first of `size` bytes that lie inside and start at a multiple of `align`.
    pub fn range(&self, at: i64, size: usize, align: usize) -> Result<usize, Wrong> {
        checked(&self.name, self.bytes.len(), at, size, align)
    }

    /// As `range`, for a writer.
    pub fn room(&self, at: i64, size: usize, align: usize) -> Result<usize, Wrong> {
        if self.writable { self.range(at, size, align) } else { Err(Wrong::ReadOnly { buffer: self.name.clone() }) }
    }
}

/// See [`Region::range`].
pub fn checked(name: &str, len: usize, at: i64, size: usize, align: usize) -> Result<usize, Wrong> {
    match usize::try_from(at) {
        Ok(i) if i.checked_add(size).is_some_and(|end| end <= len) => match i % align {
            0 => Ok(i),
            _ => Err(Wrong::Misaligned { buffer: name.into(), at, size: align }),
        },
        _ => Err(Wrong::OutOfBounds { buffer: name.into(), at, size, len }),
    }
}

/// Little-endian.
pub fn read(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// The kernel's buffers, taken out of its arguments; a scalar leaves an empty region.
pub fn take(p: &Program, args: &mut [Arg]) -> Result<Vec<Region>, Wrong> {
    let fits = |(param, arg): (&Param, &Arg)| matches!((param, arg), (Param::Buffer { .. }, Arg::Buffer(_)) | (Param::Scalar { .. }, Arg::Scalar(_)));
    if p.params.len() != args.len() || !p.params.iter().zip(args.iter()).all(fits) {
        let kinds = |names: Vec<&str>| format!("({})", names.join(", "));
        let want = kinds(p.params.iter().map(|x| if matches!(x, Param::Buffer { .. }) { "buffer" } else { "scalar" }).collect());
        let got = kinds(args.iter().map(|x| if matches!(x, Arg::Buffer(_)) { "buffer" } else { "scalar" }).collect());
        return Err(Wrong::Arguments { want, got });
    }
    Ok(p.params
        .iter()
        .zip(args)
        .map(|(param, arg)| match (param, arg) {
            (Param::Buffer { name, writable, .. }, Arg::Buffer(bytes)) => Region { name: name.clone(), bytes: std::mem::take(bytes), writable: *writable },
            _ => Region { name: String::new(), bytes: vec![], writable: false },
        })
        .collect())
}

/// Puts the buffers back into the arguments.
pub fn give_back(regions: Vec<Region>, args: &mut [Arg]) {
    for (region, arg) in regions.into_iter().zip(args) {
        if let Arg::Buffer(bytes) = arg {
            *bytes = region.bytes;
        }
    }
}

/// The size of a copy into a ring of `most` bytes a slot.
pub fn copied(ring: usize, most: usize, bytes: i64) -> Result<usize, Wrong> {
    let sound = usize::try_from(bytes).ok().filter(|n| (16..=most).contains(n) && n % 16 == 0);
    sound.ok_or(Wrong::CopySize { ring, bytes, most })
}
