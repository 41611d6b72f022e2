//! The store through its public face: real directories, real RocksDB, real crashes.

mod add;
mod crash;
mod damage;
mod datasets;
mod fetch;
mod journal;
mod quota;
mod rot;
mod snapshots;
mod support;
