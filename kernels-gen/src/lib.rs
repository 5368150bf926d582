//! The codecs and kernels we ship, written in the DSL, and the scalar reference they equal bit for bit.

pub mod codec;
pub mod codecs;
pub mod kernels;
pub mod kivi;
pub mod latent;
pub mod layout;
pub mod pca;
pub mod preset;
pub mod reference;
pub mod registry;
