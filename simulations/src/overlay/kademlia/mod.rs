//! Kademlia: routing tables and lookups under churn, with servers that cannot be reached.
//!
//! A [`Scenario`] says who is there and for how long, and by which [`Options`] they route.
//! [`run`] lets the network run, reads all tables as a crawler does, lets a client look keys
//! up, and gives a [`Report`].
//!
//! # Shape
//!
//! ```text
//! oldest first: join ─► refresh ─► refresh ─► ..  depart, and somebody new joins
//!                            │ crawl: every reachable table ─► metrics of tables
//!                            ▼
//!                 client: lookups in time, with dial time-outs ─► metrics of lookups
//! ```
//!
//! Joins and refreshes take no time: they are short beside the minutes between them. The
//! client's lookups are timed answer by answer, in a network that stands still for them.
//!
//! # Metrics of tables
//!
//! | Name | What |
//! |---|---|
//! | `reachable`, `discovered` | nodes that were read; nodes that were read or were in a table |
//! | `entries_0_8`, `full_0_8` | mean entries of buckets 0 to 8, and the share of them that is full |
//! | `bucket_0` .. `bucket_15` | mean reachable entries |
//! | `unreachable_0`, `unreachable_9_up` | share of unreachable entries in bucket 0, and from 9 on |
//! | `knows_20`, `knows_under_18`, `knows_under_5` | share of nodes that know all, or so few, of the 20 closest reachable nodes |
//! | `closest_bucket`, `closest_bucket_min`, `twentieth_bucket` | where the closest and the 20th lie |
//!
//! # Metrics of lookups
//!
//! | Name | What |
//! |---|---|
//! | `hops_p50`, `hops_p90`, `hops_max` | the longest chain of peers that named each other, of those that answered; the first is from the client's own table |
//! | `hops_up_to_4`, `hops_up_to_6` | share of lookups |
//! | `seen_up_to_3`, `seen_up_to_4` | share in which the result's last peer was first named within so many hops |
//! | `holders_p05`, `holders_p50`, `holders_p90` | peers of the result that can be reached |
//! | `asked`, `failed` | mean peers that were asked, and of them that failed |
//! | `accuracy` | share of the closest reachable nodes that are in the result |
//! | `provide_p05_s` .. `provide_p90_s` | time until all of the result have a record or have failed |
//!
//! # What is not here
//!
//! Records and their expiry, several addresses of a node, dial limits,
//! lost messages, slow nodes, the reality that a crawler misses who is in no table.

mod client;
mod key;
mod lookup;
mod measure;
mod scenario;
mod table;
#[cfg(test)]
mod tests;
mod world;

pub use scenario::{Churn, Colocated, Lookups, Options, Rules, Scenario, ScenarioError};

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
