//! kvfuse: attend to a compressed KV cache without unpacking it to memory.
//!
//! This crate re-exports the parts, so that tests, benches and examples sit at the root:
//! [`kernel_dsl`] is the language, [`kernels_gen`] what is written in it, [`runtime`] what runs it.
pub use kernel_dsl;
pub use kernels_gen;
pub use runtime;
