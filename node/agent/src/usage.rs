//! What a project has used of the machine, and how that is weighed against its share.
//!
//! BOINC divides a machine by *recent estimated credit*: an exponentially decayed amount of
//! work done for each project, which divided by the project's resource share decides whose
//! turn it is (`client/cpu_sched.cpp`, `client/rr_sim.cpp`; half-life in `lib/cc_config.cpp`,
//! ten days). Here the amount is time on the whole machine, so nothing has to be estimated:
//! a replica that takes a quarter of the machine for four seconds has used one second.
//!
//! A quarter of the machine is a quarter of whatever it takes most of, CPU or memory, since
//! that much is gone for others: the *dominant share* of Ghodsi et al., "Dominant Resource
//! Fairness", NSDI 2011.

use std::num::NonZeroU32;
use std::time::Duration;

use dockercomp_protocol::Timestamp;
use dockercomp_protocol::wire::work::Capacity;

/// After this long, use counts half. BOINC's ten days let a project that comes back take the
/// machine for days; one day is still long against most runs, which is what shares need to
/// hold.
pub const HALF_LIFE: Duration = Duration::from_secs(86_400);

/// A project that comes back with work after it had none gets the whole machine for this long
/// at most before the others have their shares again; and it waits for no longer if it had more
/// than its share before.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(3600);

/// What runs counts as used this far ahead, so that replicas that start at one moment are
/// divided by shares as well. It plays the part of BOINC's time slice.
pub const TURN: Duration = Duration::from_secs(600);

/// How much of the machine a project gets, in proportion to the shares of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(NonZeroU32);

impl Share {
    /// The largest.
    pub const MAX: u32 = 1_000_000;

    /// A share of 1 to [`Self::MAX`].
    #[must_use]
    pub const fn new(share: u32) -> Option<Self> {
        match NonZeroU32::new(share) {
            Some(share) if share.get() <= Self::MAX => Some(Self(share)),
            _ => None,
        }
    }

    /// As a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// BOINC's default as well.
impl Default for Share {
    fn default() -> Self {
        Self(NonZeroU32::new(100).expect("100 is not 0"))
    }
}

/// An amount of time on the whole machine, decayed with [`HALF_LIFE`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// What was really used.
    used: f64,
    /// What counts when turns are decided: what was used, less what is forgiven, see
    /// [`Self::level`].
    counted: f64,
    at: Timestamp,
}

impl Usage {
    /// What a node remembered when it was stopped, in milliseconds.
    #[must_use]
    pub fn remembered(used_ms: u64, counted_ms: u64, at: Timestamp) -> Self {
        let seconds = |ms| Duration::from_millis(ms).as_secs_f64();
        Self { used: seconds(used_ms), counted: seconds(counted_ms), at }
    }

    /// What a node must remember: what was used and what counts, in milliseconds, and when.
    #[must_use]
    pub fn to_remember(&self) -> (u64, u64, Timestamp) {
        // At least zero. What was used is at most the steady state of one whole machine, 35 hours;
        // what counts can be that times the ratio of two shares, and is still a whole number.
        let ms = |seconds: f64| (seconds * 1000.0).round() as u64;
        (ms(self.used), ms(self.counted), self.at)
    }

    /// Seconds on the whole machine, decayed.
    #[must_use]
    pub const fn seconds(&self) -> f64 {
        self.used
    }

