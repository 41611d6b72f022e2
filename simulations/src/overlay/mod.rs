//! Overlays: models of gossipsub and Kademlia, to ask what a network of many nodes does.
//!
//! rust-libp2p reads clocks and entropy of its own and cannot run in virtual time, so these are
//! models: pure state machines with the protocols' rules, in a world of latencies and faults.
//! What they leave out is written at the head of each. Published measurements and simulations
//! are reproduced with them (`simulations/scenarios/`), and real swarms of rust-libp2p check
//! them (`node/network/tests/it/swarms/`).
//!
//! | Module | What |
//! |---|---|
//! | [`gossip`] | gossipsub: a message's way to all nodes, and what it costs |
//! | [`kademlia`] | routing tables and lookups under churn, with peers that cannot be reached |
//! | [`report`] | what a run measured: named numbers, histograms, the hash of its trace |
//! | `model` | how scenario files reach the two |
//! | `latency`, `chance`, `digest`, `text` | links, keyed chance, trace hashes, units |

pub mod gossip;
pub mod kademlia;
pub mod report;
pub mod swarm;

mod chance;
mod digest;
mod latency;
pub(crate) mod model;
mod text;

pub use latency::Latency;
pub use report::{Histogram, Report};
