//! Messages between processes.

pub mod chunk;
pub mod explain;
pub mod permit;
pub mod swarm;
pub mod work;
