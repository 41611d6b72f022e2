//! What a host does with the work it is given.
//!
//! Adversaries are a property of the host, around the real agent: they alter what the agent's
//! shell computes and sends. The coordinator has no special case for them.
//!
//! Whether a host lies about a unit is fixed by the seed, the host and the unit, and by nothing
//! else, so that two policies run with one seed face the same lies.

use dockercomp_protocol::Cid;
use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::execution::Exit;

use crate::jobs::UnitId;
use crate::random::{Purpose, Random, fate};

/// How a host behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Computes what it is asked to.
    Honest,
    /// Gives wrong outputs.
    Deceiver(Deceit),
    /// Belongs to a ring that shares its results: the first of the ring that gets a unit
    /// computes it, the others give the same output at once.
    Copier {
        /// Probability that the one who computes is wrong, from 0 to 1.
        rate: f64,
    },
    /// Gives an empty output at once. All of these are equal, so the lazy collude without
    /// knowing each other.
    Lazy,
    /// Gives wrong outputs, and also reports its output under the name of every other node
    /// that holds the same unit.
    Thief,
    /// Honest, but the program fails with this probability.
    Flaky {
        /// From 0 to 1.
        failure: f64,
    },
}

/// When and how a host lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deceit {
    /// Probability that it lies about a unit, from 0 to 1.
    pub rate: f64,
    /// What its wrong outputs look like.
    pub answer: Answer,
    /// When it begins.
    pub wakes: Wakes,
    /// Probability that it recognises a spot-check, and then is honest; from 0 to 1.
    pub detects: f64,
    /// Whether all such hosts lie about the same units.
    pub together: bool,
}

/// What wrong outputs look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every host makes up its own.
    Own,
    /// All hosts give the same: the worst case.
    Shared,
}

/// When a host begins to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wakes {
    /// From the first unit on.
    AtOnce,
    /// When so many of its results were accepted.
    AfterAccepted(u64),
}

/// What a host knows of the world when it gives an output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sight {
    /// How many of its results were accepted.
    pub(crate) accepted: u64,
    /// Whether the unit was decided before it was leased: a spot-check.
    pub(crate) is_decided: bool,
    /// What a copier of the ring gave for the unit.
    pub(crate) copied: Option<Cid>,
}

/// What came of running a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) exit: Exit,
    pub(crate) output: Option<Cid>,
}

impl Behaviour {
    /// Always a wrong output of its own.
    pub const SABOTEUR: Self = Self::Deceiver(Deceit::always(Answer::Own));
    /// Always the wrong output that all colluders agree on.
    pub const COLLUDER: Self = Self::Deceiver(Deceit::always(Answer::Shared));

