//! The real coordinator core and the real agent in a simulated world.
//!
//! One thread, virtual time, chance keyed by a seed: a run is a pure function of a
//! [`Scenario`] and a seed, and gives the same [`Outcome`] bit for bit. Weeks of volunteers'
//! time pass in seconds, and every promise of the system is checked at every step.
//!
//! # Shape
//!
//! ```text
//!                 ┌──────────────────── queue of events ────────────────────┐
//!                 ▼                                                         │
//!  host: agent (real) + shell (model) ◄──network──► coordinator: core (real) + shell (model)
//!        desk survives crashes                      journal survives crashes
//!                 └──────────────► books: safety checkers ◄──────────────┘
//! ```
//!
//! # Where to find what
//!
//! | Module | What |
//! |---|---|
//! | `file`, `study`, `cli` | scenario files; many runs and what they amount to; the commands |
//! | `scenario`, `fuzz` | what is simulated; small worlds drawn from a seed |
//! | `minimise` | the smallest world that still fails |
//! | `direct`, `availability` | lighter engines: the core alone, churn alone |
//! | `world`, `context`, `queue`, `moment` | the loop, what its parts share, time |
//! | `host`, `session`, `desk`, `behaviour` | a node: shell, session, disk, adversaries |
//! | `coordinator`, `journal` | the coordinator: shell, disk |
//! | `books`, `violation` | the checkers and what they find |
//! | `defect` | deliberate defects, to see that the checkers can fail |
//! | `overlay` | models of gossipsub and Kademlia, beside the world of volunteers |
//! | `weather` | what a seed has in store for hosts and units, for the model and the lab |
//! | `lab` | the same scenarios with real processes |
//! | `history` | a coordinator's past as a scenario |
//! | `random`, `trace`, `outcome` | keyed chance, the hash of a run, what came of it |
//! | `timeline` | a run's story for a viewer of traces |
//!
//! # What is modelled, and what is not
//!
//! Latency, loss, duplication, reordering, time-outs; crashes of hosts and of the coordinator
//! with what their disks keep; group commit; clocks that are wrong by a constant; speeds, run
//! times, failures, adversaries. Not modelled yet: chunks and bandwidth, signatures,
//! the volunteer's preferences; an announcement reaches every host or is lost, whatever
//! [`overlay::gossip`] says of its way.
//!
//! # Liveness
//!
//! Faults stop at some time; from then on every job must end, and every host be rid of it,
//! before patience does.

mod availability;
mod behaviour;
mod books;
pub mod cli;
mod context;
mod coordinator;
mod defect;
mod desk;
mod direct;
pub mod file;
mod fuzz;
mod grounds;
pub mod history;
mod host;
mod jobs;
mod journal;
pub mod lab;
mod message;
mod minimise;
mod model;
mod moment;
mod names;
mod outcome;
pub mod overlay;
mod queue;
mod random;
mod scenario;
mod session;
pub mod study;
#[cfg(test)]
mod tests;
mod timeline;
mod trace;
mod violation;
mod weather;
mod world;

pub use behaviour::{Answer, Behaviour, Deceit, Wakes};
pub use defect::Defect;
pub use outcome::{Counters, Judgement, Outcome};
pub use random::{Distribution, Spread};
pub use scenario::{
    Churn, CoordinatorPlan, Crowd, Cut, Day, DepartedOutputs, Engine, JobPlan, Network, RunPer,
    Scenario,
};
pub use violation::Violation;
pub use world::{run, run_recorded, run_told};
