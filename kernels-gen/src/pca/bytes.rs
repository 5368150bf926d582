//! Blocks as they are stored: bytes, little endian, nothing left out. What is counted is what these hold.
//!
//! A basis: scale f32, rank u16, mean and components. A block: its basis unless shared, number of centres u16, centres,
//! segments in `ceil(log2 k)` bits over the whole block, all t, all norms, levels row by row, and with a threshold the
//! number of outliers of every row u16, then index u16 and value of each. Numbers are f16, the skeleton f32 if `wide`.

use half::f16;

use super::basis::Basis;
use super::block::Block;
use super::centres::Centres;
use super::error::PcaError;
use super::pack::{pack, unpack};
use super::row::Coded;
use super::settings::Settings;

impl Basis {
    pub fn to_bytes(&self, settings: &Settings) -> Vec<u8> {
        let mut bytes = self.scale.to_le_bytes().to_vec();
        bytes.extend((self.rank() as u16).to_le_bytes());
        put(&mut bytes, settings, &self.mean);
        put(&mut bytes, settings, &self.rows);
        bytes
    }

    pub fn from_bytes(settings: &Settings, bytes: &[u8], d: usize) -> Result<Basis, PcaError> {
        let mut left = Reader(bytes);
        let basis = left.basis(settings, d)?;
        left.end(basis)
    }
}

impl Block {
    pub fn to_bytes(&self, settings: &Settings) -> Vec<u8> {
        let mut bytes = self.basis.as_ref().map_or_else(Vec::new, |basis| basis.to_bytes(settings));
        bytes.extend((self.centres.count() as u16).to_le_bytes());
        put(&mut bytes, settings, &self.centres.rows);
        let segments: Vec<u16> = self.rows.iter().map(|row| row.segment).collect();
        bytes.extend(pack(&segments, settings.segment_bits()));
        self.rows.iter().for_each(|row| bytes.extend(row.t16.to_le_bytes()));
        self.rows.iter().for_each(|row| bytes.extend(row.norm16.to_le_bytes()));
        self.rows.iter().for_each(|row| bytes.extend(&row.packed));
        if settings.outliers.is_some() {
            self.rows.iter().for_each(|row| bytes.extend((row.outliers.len() as u16).to_le_bytes()));
            let all = self.rows.iter().flat_map(|row| &row.outliers);
            all.for_each(|(j, value)| bytes.extend([j.to_le_bytes(), value.to_le_bytes()].concat()));
        }
        bytes
    }

    /// A block of a stream with the basis `shared`, or with one of its own.
    pub fn from_bytes(settings: &Settings, shared: Option<&Basis>, bytes: &[u8], d: usize) -> Result<Block, PcaError> {
        let n = settings.block;
        let mut left = Reader(bytes);
        let basis = if shared.is_none() { Some(left.basis(settings, d)?) } else { None };
        let rank = basis.as_ref().or(shared).map_or(0, Basis::rank);
        let k = usize::from(left.number()?);
        let centres = Centres { rows: left.numbers(settings, k * rank)?, rank };
        let packed = left.take((n * settings.segment_bits()).div_ceil(8))?;
        let segments = unpack(packed, settings.segment_bits(), n);
        if segments.iter().any(|s| usize::from(*s) >= k) {
            return Err(PcaError::Bytes { why: format!("a segment is not among the {k} centres") });
        }
        let mut column = |_| left.number();
        let t: Vec<u16> = (0..n).map(&mut column).collect::<Result<_, _>>()?;
        let norms: Vec<u16> = (0..n).map(&mut column).collect::<Result<_, _>>()?;
        let width = (rank.next_power_of_two() * settings.bits).div_ceil(8);
        let levels: Vec<&[u8]> = (0..n).map(|_| left.take(width)).collect::<Result<_, _>>()?;
        let counts: Vec<u16> = match settings.outliers {
            Some(_) => (0..n).map(|_| left.number()).collect::<Result<_, _>>()?,
            None => vec![0; n],
        };
        let mut rows = Vec::with_capacity(n);
        for at in 0..n {
            let pairs = (0..counts[at]).map(|_| Ok((left.number()?, left.number()?)));
            let outliers: Vec<(u16, u16)> = pairs.collect::<Result<_, PcaError>>()?;
            if outliers.iter().any(|(j, _)| usize::from(*j) >= rank.next_power_of_two()) {
                return Err(PcaError::Bytes { why: "an outlier is not among the coordinates".into() });
            }
            let (segment, t16, norm16) = (segments[at], t[at], norms[at]);
            rows.push(Coded { segment, t16, norm16, packed: levels[at].to_vec(), outliers });
        }
        left.end(Block { basis, centres, rows })
    }
}

fn put(bytes: &mut Vec<u8>, settings: &Settings, numbers: &[f32]) {
    for x in numbers {
        match settings.wide {
            true => bytes.extend(x.to_le_bytes()),
            false => bytes.extend(f16::from_f32(*x).to_le_bytes()),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], PcaError> {
        let (taken, left) = self.0.split_at_checked(n).ok_or_else(|| PcaError::Bytes { why: format!("{} bytes are left where {n} are needed", self.0.len()) })?;
        self.0 = left;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, PcaError> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    fn numbers(&mut self, settings: &Settings, n: usize) -> Result<Vec<f32>, PcaError> {
        Ok(match settings.wide {
            true => self.take(4 * n)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            false => self.take(2 * n)?.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        })
    }

    fn basis(&mut self, settings: &Settings, d: usize) -> Result<Basis, PcaError> {
        let scale = self.take(4)?;
        let scale = f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]]);
        let rank = usize::from(self.number()?);
        if rank == 0 || rank > d || !(scale.is_finite() && scale > 0.0) {
            return Err(PcaError::Bytes { why: format!("a basis of rank {rank} and scale {scale} for {d} coordinates") });
        }
        let (mean, rows) = (self.numbers(settings, d)?, self.numbers(settings, rank * d)?);
        Ok(Basis { scale, mean, rows, captured: f64::NAN })
    }

    fn end<T>(self, found: T) -> Result<T, PcaError> {
        match self.0.len() {
            0 => Ok(found),
            n => Err(PcaError::Bytes { why: format!("{n} bytes are left over") }),
        }
    }
}
