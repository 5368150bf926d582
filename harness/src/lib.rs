//! Measures what a compressed KV cache costs a language model, and checks the codecs themselves.
//! The binary is a thin command line over these modules, so that tests can call them directly.

pub mod assets;
pub mod attention;
pub mod audit;
pub mod backend;
pub mod calibrate;
pub mod command;
pub mod compare;
pub mod corpus;
pub mod device;
pub mod doctor;
pub mod emit;
pub mod error;
pub mod hub;
pub mod model;
pub mod npy;
pub mod ppl;
pub mod report;
pub mod roundtrip;
pub mod rows;
pub mod run;
pub mod seeds;
pub mod stats;
pub mod sweep;
pub mod tune;
pub mod validate;