    /// Runs a unit.
    pub(crate) fn run(
        self,
        seed: u64,
        unit: UnitId,
        host: u32,
        random: &mut Random,
        sight: Sight,
    ) -> Product {
        let output = match self {
            Self::Honest => honest_output(unit),
            Self::Deceiver(deceit) if deceit.lies(seed, unit, host, sight) => match deceit.answer {
                Answer::Own => own_output(unit, host),
                Answer::Shared => colluding_output(unit),
            },
            Self::Deceiver(_) => honest_output(unit),
            Self::Copier { rate } => sight.copied.unwrap_or_else(|| {
                let is_wrong = fate(seed, host, Purpose::Deceit, (unit.job, unit.index)) < rate;
                if is_wrong { own_output(unit, host) } else { honest_output(unit) }
            }),
            Self::Thief => own_output(unit, host),
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
    pub(crate) const fn works(self, sight: &Sight) -> bool {
        match self {
            Self::Lazy => false,
            Self::Copier { .. } => sight.copied.is_none(),
            Self::Honest | Self::Deceiver(_) | Self::Thief | Self::Flaky { .. } => true,
        }
    }

    /// Whether it may give wrong outputs.
    pub(crate) const fn may_lie(self) -> bool {
        match self {
            Self::Honest | Self::Flaky { .. } => false,
            Self::Deceiver(_) | Self::Copier { .. } | Self::Lazy | Self::Thief => true,
        }
    }

    /// Whether it shares what it computes with its ring.
    pub(crate) const fn shares(self) -> bool {
        matches!(self, Self::Copier { .. })
    }

    /// Whether a host that behaves so would give this wrong output. `copied` is what
    /// the ring of copiers has for the unit.
    pub(crate) fn supports(
        self,
        unit: UnitId,
        host: u32,
        output: Cid,
        copied: Option<Cid>,
    ) -> bool {
        match self {
            Self::Honest | Self::Flaky { .. } => false,
            Self::Copier { .. } => copied == Some(output),
            Self::Thief => own_output(unit, host) == output,
            Self::Deceiver(deceit) => match deceit.answer {
                Answer::Own => own_output(unit, host) == output,
                Answer::Shared => colluding_output(unit) == output,
            },
            Self::Lazy => empty_output() == output,
        }
    }
}

impl Deceit {
    /// Lies about everything from the beginning.
    #[must_use]
    pub const fn always(answer: Answer) -> Self {
        Self { rate: 1.0, answer, wakes: Wakes::AtOnce, detects: 0.0, together: false }
    }

    fn lies(&self, seed: u64, unit: UnitId, host: u32, sight: Sight) -> bool {
        let is_awake = match self.wakes {
            Wakes::AtOnce => true,
            Wakes::AfterAccepted(n) => sight.accepted >= n,
        };
        let about = (unit.job, unit.index);
        let liar = if self.together { u32::MAX } else { host };
        let is_chosen = fate(seed, liar, Purpose::Deceit, about) < self.rate;
        let is_seen_through =
            sight.is_decided && fate(seed, host, Purpose::Detection, about) < self.detects;
        is_awake && is_chosen && !is_seen_through
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Entity;

    const UNIT: UnitId = UnitId { job: 0, index: 7 };

    fn lies(behaviour: Behaviour, unit: UnitId, host: u32, sight: Sight) -> bool {
        let mut random = Random::keyed(1, Entity::Host(host), Purpose::Work);
        let product = behaviour.run(1, unit, host, &mut random, sight);
        product.output != Some(honest_output(unit))
    }

    fn deceiver(change: impl FnOnce(&mut Deceit)) -> Behaviour {
        let mut deceit = Deceit::always(Answer::Shared);
        change(&mut deceit);
        Behaviour::Deceiver(deceit)
    }

    #[test]
    fn a_rate_is_kept_and_each_host_chooses_its_own_units() {
        let low = deceiver(|deceit| deceit.rate = 0.1);
        let units = (0..10_000).map(|index| UnitId { job: 0, index });
        let chosen = |host| -> Vec<bool> {
            units.clone().map(|unit| lies(low, unit, host, Sight::default())).collect()
        };
        let (first, second) = (chosen(1), chosen(2));
        let n = first.iter().filter(|lied| **lied).count();
        assert!((880..1120).contains(&n), "{n} of 10,000 at rate 0.1");
        assert_ne!(first, second);
        let both = first.iter().zip(&second).filter(|(one, two)| **one && **two).count();
        assert!((60..140).contains(&both), "{both} chosen by both");
    }

    #[test]
    fn those_who_lie_together_choose_the_same_units() {
        let together = deceiver(|deceit| (deceit.rate, deceit.together) = (0.5, true));
        for index in 0..100 {
            let unit = UnitId { job: 0, index };
            let one = lies(together, unit, 1, Sight::default());
            assert_eq!(one, lies(together, unit, 2, Sight::default()));
        }
    }

    #[test]
    fn a_sleeper_waits_for_its_acceptances() {
        let sleeper = deceiver(|deceit| deceit.wakes = Wakes::AfterAccepted(10));
        let sight = |accepted| Sight { accepted, ..Sight::default() };
        assert!(!lies(sleeper, UNIT, 1, sight(9)));
        assert!(lies(sleeper, UNIT, 1, sight(10)));
    }

    #[test]
    fn whoever_recognises_a_spot_check_is_honest_about_it() {
        let wary = deceiver(|deceit| deceit.detects = 1.0);
        let check = Sight { is_decided: true, ..Sight::default() };
        assert!(!lies(wary, UNIT, 1, check));
        assert!(lies(wary, UNIT, 1, Sight::default()));
    }

    #[test]
    fn a_copier_gives_what_its_ring_has() {
        let copier = Behaviour::Copier { rate: 1.0 };
        let ring = Sight { copied: Some(empty_output()), ..Sight::default() };
        let mut random = Random::keyed(1, Entity::Host(1), Purpose::Work);
        let product = copier.run(1, UNIT, 1, &mut random, ring);
        assert_eq!(product.output, Some(empty_output()));
        assert!(!copier.works(&ring) && copier.works(&Sight::default()));
    }
}
