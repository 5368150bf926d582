//! One row under the skeleton of its block: which centre, how far along it, and the rest, rotated and rounded to levels.

use half::f16;

use super::basis::{EPS, dot};
use super::block::Skeleton;
use super::mix::hadamard;
use super::pack::{pack, unpack};
use super::settings::{Metric, Norm, Settings};
use super::table::nearest;

/// What is stored of a row. Numbers named 16 are f16 bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coded {
    pub segment: u16,
    /// length along the segment's centre
    pub t16: u16,
    /// of the residual; 0 for none
    pub norm16: u16,
    /// levels of all coordinates, padding included
    pub packed: Vec<u8>,
    /// coordinate and value of those beyond the threshold
    pub outliers: Vec<(u16, u16)>,
}

/// What encoder and decoder of a row need beside its skeleton.
pub struct Rules<'a> {
    pub settings: &'a Settings,
    pub levels: &'a [f32],
    /// as many as the largest residual has coordinates
    pub signs: &'a [f32],
}

impl Rules<'_> {
    pub fn encode(&self, skeleton: Skeleton, x: &[f32]) -> Coded {
        let (compat, rank) = (self.settings.compat, skeleton.centres.rank);
        let c = skeleton.basis.project(x);
        let least = if compat { EPS } else { f32::MIN_POSITIVE };
        let (segment, t) = if dot(&c, &c) <= least { (0, 0.0) } else { skeleton.centres.closest(&c) };
        let t16 = self.half(t);
        // the published encoder subtracts more precisely than its decoder adds
        let along = if compat { t } else { f16::from_bits(t16).to_f32() };
        let mut v = vec![0.0; rank.next_power_of_two()];
        if c.iter().any(|c| c.abs() > least) {
            let pairs = c.iter().zip(skeleton.centres.row(segment));
            v.iter_mut().zip(pairs).for_each(|(v, (c, centre))| *v = c - along * centre);
        }
        let norm = dot(&v, &v).sqrt();
        self.rotate(&mut v);
        let inverse = if norm > least { 1.0 / norm } else { 1.0 };
        v.iter_mut().for_each(|v| *v *= inverse);
        let beyond = |(_, v): &(usize, &f32)| self.settings.outliers.is_some_and(|t| v.abs() > t);
        let outliers: Vec<_> = v.iter().enumerate().filter(beyond).map(|(j, v)| (j as u16, self.half(*v))).collect();
        let numbers: Vec<u16> = v.iter().map(|v| nearest(self.levels, *v)).collect();
        let stored = match (compat, self.settings.metric, self.settings.norm) {
            (true, Metric::InnerProduct, _) => dot(x, x).sqrt(),
            (true, ..) => 1.0 / inverse.max(EPS),
            (false, ..) if norm <= least => 0.0,
            (false, _, Norm::Plain) => norm,
            (false, _, Norm::Corrected) => {
                let decoded = self.values(&numbers, &outliers);
                norm * (v.len() as f32 / dot(&decoded, &decoded)).sqrt()
            }
        };
        let packed = pack(&numbers, self.settings.bits);
        Coded { segment: segment as u16, t16, norm16: self.half(stored), packed, outliers }
    }

    /// The row that is stored.
    pub fn decode(&self, skeleton: Skeleton, coded: &Coded) -> Vec<f32> {
        let n = skeleton.centres.rank.next_power_of_two();
        let mut v = self.values(&unpack(&coded.packed, self.settings.bits, n), &coded.outliers);
        // the published decoder forgets the norm here
        let forgets = self.settings.compat && self.settings.metric == Metric::InnerProduct;
        let norm = if forgets { 1.0 } else { f16::from_bits(coded.norm16).to_f32() };
        v.iter_mut().for_each(|v| *v *= norm);
        hadamard(&mut v);
        let share = 1.0 / n as f32;
        let t = f16::from_bits(coded.t16).to_f32();
        let centre = skeleton.centres.row(usize::from(coded.segment));
        let c: Vec<f32> = v.iter().zip(self.signs).zip(centre).map(|((v, s), b)| t * b + v * s * share).collect();
        skeleton.basis.unproject(&c)
    }

    /// Signs, then the butterfly: the length grows by the root of the number of coordinates.
    fn rotate(&self, v: &mut [f32]) {
        v.iter_mut().zip(self.signs).for_each(|(v, s)| *v *= s);
        hadamard(v);
    }

    /// The coordinates of a residual of norm 1 under the rotation; public to those who fit levels to them.
    pub fn rotated(&self, skeleton: Skeleton, x: &[f32]) -> Vec<f32> {
        let c = skeleton.basis.project(x);
        let (segment, t) = skeleton.centres.closest(&c);
        let t = f16::from_bits(self.half(t)).to_f32();
        let mut v = vec![0.0; c.len().next_power_of_two()];
        let pairs = c.iter().zip(skeleton.centres.row(segment));
        v.iter_mut().zip(pairs).for_each(|(v, (c, centre))| *v = c - t * centre);
        let norm = dot(&v, &v).sqrt();
        self.rotate(&mut v);
        v.iter_mut().for_each(|v| *v /= norm.max(f32::MIN_POSITIVE));
        v
    }

    fn values(&self, numbers: &[u16], outliers: &[(u16, u16)]) -> Vec<f32> {
        let mut v: Vec<f32> = numbers.iter().map(|number| self.levels[usize::from(*number)]).collect();
        outliers.iter().for_each(|(j, value)| v[usize::from(*j)] = f16::from_bits(*value).to_f32());
        v
    }

    /// f16 bits; ours saturate, the published ones become infinite.
    fn half(&self, x: f32) -> u16 {
        let x = if self.settings.compat { x } else { x.clamp(-65504.0, 65504.0) };
        f16::from_f32(x).to_bits()
    }
}
