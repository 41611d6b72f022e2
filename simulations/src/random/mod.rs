//! Chance, keyed: every entity draws from streams of its own.
//!
//! A stream is `ChaCha8` under a key made of the seed, the entity and the purpose. What one
//! host draws never moves what another draws, so two runs that differ in one thing differ
//! only in what follows from it; one generator for all would couple everything to everything.
//!
//! # Portability
//!
//! Only integer arithmetic, the exactly rounded operations of IEEE 754 and `libm` are used, so
//! the same seed gives the same run on every platform.

mod law;

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub use law::Distribution;

/// Whose stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entity {
    /// Whoever writes the scenario.
    Author,
    /// The coordinator's machine.
    Coordinator,
    /// A host.
    Host(u32),
    /// A work unit.
    Unit { job: u32, index: u64 },
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// What it is: speed, clock, temper.
    Nature,
    /// Latency, loss, duplication.
    Network,
    /// How long work takes and how it ends.
    Work,
    /// When it goes away and comes back.
    Churn,
    /// Which units it lies about.
    Deceit,
    /// Which spot-checks it recognises.
    Detection,
    /// By which rules results count, and who belongs together.
    Rules,
    /// How long a machine takes for what is not work: starting, making programs ready.
    Machine,
}

/// A number from 0 to 1 that belongs to one host and one thing it decides: the same in every
/// run of a seed, whatever else happens, so that two policies face the same lies.
pub(crate) fn fate(seed: u64, host: u32, purpose: Purpose, about: (u32, u64)) -> f64 {
    let mut bytes = [0u8; 25];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&host.to_le_bytes());
    bytes[12] = purpose as u8;
    bytes[13..17].copy_from_slice(&about.0.to_le_bytes());
    bytes[17..].copy_from_slice(&about.1.to_le_bytes());
    let hash = blake3::hash(&bytes);
    let number = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (number >> 11) as f64 / (1u64 << 53) as f64
}

/// One stream. Until it is drawn from it is no more than its key: a generator holds 256 bytes
/// that it has made ahead, and most streams of an idle host are never drawn from.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    key: [u8; 32],
    generator: Option<Box<ChaCha8Rng>>,
}

impl Random {
    pub(crate) fn keyed(seed: u64, entity: Entity, purpose: Purpose) -> Self {
        let (kind, number, index) = match entity {
            Entity::Author => (0u8, 0, None),
            Entity::Coordinator => (1, 0, None),
            Entity::Host(number) => (2, number, None),
            Entity::Unit { job, index } => (3, job, Some(index)),
        };
        let mut key = blake3::Hasher::new_derive_key("dockercomp simulations random 1");
        key.update(&seed.to_le_bytes());
        key.update(&[kind, purpose as u8]);
        key.update(&number.to_le_bytes());
        if let Some(index) = index {
            key.update(&index.to_le_bytes());
        }
        Self { key: *key.finalize().as_bytes(), generator: None }
    }

    pub(crate) fn number(&mut self) -> u64 {
        let fresh = || Box::new(ChaCha8Rng::from_seed(self.key));
        self.generator.get_or_insert_with(fresh).next_u64()
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let width = u128::from(high.saturating_sub(low)) + 1;
        let scaled = (u128::from(self.number()) * width) >> 64;
        low + u64::try_from(scaled).expect("a 64-bit fraction of a width of at most 2^64")
    }

    /// The same as a `u32`.
    pub(crate) fn small(&mut self, low: u32, high: u32) -> u32 {
        let number = self.between(low.into(), high.into());
        u32::try_from(number).expect("between two numbers of 32 bits")
    }

    /// A number from 0 to 1, 1 excluded.
    pub(crate) fn fraction(&mut self) -> f64 {
        // 53 bits, exactly representable.
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability. Always draws, whatever the probability: a run with a
    /// fault and one without stay comparable.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    pub(crate) fn duration(&mut self, spread: &Spread) -> Duration {
        Duration::from_micros(spread.draw(self))
    }
}

