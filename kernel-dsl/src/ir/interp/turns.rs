//! Which iteration of a parallel loop wrote each byte: finds iterations that meet.

use super::trap::{Clash, Wrong};
use std::ops::Range;

/// A parallel loop that runs. Iterations are numbered across the whole run, this loop's from `first` on.
#[derive(Clone, Copy)]
struct Turn {
    first: u32,
    now: u32,
}

/// The parallel loops around the present statement, and what was written in them.
pub struct Turns {
    stack: Vec<Turn>,
    iterations: u32,
    /// [region, depth, byte]: the iteration that wrote it last; empty until one does.
    writers: Vec<[Vec<u32>; 2]>,
}

impl Turns {
    pub fn new(regions: usize) -> Turns {
        Turns { stack: vec![], iterations: 0, writers: vec![Default::default(); regions] }
    }

    pub fn enter(&mut self) {
        let first = self.iterations + 1;
        self.stack.push(Turn { first, now: first });
    }

    /// The next iteration of the innermost loop starts.
    pub fn next(&mut self) {
        self.iterations += 1;
        if let Some(turn) = self.stack.last_mut() {
            turn.now = self.iterations;
        }
    }

    pub fn leave(&mut self) {
        self.stack.pop();
    }

    /// The innermost iteration; 0 outside of parallel loops.
    pub fn now(&self) -> u32 {
        self.stack.last().map_or(0, |t| t.now)
    }

    /// Fails if another iteration wrote one of the bytes in a loop that still runs.
    pub fn read(&self, region: usize, name: &str, bytes: Range<usize>) -> Result<(), Wrong> {
        self.meets(region, bytes).map_or(Ok(()), |at| race(name, at, Clash::ReadWrite))
    }

    /// As `read`, for bytes that `changed` says get a new value; then they are this iteration's.
    pub fn write(&mut self, region: usize, (name, len): (&str, usize), bytes: Range<usize>, changed: bool) -> Result<(), Wrong> {
        if changed && let Some(at) = self.meets(region, bytes.clone()) {
            return race(name, at, Clash::Writes);
        }
        for (turn, writers) in self.stack.iter().zip(&mut self.writers[region]) {
            if writers.len() < len {
                writers.resize(len, 0);
            }
            writers[bytes.clone()].fill(turn.now);
        }
        Ok(())
    }

    fn meets(&self, region: usize, bytes: Range<usize>) -> Option<usize> {
        let other = |turn: &Turn, writers: &Vec<u32>| bytes.clone().find(|i| writers.get(*i).is_some_and(|w| *w >= turn.first && *w != turn.now));
        self.stack.iter().zip(&self.writers[region]).find_map(|(turn, writers)| other(turn, writers))
    }
}

fn race<T>(name: &str, at: usize, clash: Clash) -> Result<T, Wrong> {
    Err(Wrong::Race { buffer: name.into(), at, clash })
}
