//! The exchange's decisions: which block to ask of whom, whom to serve, whom to believe.
//!
//! Pure: no clock, no socket, no disk. `dockercomp-exchange` is the shell that carries them out
//! between real peers, and the simulator carries them out between simulated ones.
//!
//! | Module | What it decides |
//! |---|---|
//! | [`scheduler`] | which block to ask of which peer, and when nobody can give one |
//! | [`members`] | which peers to ask what they hold, and how many strangers to believe in |
//! | [`slots`] | which peers a server sends large blocks to now |

pub mod members;
pub mod scheduler;
pub mod slots;
