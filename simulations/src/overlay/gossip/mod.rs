//! gossipsub: a message's way to all nodes of a topic, and what it costs.
//!
//! A [`Scenario`] says how many nodes there are, whom they dial, how far apart they are, by which
//! [`Options`] they route, and who publishes what. [`run`] gives a [`Report`].
//!
//! # Shape
//!
//! ```text
//!   publish ─► router ─data─► mesh peers ─► router ─► ..        (within each node: `router`)
//!                └─heartbeat: GRAFT, PRUNE, IHAVE ─► others ─IWANT─► back, if not seen
//! ```
//!
//! # Metrics
//!
//! | Name | What |
//! |---|---|
//! | `deliveries` | nodes that a message has reached, summed; publishers included |
//! | `copies`, `copies_per_delivery` | full messages sent |
//! | `iwant`, `ihave`, `graft`, `prune`, `connect` | control messages sent |
//! | `mesh_degree` | mean mesh peers of a node at the end |
//! | `latency_p50_s`, `latency_p99_s`, `latency_max_s` | from publication to delivery |
//! | `under_100_ms`, .. `under_400_ms` | share of deliveries in that 100 ms bin |
//! | `hops_mean`, `hops_max` | forwardings on the way of a first reception |
//! | `delivery_rate` | deliveries by messages and nodes |
//! | `delivery_rate_of_present` | the same, by the nodes that were there when it was published |
//! | `events` | events of the run |
//!
//! Histogram: `latency_s`, in bins of 100 ms, publishers excluded.
//!
//! # What is not here
//!
//! Peer scores and opportunistic grafting, IDONTWANT (libp2p sends it for messages over
//! 1000 bytes), several topics, bandwidth, loss, validation times.

mod cache;
mod measure;
mod message;
mod router;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

pub use scenario::{Churn, Options, Rules, Scenario, ScenarioError, Traffic, Version};

use super::Report;

/// Runs one scenario with one seed. The same two give the same report, bit for bit.
///
/// # Errors
///
/// What cannot be about the scenario.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, ScenarioError> {
    scenario.check()?;
    Ok(world::World::new(scenario, seed).run())
}
