//! What a seed has in store for hosts and units: model and lab draw it here, so that both meet
//! the same weather.
//!
//! What belongs to one run alone stays where it is used: latencies, losses, how long a disk
//! takes. What is here can be said of a host or a unit before anything has happened.

use std::time::Duration;

use crate::jobs::UnitId;
use crate::random::{Entity, Purpose, Random, Spread};
use crate::scenario::{Churn, Crowd};

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nature {
    pub(crate) cores: u64,
    /// In percent.
    pub(crate) speed: u32,
    /// Seeds its agent.
    pub(crate) agent: u64,
    /// How far its clock is ahead.
    pub(crate) clock_ahead: Duration,
    /// When it joins.
    pub(crate) joins: Duration,
}

impl Nature {
    pub(crate) fn of(seed: u64, host: u32, crowd: &Crowd) -> Self {
        let mut nature = Random::keyed(seed, Entity::Host(host), Purpose::Nature);
        Self {
            cores: crowd.cores.draw(&mut nature).clamp(1, 1024),
            speed: u32::try_from(crowd.speed.draw(&mut nature).max(1)).unwrap_or(u32::MAX),
            agent: nature.number(),
            clock_ahead: nature.duration(&crowd.clock_ahead),
            joins: nature.duration(&crowd.joins),
        }
    }
}

/// When a host goes away and comes back.
#[derive(Clone, Debug)]
pub(crate) struct Spells {
    churn: Churn,
    random: Random,
}

impl Spells {
    /// Those of a host; none if it never goes away.
    pub(crate) fn of(seed: u64, host: u32, crowd: &Crowd) -> Option<Self> {
        let random = Random::keyed(seed, Entity::Host(host), Purpose::Churn);
        crowd.churn.clone().map(|churn| Self { churn, random })
    }

    /// How long it stays, from when it was switched on.
    pub(crate) fn up(&mut self) -> Duration {
        self.random.duration(&self.churn.up)
    }

    /// How long it is away; nothing if it never returns.
    pub(crate) fn down(&mut self) -> Option<Duration> {
        let down = self.random.duration(&self.churn.down);
        (!self.random.chance(self.churn.departs)).then_some(down)
    }
}

/// How long a unit runs at a speed of 100 percent, if that belongs to the unit.
pub(crate) fn run_time(seed: u64, unit: UnitId, run: &Spread) -> Duration {
    let entity = Entity::Unit { job: unit.job, index: unit.index };
    Random::keyed(seed, entity, Purpose::Work).duration(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_takes_the_same_time_wherever_it_runs_and_others_take_another() {
        let run = Spread::times(Duration::from_secs(1), Duration::from_secs(100));
        let time = |seed, job, index| run_time(seed, UnitId { job, index }, &run);
        assert_eq!(time(1, 0, 5), time(1, 0, 5));
        let others = [time(2, 0, 5), time(1, 1, 5), time(1, 0, 6), time(1, 5, 0)];
        assert!(others.iter().all(|other| *other != time(1, 0, 5)), "{others:?}");
    }
}
