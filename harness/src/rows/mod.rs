//! The keys and values that a model makes of a text, for questions that need no second forward pass: how codecs
//! distort them, and how they are distributed.

mod capture;

pub use capture::{Capture, capture};