    /// Time has passed in which `part` of the machine was used, from 0 to 1.
    pub(crate) fn advance(&mut self, now: Timestamp, part: f64) {
        let kept = (-now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        let steady = part * HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2;
        for amount in [&mut self.used, &mut self.counted] {
            *amount = steady + (*amount - steady) * kept;
        }
        self.at = now;
    }

    /// Where a project stands: whoever is lowest is next. `running` is the part of the machine
    /// that it has now.
    pub(crate) fn turn(&self, share: Share, running: f64) -> f64 {
        (self.counted + running * TURN.as_secs_f64()) / f64::from(share.get())
    }

    /// Forgives all that lies further than [`CATCH_UP_MAX`] from where the last of the others
    /// stands: so long at most does it keep that one waiting now, or wait itself behind it.
    pub(crate) fn level(&mut self, share: Share, others: &[(Share, Self)]) {
        let turns = others.iter().map(|(share, usage)| usage.turn(*share, 0.0));
        if let Some(last) = turns.reduce(f64::max) {
            let at_least = last * f64::from(share.get()) - CATCH_UP_MAX.as_secs_f64();
            self.counted = self.counted.max(at_least);
            self.forgive(share, last, others);
        }
    }

    /// Forgives what would let it wait for longer than [`CATCH_UP_MAX`] behind one that stands at
    /// `turn`, if the others used the whole machine meanwhile.
    pub(crate) fn forgive(&mut self, share: Share, turn: f64, others: &[(Share, Self)]) {
        let shares: f64 = others.iter().map(|(share, _)| f64::from(share.get())).sum();
        let at_most = (turn + CATCH_UP_MAX.as_secs_f64() / shares) * f64::from(share.get());
        self.counted = self.counted.min(at_most);
    }
}

/// The part of the machine that `need` takes: of CPU or of memory, whichever is more.
pub(crate) fn part(need: &Capacity, offer: &Capacity) -> f64 {
    let of = |need: f64, offer: f64| if offer > 0.0 { need / offer } else { 0.0 };
    let cpu = of(need.cpu_millis.into(), offer.cpu_millis.into());
    // Fifty-three bits of memory are enough for a fraction.
    let memory = of(need.memory_bytes as f64, offer.memory_bytes as f64);
    cpu.max(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = HALF_LIFE;

    #[test]
    fn use_counts_half_after_a_half_life() {
        let mut usage = Usage::default();
        usage.advance(Timestamp(0) + Duration::from_secs(100), 0.5);
        assert!((usage.seconds() - 50.0).abs() < 0.1, "{usage:?}");
        usage.advance(Timestamp(0) + Duration::from_secs(100) + DAY, 0.0);
        assert!((usage.seconds() - 25.0).abs() < 0.1, "{usage:?}");
    }

    /// However time is cut into pieces, the amount is the same.
    #[test]
    fn the_amount_does_not_depend_on_how_often_it_is_looked_at() {
        let (mut once, mut often) = (Usage::default(), Usage::default());
        once.advance(Timestamp(0) + DAY, 1.0);
        for hour in 1..=24 {
            often.advance(Timestamp(0) + Duration::from_secs(3600 * hour), 1.0);
        }
        assert!((once.seconds() - often.seconds()).abs() < 1e-6, "{once:?} {often:?}");
        // The whole machine for ever is 86,400 s / ln 2.
        assert!(once.seconds() < 124_650.0 / 2.0 + 1.0, "{once:?}");
    }

    #[test]
    fn a_clock_that_was_set_back_changes_nothing() {
        let mut usage = Usage::remembered(5_000, 4_000, Timestamp(9_000_000));
        usage.advance(Timestamp(1_000), 1.0);
        assert_eq!(usage.to_remember(), (5_000, 4_000, Timestamp(1_000)));
    }

    #[test]
    fn what_lies_too_far_from_others_is_forgiven() {
        let minutes = |n: u64| n * 60_000;
        let usage = |counted| Usage::remembered(0, counted, Timestamp(0));
        let share = |share| Share::new(share).expect("a share");
        // The first has used five hours for its share, the second ten for each of two.
        let others = [(share(1), usage(minutes(300))), (share(2), usage(minutes(1200)))];
        let level = |counted| {
            let mut usage = usage(counted);
            usage.level(share(6), &others);
            usage.to_remember().1
        };
        assert_eq!(level(0), minutes(3600 - 60));
        assert_eq!(level(minutes(3600)), minutes(3600));
        // In an hour the others use twenty minutes for each share, which six would have been.
        assert_eq!(level(minutes(9999)), minutes(3600 + 120));
        // Nobody else is there to be fair to.
        let mut alone = usage(minutes(9999));
        alone.level(share(6), &[]);
        assert_eq!(alone.to_remember().1, minutes(9999));
    }

    #[test]
    fn a_replica_uses_what_it_takes_most_of() {
        let offer = Capacity { cpu_millis: 4000, memory_bytes: 100, disk_bytes: 1 };
        let need = |cpu_millis, memory_bytes| Capacity { cpu_millis, memory_bytes, disk_bytes: 9 };
        assert!((part(&need(1000, 10), &offer) - 0.25).abs() < 1e-9);
        assert!((part(&need(1000, 90), &offer) - 0.9).abs() < 1e-9);
    }
}
