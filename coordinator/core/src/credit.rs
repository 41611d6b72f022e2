//! Credit: what work was worth, and who did it.
//!
//! A Cobblestone is 1/200 of a day of a machine that does 10^9 floating-point operations a
//! second (BOINC). Here a second of CPU time counts as a second of that machine, and 10^9 units
//! of WebAssembly fuel, which count instructions, as a second as well:
//!
//! ```text
//! claim = 200 / 86,400 × seconds,   seconds = fuel / 10^9 (wasm) or CPU time (docker)
//! ```
//!
//! Every node whose result turns out valid gets the same: the lowest claim of the quorum, and
//! never more than the limits of the job allow. Who exaggerates gains nothing while one of the
//! others does not. Fuel is the same on every machine, so there it is exact.
//!
//! Amounts are integers, in millionths: what nodes have and what jobs have cost are always
//! the same.

use dockercomp_protocol::execution::{ExecutorKind, Usage};

use crate::job::Job;
use crate::unit::Unit;

/// Fuel that counts as a millisecond.
const FUEL_PER_MS: u64 = 1_000_000;
/// A millisecond is 125/54 millionths of a Cobblestone: 200 * 10^6 / (86,400 * 10^3).
const MICROS: (u64, u64) = (125, 54);

/// What a result claims, in millionths of a Cobblestone.
pub(crate) fn claim(executor: ExecutorKind, usage: &Usage) -> u64 {
    let ms = match executor {
        ExecutorKind::Wasm => usage.fuel / FUEL_PER_MS,
        ExecutorKind::Docker => usage.cpu_ms,
    };
    of_ms(ms)
}

fn of_ms(ms: u64) -> u64 {
    ms.saturating_mul(MICROS.0) / MICROS.1
}

impl Job {
    /// What one replica can be worth at most: all the cores that it may use, until its
    /// deadline.
    fn claim_max(&self) -> u64 {
        let bound = self.terms.validation.delay_bound_ms;
        of_ms(bound.saturating_mul(self.terms.need.cpu_millis.into()) / 1000)
    }

    /// What each valid result of an accepted unit is worth: the lowest claim among them.
    pub(crate) fn grant(&self, unit: &Unit) -> u64 {
        let valid = unit.replicas.iter().filter(|replica| replica.state.is_valid());
        valid.map(|replica| replica.claim).min().unwrap_or(0).min(self.claim_max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_cpu_time_is_two_hundred_cobblestones() {
        let day = Usage { cpu_ms: 86_400_000, ..Usage::default() };
        assert_eq!(claim(ExecutorKind::Docker, &day), 200_000_000);
        let fuel = Usage { fuel: 86_400 * 1_000_000_000, ..Usage::default() };
        assert_eq!(claim(ExecutorKind::Wasm, &fuel), 200_000_000);
        // What it did not burn does not count, whatever the clock says.
        assert_eq!(claim(ExecutorKind::Wasm, &day), 0);
    }
}
