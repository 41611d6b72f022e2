//! Black-box tests of the network: real services with real sockets on loopback.
//!
//! One binary, so that libp2p is linked once. Ports are chosen by the system, conditions are
//! awaited with deadlines.

mod discovery;
mod gossip;
mod redial;
mod rpc;
mod streams;
mod support;
mod swarms;
