//! What a seed has in store for hosts and units: model and lab draw it here, so that both meet
//! the same weather.
//!
//! What belongs to one run alone stays where it is used: latencies, losses, how long a disk
//! takes. What is here can be said of a host or a unit before anything has happened.

use std::collections::VecDeque;
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
            joins: match traced(host, crowd) {
                Some(spells) => spells.first().map_or(Duration::ZERO, |(came, _)| *came),
                None => nature.duration(&crowd.joins),
            },
        }
    }
}

/// When a host goes away and comes back.
#[derive(Clone, Debug)]
pub(crate) enum Spells {
    /// By the laws of its crowd.
    Drawn { churn: Churn, random: Random },
    /// As a trace says: what is left of it.
    Traced { spells: VecDeque<(Duration, Duration)>, left_at: Duration },
}

impl Spells {
    /// Those of a host; none if it never goes away.
    pub(crate) fn of(seed: u64, host: u32, crowd: &Crowd) -> Option<Self> {
        if let Some(spells) = traced(host, crowd) {
            return Some(Self::Traced {
                spells: spells.iter().copied().collect(),
                left_at: Duration::ZERO,
            });
        }
        let random = Random::keyed(seed, Entity::Host(host), Purpose::Churn);
        crowd.churn.clone().map(|churn| Self::Drawn { churn, random })
    }

    /// How long it stays that is switched on at this age of the world.
    pub(crate) fn up(&mut self, at: Duration) -> Duration {
        match self {
            Self::Drawn { churn, random } => {
                let up = random.duration(&churn.up);
                churn.day.map_or(up, |day| up.mul_f64(day.factor(at)))
            }
            Self::Traced { spells, left_at } => {
                let (came, left) = spells.pop_front().unwrap_or((at, at));
                *left_at = left;
                left.saturating_sub(came)
            }
        }
    }

    /// How long it is away that crashes at this age; nothing if it never returns.
    pub(crate) fn down(&mut self, at: Duration) -> Option<Duration> {
        match self {
            Self::Drawn { churn, random } => {
                let down = random.duration(&churn.down);
                let down = churn.day.map_or(down, |day| down.div_f64(day.factor(at)));
                (!random.chance(churn.departs)).then_some(down)
            }
            Self::Traced { spells, left_at } => {
                let (came, _) = spells.front()?;
                Some(came.saturating_sub(*left_at))
            }
        }
    }
}

/// What the trace of a crowd says of a host.
fn traced(host: u32, crowd: &Crowd) -> Option<&[(Duration, Duration)]> {
    let place = (host as usize).checked_rem(crowd.trace.len())?;
    crowd.trace.get(place).map(Vec::as_slice)
}

/// How long a unit runs at a speed of 100 percent, if that belongs to the unit.
pub(crate) fn run_time(seed: u64, unit: UnitId, run: &Spread) -> Duration {
    let entity = Entity::Unit { job: unit.job, index: unit.index };
    Random::keyed(seed, entity, Purpose::Work).duration(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Day;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Share of 2,000 hosts that are there at some hours of the third day.
    fn there(crowd: &Crowd, hours: [u32; 2]) -> [f64; 2] {
        let is_there = |host, at| {
            let mut spells = Spells::of(1, host, crowd).expect("churn");
            let mut now = Duration::ZERO;
            loop {
                now += spells.up(now);
                if now > at {
                    return true;
                }
                let Some(down) = spells.down(now) else { return false };
                now += down;
                if now > at {
                    return false;
                }
            }
        };
        hours.map(|hour| {
            let at = HOUR * (48 + hour);
            (0..2000).filter(|&host| is_there(host, at)).count() as f64 / 2000.0
        })
    }

    /// Up and down are equally long in the mean, so by day f of the time is there and 1/f away:
    /// f²/(1 + f²), which is 0.69 with f = 1.5 and 0.2 with f = 0.5, less what spells of half an
    /// hour blur.
    #[test]
    fn more_hosts_are_there_by_day_than_at_night() {
        let minutes = |low, high| Spread::times(HOUR * low / 60, HOUR * high / 60);
        let churn = |day| Churn { up: minutes(1, 59), down: minutes(1, 59), departs: 0.0, day };
        let mut crowd = Crowd::honest(2000);
        crowd.churn = Some(churn(None));
        let [day, night] = there(&crowd, [20, 8]);
        assert!((day - 0.5).abs() < 0.04 && (night - 0.5).abs() < 0.04, "{day} {night}");
        crowd.churn = Some(churn(Some(Day { swing: 0.5, peak: HOUR * 20 })));
        let [day, night] = there(&crowd, [20, 8]);
        assert!((day - 0.69).abs() < 0.05 && (night - 0.2).abs() < 0.05, "{day} {night}");
    }

    #[test]
    fn a_trace_is_followed_to_its_end() {
        let mut crowd = Crowd::honest(3);
        let spells = vec![(HOUR, HOUR * 3), (HOUR * 4, HOUR * 9)];
        crowd.trace = vec![spells, vec![(Duration::ZERO, HOUR)]];
        assert_eq!(
            [0, 1, 2].map(|host| Nature::of(1, host, &crowd).joins),
            [HOUR, Duration::ZERO, HOUR]
        );
        let mut spells = Spells::of(1, 2, &crowd).expect("a trace");
        assert_eq!((spells.up(HOUR), spells.down(HOUR * 3)), (HOUR * 2, Some(HOUR)));
        assert_eq!((spells.up(HOUR * 4), spells.down(HOUR * 9)), (HOUR * 5, None));
    }

    #[test]
    fn a_unit_takes_the_same_time_wherever_it_runs_and_others_take_another() {
        let run = Spread::times(Duration::from_secs(1), Duration::from_secs(100));
        let time = |seed, job, index| run_time(seed, UnitId { job, index }, &run);
        assert_eq!(time(1, 0, 5), time(1, 0, 5));
        let others = [time(2, 0, 5), time(1, 1, 5), time(1, 0, 6), time(1, 5, 0)];
        assert!(others.iter().all(|other| *other != time(1, 0, 5)), "{others:?}");
    }
}