/// A distribution of whole numbers. Times are in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Spread {
    /// Always the same.
    Fixed(u64),
    /// From the first to the second, both included, each as likely.
    Uniform(u64, u64),
    /// Values at equally spaced quantiles, the lowest first, straight lines between them: any
    /// shape, without a logarithm. An empty list is always 0.
    Quantiles(Vec<u64>),
    /// A law with a name, rounded down; at most [`u64::MAX`].
    Law(Distribution),
}

impl Spread {
    /// Always this time.
    #[must_use]
    pub const fn time(time: Duration) -> Self {
        Self::Fixed(micros(time))
    }

    /// Times from `low` to `high`.
    #[must_use]
    pub const fn times(low: Duration, high: Duration) -> Self {
        Self::Uniform(micros(low), micros(high))
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Uniform(low, high) => random.between(*low, *high),
            Self::Quantiles(values) => {
                let Some(steps) = values.len().checked_sub(1) else { return 0 };
                let place = random.fraction() * steps as f64;
                // In range: `place` is not negative and below `steps`.
                let step = (place as usize).min(steps.saturating_sub(1));
                let (low, high) = (values[step], values[(step + 1).min(steps)]);
                let rise = high.saturating_sub(low) as f64 * (place - step as f64);
                low + rise as u64
            }
            // Saturates.
            Self::Law(law) => law.draw(random) as u64,
        }
    }

    /// The mean.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(value) => *value as f64,
            Self::Uniform(low, high) => (*low as f64 + *high as f64) / 2.0,
            Self::Quantiles(values) if values.len() < 2 => {
                values.first().map_or(0.0, |value| *value as f64)
            }
            Self::Quantiles(values) => {
                let steps = values.windows(2).map(|pair| (pair[0] as f64 + pair[1] as f64) / 2.0);
                let n = (values.len() - 1) as f64;
                steps.sum::<f64>() / n
            }
            Self::Law(law) => law.mean(),
        }
    }
}

const fn micros(time: Duration) -> u64 {
    let micros = time.as_micros();
    if micros > u64::MAX as u128 { u64::MAX } else { micros as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(seed: u64, host: u32, purpose: Purpose) -> Vec<u64> {
        let mut random = Random::keyed(seed, Entity::Host(host), purpose);
        (0..4).map(|_| random.number()).collect()
    }

    #[test]
    fn streams_are_independent_and_repeatable() {
        assert_eq!(stream(7, 1, Purpose::Work), stream(7, 1, Purpose::Work));
        assert_ne!(stream(7, 1, Purpose::Work), stream(8, 1, Purpose::Work));
        assert_ne!(stream(7, 1, Purpose::Work), stream(7, 2, Purpose::Work));
        assert_ne!(stream(7, 1, Purpose::Work), stream(7, 1, Purpose::Churn));
    }

    /// The bytes of a stream are part of what a seed means: an update of a dependency that
    /// changed them would make every recorded seed another run.
    #[test]
    fn streams_are_golden() {
        let first = Random::keyed(1, Entity::Author, Purpose::Nature).number();
        assert_eq!(first, 12_637_175_749_407_449_320);
    }

    #[test]
    fn draws_have_the_stated_means_and_bounds() {
        let mut random = Random::keyed(3, Entity::Author, Purpose::Nature);
        let spread = Spread::Quantiles(vec![0, 100, 1000]);
        let draws: Vec<u64> = (0..20_000).map(|_| spread.draw(&mut random)).collect();
        assert!(draws.iter().all(|&draw| draw <= 1000));
        let below = draws.iter().filter(|&&draw| draw < 100).count();
        assert!((9_700..10_300).contains(&below), "{below} below the median");
        let mean = draws.iter().sum::<u64>() / 20_000;
        assert!((290..310).contains(&mean), "mean {mean}, expected 300");
        let hits = (0..20_000).filter(|_| random.chance(0.2)).count();
        assert!((3_800..4_200).contains(&hits), "{hits} of 20,000 at probability 0.2");
        assert_eq!(random.between(5, 5), 5);
        assert!((0..1000).all(|_| (3..=9).contains(&random.between(3, 9))));
    }
}
