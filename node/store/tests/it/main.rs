//! The store through its public face: real directories, real RocksDB, real crashes.

mod add;
mod car;
mod collect;
mod crash;
mod damage;
mod datasets;
mod fetch;
mod journal;
mod origins;
mod quota;
mod rot;
mod share;
mod snapshots;
mod support;
