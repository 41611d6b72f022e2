//! What an operator may choose about the core: bounds, mostly.
//!
//! A job's own rules (quorum, deadlines, limits on replicas) are its owner's and come with
//! the job; what is here holds for every job.

use std::time::Duration;

use dockercomp_protocol::limits::HEARTBEAT_REPLICAS_MAX;

/// The core's settings. The journal is replayed under the settings it was written under, or
/// the bounded lists may differ in length; nothing else depends on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Leases one node may hold at a time. At most [`HEARTBEAT_REPLICAS_MAX`], or a node
    /// could not name all of them in one heartbeat.
    pub leases_per_node_max: u32,
    /// Disagreements that are remembered; the oldest are forgotten first.
    pub disagreements_max: usize,
    /// Failed work units whose reasons are remembered for each job; the oldest are forgotten
    /// first.
    pub failures_per_job_max: usize,
    /// Nodes whose registration is remembered. Identities cost nothing, so beyond this a new
    /// one is served but not listed until it has had a lease.
    pub nodes_present_max: usize,
    /// Leases that one [`DeadlineReached`](crate::Event::DeadlineReached) ends at most, so
    /// that one step never writes an unbounded batch.
    pub expiries_per_step_max: usize,
    /// Results that policy `audited` holds at most, in all jobs; beyond it lots are closed
    /// early, at the price of more audits.
    pub held_max: usize,
    /// Undecided units up to which a job of policy `credibility` begins new ones before it
    /// tries others again, since every spot-check makes what waits more credible.
    pub undecided_max: usize,
    /// A node that was not heard of for this long is silent: at the end of a job others get its
    /// work as well. What it still reports counts.
    pub silent_after: Duration,
    /// No lease runs out for this long after a restart: nodes could not report while the
    /// coordinator was away, and their finished work is on its way.
    pub resume_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            leases_per_node_max: u32::try_from(HEARTBEAT_REPLICAS_MAX).unwrap_or(u32::MAX),
            disagreements_max: 1000,
            failures_per_job_max: 100,
            nodes_present_max: 100_000,
            expiries_per_step_max: 1024,
            held_max: 200_000,
            undecided_max: 10_000,
            silent_after: Duration::from_secs(600),
            resume_grace: Duration::from_secs(120),
        }
    }
}
