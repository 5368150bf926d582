//! What a block of a store has in shared memory: 32 rows while they are turned and coded, and where their codes go.

use kernel_dsl::prelude::*;

#[device]
pub struct Desk {
    /// Coordinates, as [`super::rows`] has them.
    pub rows: Shared<u8>,
    /// Of quarters of rows: sums of squares, largest magnitudes, energies of decoded codes.
    pub squares: Shared<f32>,
    pub tops: Shared<f32>,
    pub energies: Shared<i32>,
    /// Of each row: the two side values that it is coded with, the two that are stored.
    pub sides: Shared<f32>,
    /// Tails of codes, which wait for those of other blocks.
    pub tails: Shared<u32>,
    /// Of each row: first byte of its tile, below 0 none, and its place there.
    pub tiles: Shared<i64>,
    pub places: Shared<u32>,
    /// What threads hold of rows that stay in registers.
    pub held: ByTurn<f32>,
}
