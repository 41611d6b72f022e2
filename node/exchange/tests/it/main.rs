//! The exchange between real stores, over real sockets.

mod fetch;
mod kill;
mod leaving;
mod liars;
mod network;
mod plain;
mod poison;
mod rates;
mod serve;
mod sharing;
mod support;
mod swarm;
