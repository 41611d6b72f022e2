//! Messages between processes.

pub mod chunk;
pub mod work;
