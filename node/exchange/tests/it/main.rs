//! The exchange between real stores, over real sockets.

mod fetch;
mod liars;
mod network;
mod serve;
mod sharing;
mod support;
