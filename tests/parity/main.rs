//! GPU against the scalar reference, bit for bit. Without a GPU each test prints SKIPPED and why.

#[path = "../support/mod.rs"]
mod support;

mod decode;
mod store;
