//! Black-box tests of the executors, one binary for all.

mod archive;
mod common;
mod docker;
mod parts;
mod wasm;
