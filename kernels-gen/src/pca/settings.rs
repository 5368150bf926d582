//! Every switch of the PCA codec in one place, and what excludes what.

use super::error::PcaError;
use super::table::Published;

/// Which rows make a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grouping {
    /// so many tokens of one kv head
    Head,
    /// all kv heads of so many tokens, token by token
    Pooled,
}

/// How principal components are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Svd {
    /// eigenvectors of the covariance
    Exact,
    /// a seeded sketch of the rows (Halko, Martinsson, Tropp, algorithm 4.4)
    Randomized,
}

/// The cost by which a level is chosen. All three choose the same level; the published decoder leaves out the norm under
/// `InnerProduct`, and so does ours under `compat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    Mse,
    InnerProduct,
    Linf,
}

/// The norm that is stored with a residual.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Norm {
    /// of the residual
    Plain,
    /// such that the decoded residual has the norm of the residual
    Corrected,
}

/// The levels of a coordinate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Table {
    /// of least squared error for a Gaussian of variance 1
    Gaussian,
    /// fitted by the original's authors
    Published(Published),
    /// fitted to the model, under these very settings
    Fitted,
}

/// How one side of a cache is coded.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// of a coordinate, 1 to 4
    pub bits: usize,
    /// rows that are fitted together
    pub block: usize,
    pub svd: Svd,
    /// components to keep at most; None: all of them with `Exact`, max(d / 2, 8) with `Randomized`
    pub rank: Option<usize>,
    /// share of the variance that the kept components explain, above 0 and up to 1
    pub ratio: f32,
    /// directions of the spherical k-means
    pub centres: usize,
    pub iterations: usize,
    /// of signs, first centre and sketch
    pub seed: u64,
    pub metric: Metric,
    pub norm: Norm,
    pub table: Table,
    /// coordinates beyond it, in standard deviations, are kept as index and f16 value
    pub outliers: Option<f32>,
    /// mean, basis and centres as f32 in the place of f16
    pub wide: bool,
    /// keys times the Cholesky factor of the queries' second moments
    pub precondition: bool,
    /// keys turned back to position 0 before they are coded
    pub before_rope: bool,
    /// RoPE's base where a page's keys are turned by their reader and nobody says how fast
    pub theta: f64,
    /// one basis for all blocks of a stream
    pub share_basis: bool,
    pub grouping: Grouping,
    /// layers that stay raw
    pub raw_layers: Vec<usize>,
    /// with the defects of the published implementation
    pub compat: bool,
}

/// Rows of a sketch beyond the rank, and its power iterations.
pub const OVERSAMPLE: usize = 8;
pub const POWER: usize = 2;

impl Default for Settings {
    /// Sound choices throughout, 3 bits.
    fn default() -> Settings {
        Settings {
            bits: 3,
            block: 512,
            svd: Svd::Exact,
            rank: None,
            ratio: 0.95,
            centres: 16,
            iterations: 32,
            seed: 0xCAFE_BABE,
            metric: Metric::Mse,
            norm: Norm::Plain,
            table: Table::Gaussian,
            outliers: None,
            wide: false,
            precondition: false,
            before_rope: true,
            theta: 1e4,
            share_basis: false,
            grouping: Grouping::Head,
            raw_layers: Vec::new(),
            compat: false,
        }
    }
}

impl Settings {
    /// Refuses what cannot be coded for rows of `d` coordinates.
    pub fn check(&self, d: usize) -> Result<(), PcaError> {
        let within = |what, is: usize, least: usize, most: usize| match (least..=most).contains(&is) {
            true => Ok(()),
            false => Err(PcaError::Setting { what, is: is.to_string(), wanted: format!("{least} to {most}") }),
        };
        within("head dim", d, 1, 4096)?;
        within("bits", self.bits, 1, 4)?;
        within("block", self.block, 2, 1 << 16)?;
        within("centres", self.centres, 1, self.block.min(256))?;
        within("k-means iterations", self.iterations, 1, 1000)?;
        if let Some(rank) = self.rank {
            within("rank", rank, 1, d)?;
        }
        if !(self.ratio > 0.0 && self.ratio <= 1.0) {
            let (is, wanted) = (self.ratio.to_string(), "a share above 0 and up to 1".into());
            return Err(PcaError::Setting { what: "variance ratio", is, wanted });
        }
        if let Some(t) = self.outliers.filter(|t| !(*t > 0.0 && t.is_finite())) {
            let (is, wanted) = (t.to_string(), "a positive number of standard deviations".into());
            return Err(PcaError::Setting { what: "outlier threshold", is, wanted });
        }
        if !(self.theta > 1.0 && self.theta.is_finite()) {
            let (is, wanted) = (self.theta.to_string(), "a number above 1".into());
            return Err(PcaError::Setting { what: "RoPE's base", is, wanted });
        }
        self.levels(None).map(|_| ())?;
        self.conflicts()
    }

    fn conflicts(&self) -> Result<(), PcaError> {
        let all = [
            (self.precondition && !self.before_rope, ("preconditioning", "keys after RoPE", "the queries' moments turn with the position")),
            (self.compat && self.norm == Norm::Corrected, ("compat", "norm correction", "the published implementation has none")),
        ];
        match all.into_iter().find(|c| c.0) {
            Some((_, (one, other, why))) => Err(PcaError::Conflict { one, other, why }),
            None => Ok(()),
        }
    }

    /// The levels, ascending; `fitted` where the table is fitted to a model and already known.
    pub fn levels(&self, fitted: Option<&[f32]>) -> Result<Vec<f32>, PcaError> {
        let levels = match (self.table, fitted) {
            (Table::Gaussian, _) => super::GAUSSIAN[self.bits.clamp(1, 4) - 1].to_vec(),
            (Table::Published(which), _) => which.levels(self.bits)?,
            (Table::Fitted, Some(levels)) => levels.to_vec(),
            (Table::Fitted, None) => return Ok(Vec::new()),
        };
        let rising = levels.windows(2).all(|pair| pair[0] < pair[1]);
        if levels.len() != 1 << self.bits || !rising {
            let (is, wanted) = (format!("{levels:?}"), format!("{} rising levels", 1 << self.bits));
            return Err(PcaError::Setting { what: "table", is, wanted });
        }
        Ok(levels)
    }

    /// Components to keep at most, of rows of `d` coordinates.
    pub fn most(&self, d: usize) -> usize {
        match self.svd {
            Svd::Exact => self.rank.unwrap_or(d),
            Svd::Randomized => self.rank.unwrap_or((d / 2).max(8)),
        }
        .min(d)
    }

    /// Bits of a segment's number.
    pub fn segment_bits(&self) -> usize {
        self.centres.next_power_of_two().trailing_zeros() as usize
    }
}
