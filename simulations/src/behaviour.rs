//! What a host does with the work it is given.
//!
//! Adversaries are a property of the host, around the real agent: they alter what the agent's
//! shell computes and sends. The coordinator has no special case for them.

use dockercomp_protocol::Cid;
use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::execution::Exit;

use crate::jobs::UnitId;
use crate::random::Random;

/// How a host behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Computes what it is asked to.
    Honest,
    /// Gives a wrong output of its own for each unit.
    Saboteur,
    /// Gives a wrong output that all colluders agree on: the worst case.
    Colluder,
    /// Gives an empty output at once. All of these are equal, so the lazy collude without
    /// knowing each other.
    Lazy,
    /// A saboteur that also reports its output under the name of every other node that holds
    /// the same unit.
    Thief,
    /// Honest, but the program fails with this probability.
    Flaky {
        /// From 0 to 1.
        failure: f64,
    },
}

/// What came of running a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) exit: Exit,
    pub(crate) output: Option<Cid>,
}

impl Behaviour {
    /// Runs a unit.
    pub(crate) fn run(self, unit: UnitId, host: u32, random: &mut Random) -> Product {
        let output = match self {
            Self::Honest => honest_output(unit),
            Self::Saboteur | Self::Thief => own_output(unit, host),
            Self::Colluder => colluding_output(unit),
            Self::Lazy => empty_output(),
            Self::Flaky { failure } => {
                if random.chance(failure) {
                    let crashed = random.chance(0.5);
                    let exit = if crashed { Exit::Crashed } else { Exit::Code { code: 1 } };
                    return Product { exit, output: None };
                }
                honest_output(unit)
            }
        };
        Product { exit: Exit::Code { code: 0 }, output: Some(output) }
    }

    /// Whether the host takes the time that the work takes.
    pub(crate) const fn works(self) -> bool {
        !matches!(self, Self::Lazy)
    }

    /// Whether a host that behaves so would give this wrong output.
    pub(crate) fn supports(self, unit: UnitId, host: u32, output: Cid) -> bool {
        match self {
            Self::Honest | Self::Flaky { .. } => false,
            Self::Saboteur | Self::Thief => own_output(unit, host) == output,
            Self::Colluder => colluding_output(unit) == output,
            Self::Lazy => empty_output() == output,
        }
    }
}

/// The right output of a unit.
pub(crate) fn honest_output(unit: UnitId) -> Cid {
    output(b'h', unit, 0)
}

/// The wrong output of a unit that one host makes up.
pub(crate) fn own_output(unit: UnitId, host: u32) -> Cid {
    output(b's', unit, host)
}

fn colluding_output(unit: UnitId) -> Cid {
    output(b'c', unit, 0)
}

fn empty_output() -> Cid {
    block_cid(b"empty")
}

fn output(kind: u8, unit: UnitId, host: u32) -> Cid {
    let mut bytes = [0u8; 17];
    bytes[0] = kind;
    bytes[1..5].copy_from_slice(&unit.job.to_le_bytes());
    bytes[5..13].copy_from_slice(&unit.index.to_le_bytes());
    bytes[13..].copy_from_slice(&host.to_le_bytes());
    block_cid(&bytes)
}
