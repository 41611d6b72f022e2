//! Messages between processes.

pub mod chunk;
pub mod permit;
pub mod work;
