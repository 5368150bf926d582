//! Reads and writes the few NumPy arrays the harness needs: little endian, C order, version 1 to 3 headers.

use std::path::Path;

use crate::error::{Error, Result};

/// Element types that are read; everything else is refused by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    U8,
    U16,
    I32,
    F32,
}

impl Kind {
    fn descr(self) -> &'static str {
        match self {
            Kind::U8 => "|u1",
            Kind::U16 => "<u2",
            Kind::I32 => "<i4",
            Kind::F32 => "<f4",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::U16 => 2,
            Kind::I32 | Kind::F32 => 4,
        }
    }
}

pub struct Array {
    pub kind: Kind,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Array {
    pub fn read(path: &Path) -> Result<Array> {
        let file = std::fs::read(path).map_err(Error::reading(path))?;
        parse(file).map_err(|why| Error::malformed(path, why))
    }

    pub fn to_f32(&self) -> Option<Vec<f32>> {
        (self.kind == Kind::F32).then(|| self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Token ids; integer kinds only. Negative ids become huge and fail the vocabulary check.
    pub fn to_ids(&self) -> Option<Vec<u32>> {
        match self.kind {
            Kind::U16 => Some(self.bytes.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect()),
            Kind::I32 => Some(self.bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()),
            Kind::U8 | Kind::F32 => None,
        }
    }
}

pub fn write_f32(path: &Path, shape: &[usize], values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    write(path, Kind::F32, shape, &bytes)
}

pub fn write_u8(path: &Path, shape: &[usize], bytes: &[u8]) -> Result<()> {
    write(path, Kind::U8, shape, bytes)
}

fn write(path: &Path, kind: Kind, shape: &[usize], bytes: &[u8]) -> Result<()> {
    let dims: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", kind.descr(), dims.trim_end());
    let padded = (header.len() + 11).next_multiple_of(64) - 11;
    header.extend(std::iter::repeat_n(' ', padded - header.len()));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    std::fs::write(path, file).map_err(Error::writing(path))
}

fn parse(file: Vec<u8>) -> std::result::Result<Array, String> {
    if !file.starts_with(b"\x93NUMPY") || file.len() < 12 {
        return Err("it does not start like a .npy file; save it with numpy.save".into());
    }
    let (start, length): (usize, usize) = match file[6] {
        1 => (10, usize::from(u16::from_le_bytes([file[8], file[9]]))),
        2 | 3 => (12, u32::from_le_bytes([file[8], file[9], file[10], file[11]]) as usize),
        other => return Err(format!("npy version {other} is unknown; save it with numpy.save")),
    };
    let Some(header) = file.get(start..start.saturating_add(length)).and_then(|h| std::str::from_utf8(h).ok()) else {
        return Err("the header is cut off; copy the file again".into());
    };
    let descr = field(header, "descr").map(|v| v.trim_matches(['\'', '"'])).unwrap_or_default();
    let Some(kind) = [Kind::U8, Kind::U16, Kind::I32, Kind::F32].into_iter().find(|k| k.descr() == descr) else {
        return Err(format!("dtype {descr:?} is not read; use uint8, uint16, int32 or float32, little endian"));
    };
    if field(header, "fortran_order") != Some("False") {
        return Err("the array is in fortran order; save numpy.ascontiguousarray of it".into());
    }
    let shape = shape_of(header).ok_or("the header has no readable shape; save it with numpy.save")?;
    let wanted = shape.iter().try_fold(kind.bytes(), |n, d| n.checked_mul(*d)).ok_or("its shape is too large")?;
    let bytes = file[start + length..].to_vec();
    if bytes.len() != wanted {
        return Err(format!("it holds {} bytes of data where shape {shape:?} needs {wanted}; copy the file again", bytes.len()));
    }
    Ok(Array { kind, shape, bytes })
}

/// The text of one scalar entry of the header dictionary.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let rest = &header[header.find(&format!("'{name}'"))? + name.len() + 2..];
    let rest = rest.trim_start().strip_prefix(':')?;
    Some(rest.split([',', '}']).next()?.trim())
}

fn shape_of(header: &str) -> Option<Vec<usize>> {
    let rest = &header[header.find("'shape'")?..];
    let inside = &rest[rest.find('(')? + 1..];
    inside[..inside.find(')')?].split(',').map(str::trim).filter(|d| !d.is_empty()).map(|d| d.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_a_round_trip() {
        let path = std::env::temp_dir().join(format!("kvfuse-npy-{}.npy", std::process::id()));
        write_f32(&path, &[2, 3], &[1.0, -2.0, 3.5, 0.0, f32::MAX, 1e-30]).unwrap();
        let array = Array::read(&path).unwrap();
        assert_eq!(array.shape, [2, 3]);
        assert_eq!(array.to_f32().unwrap(), [1.0, -2.0, 3.5, 0.0, f32::MAX, 1e-30]);
        assert!(array.to_ids().is_none());
        assert_eq!((std::fs::read(&path).unwrap().len() - 24) % 64, 0);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn bad_files_are_explained() {
        let why = |bytes: &[u8]| parse(bytes.to_vec()).err().unwrap();
        assert!(why(b"hello").contains("numpy.save"));
        assert!(why(b"\x93NUMPY\x01\x00\xff\xff{'descr'").contains("cut off"));
        let wrong = b"\x93NUMPY\x01\x00\x38\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }";
        assert!(why(&wrong[..]).contains("<f8") || why(&wrong[..]).contains("cut off"));
        let short = b"\x93NUMPY\x01\x00\x39\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9,), } ";
        assert!(why(&short[..]).contains("needs 36"), "{}", why(&short[..]));
    }
}
