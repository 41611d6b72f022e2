//! Chance, keyed: one stream for each node and purpose, so that what one node draws never moves
//! what another draws.
//!
//! Integer arithmetic and exactly rounded operations only: the same on every platform.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// One stream.
#[derive(Clone, Debug)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream of one entity for one purpose.
    pub(crate) fn keyed(seed: u64, purpose: &str, entity: u64) -> Self {
        Self(ChaCha8Rng::from_seed(key(seed, purpose, &[entity])))
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from 0 to `bound`, `bound` excluded; 0 where `bound` is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let scaled = (u128::from(self.number()) * bound as u128) >> 64;
        usize::try_from(scaled).expect("below a bound that is a usize")
    }

    /// A number from 0 to 1, 1 excluded.
    pub(crate) fn fraction(&mut self) -> f64 {
        to_fraction(self.number())
    }

    /// Moves `n` elements, drawn without replacement, to the front, in random order.
    pub(crate) fn draw<'a, T>(&mut self, of: &'a mut [T], n: usize) -> &'a mut [T] {
        let n = n.min(of.len());
        for place in 0..n {
            let other = place + self.below(of.len() - place);
            of.swap(place, other);
        }
        &mut of[..n]
    }

    /// Near enough to a standard normal deviate for latencies: twelve uniform ones, summed.
    /// It needs no logarithm, and never leaves ±6.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.fraction()).sum::<f64>() - 6.0
    }
}

/// A number that belongs to a pair, whichever way round, without a table of pairs.
pub(crate) fn of_pair(seed: u64, purpose: &str, one: u32, other: u32) -> f64 {
    let (low, high) = (one.min(other), one.max(other));
    let bytes = key(seed, purpose, &[low.into(), high.into()]);
    let first: [u8; 8] = bytes[..8].try_into().expect("eight of 32 bytes");
    to_fraction(u64::from_le_bytes(first))
}

fn key(seed: u64, purpose: &str, entities: &[u64]) -> [u8; 32] {
    let mut key = blake3::Hasher::new_derive_key("dockercomp simulations overlay 1");
    key.update(&seed.to_le_bytes());
    key.update(&(purpose.len() as u64).to_le_bytes());
    key.update(purpose.as_bytes());
    for entity in entities {
        key.update(&entity.to_le_bytes());
    }
    *key.finalize().as_bytes()
}

/// 53 bits, exactly representable.
fn to_fraction(number: u64) -> f64 {
    (number >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_keyed_by_seed_purpose_and_entity() {
        let first = |seed, purpose, entity| Chance::keyed(seed, purpose, entity).number();
        assert_eq!(first(1, "a", 2), first(1, "a", 2));
        let others = [first(2, "a", 2), first(1, "b", 2), first(1, "a", 3)];
        assert!(others.iter().all(|other| *other != first(1, "a", 2)));
    }

    #[test]
    fn a_pair_has_one_number_whichever_way_round() {
        assert_eq!(of_pair(1, "link", 3, 9), of_pair(1, "link", 9, 3));
        assert_ne!(of_pair(1, "link", 3, 9), of_pair(1, "link", 3, 8));
    }

    #[test]
    fn draws_are_without_replacement_and_even() {
        let mut chance = Chance::keyed(5, "draws", 0);
        let mut counts = [0u32; 10];
        for _ in 0..10_000 {
            let mut numbers: Vec<usize> = (0..10).collect();
            let drawn = chance.draw(&mut numbers, 3);
            assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2] && drawn[0] != drawn[2]);
            drawn.iter().for_each(|number| counts[*number] += 1);
        }
        // 3000 expected each, with a standard deviation of 46.
        assert!(counts.iter().all(|count| (2770..3230).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_normal_deviate_has_mean_0_and_variance_1() {
        let mut chance = Chance::keyed(6, "normal", 0);
        let draws: Vec<f64> = (0..20_000).map(|_| chance.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|draw| draw * draw).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
