//! Swarms: how a dataset gets from the few that have it to the many that want it.
//!
//! The decisions are the real ones: every node runs the exchange's own scheduler, members and
//! upload slots (`dockercomp-exchange-core`). What is around them is modelled: connections,
//! messages with latency, and bodies that share lines ([`Sharing`]).
//!
//! # Shape
//!
//! ```text
//! getter ─JOIN, LIST─► giver ─ALL, MAP, HAVE, MEMBERS─► getter: Members ─► Scheduler
//!        ─WANT──────► giver: Slots ─► line ══ flow ══► getter: verified, stored ─► told to others
//! ```
//!
//! A node is both: it gives what it has while it gets the rest.
//!
//! # Metrics
//!
//! A getter is a node that comes without the dataset. For each group of them: `NAME.p50_s`,
//! `NAME.p90_s`, `NAME.max_s`, from coming to having everything, of those that got there;
//! `NAME.completed`, their share; and for every group `NAME.sent_copies`.
//!
//! | Name | What |
//! |---|---|
//! | `completed` | share of all getters that got everything |
//! | `last_s` | when the last of them did, from the beginning |
//! | `bound_s`, `over_bound` | the least time in which it can be done, and `last_s` by it |
//! | `seeder_copies` | bytes that honest holders sent, by the bytes of the dataset |
//! | `received_copies` | bytes that a getter received, on average, by the bytes of the dataset |
//! | `largest_sent_copies` | the same of what it sent, for the getter that sent most |
//! | `wrong_blocks` | blocks with wrong bytes that a getter received, on average |
//! | `liars_named` | peers that a getter named as liars, on average |
//! | `honest_blamed` | how often an honest node was named |
//! | `busy_per_block` | requests that were answered "busy", by blocks that were stored |
//! | `events` | events of the run |
//!
//! The bound holds where nobody is late, leaves or lies: with `F` bytes, seeders that send `u_s`
//! together, `N` getters that send `u_i` and receive `d_i`, no scheme is quicker than
//! `max(F / u_s, F / min d_i, N F / (u_s + sum u_i))` (Kumar and Ross, Peer-assisted file
//! distribution: the minimum distribution time, HotWeb 2006).
//!
//! # What is not here
//!
//! TCP's slow start and losses, encryption and what it costs, the plain plane, small files,
//! datasets that share chunks, stores that lose blocks, monthly volumes, nodes that return,
//! relays. A connection takes four round trips to open; a manifest is one block.

mod catalogue;
mod flows;
mod getter;
mod giver;
mod measure;
mod message;
mod node;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

pub use flows::Sharing;
pub use scenario::{Behaviour, Dataset, Exchange, Group, Network, Reach, Scenario, ScenarioError};

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
