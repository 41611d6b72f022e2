//! Latency of links: one way, without loss.

use std::time::Duration;

use serde::Deserialize;

use super::chance::{Chance, of_pair};
use super::text;

/// How long a message takes from one node to another.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Latency {
    /// Always the same.
    Constant {
        /// The time.
        #[serde(deserialize_with = "text::duration")]
        one_way: Duration,
    },
    /// Drawn once for each pair of nodes, and the same both ways.
    Uniform {
        /// The shortest.
        #[serde(deserialize_with = "text::duration")]
        low: Duration,
        /// The longest.
        #[serde(deserialize_with = "text::duration")]
        high: Duration,
        /// Each message takes up to this share longer, drawn for each.
        jitter: f64,
    },
    /// By the regions of the two nodes, normally distributed for each message.
    Regions {
        /// How likely a node is in each region.
        weights: Vec<f64>,
        /// Means, from the row's region to the column's.
        #[serde(deserialize_with = "text::matrix")]
        means: Vec<Vec<Duration>>,
        /// Standard deviation as a share of the mean.
        deviation: f64,
        /// No message is faster.
        #[serde(deserialize_with = "text::duration")]
        shortest: Duration,
    },
}

/// Why a latency cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LatencyError {
    /// The shortest is longer than the longest.
    #[error("the lowest latency is above the highest")]
    Reversed,
    /// A share that is negative or no number.
    #[error("jitter, deviation and weights must be numbers that are not negative")]
    Negative,
    /// The matrix does not fit the regions.
    #[error("the matrix needs a row and a column for each of the regions, and one region at least")]
    Matrix,
}

impl Latency {
    /// Whether this can be.
    ///
    /// # Errors
    ///
    /// What cannot be about it.
    pub fn check(&self) -> Result<(), LatencyError> {
        let share = |share: f64| {
            if share.is_finite() && share >= 0.0 { Ok(()) } else { Err(LatencyError::Negative) }
        };
        match self {
            Self::Constant { .. } => Ok(()),
            Self::Uniform { low, high, .. } if low > high => Err(LatencyError::Reversed),
            Self::Uniform { jitter, .. } => share(*jitter),
            Self::Regions { weights, means, deviation, .. } => {
                let n = weights.len();
                let square = means.len() == n && means.iter().all(|row| row.len() == n);
                if !square || weights.iter().sum::<f64>() <= 0.0 {
                    return Err(LatencyError::Matrix);
                }
                weights.iter().chain([deviation]).try_for_each(|number| share(*number))
            }
        }
    }
}

/// The links of one run.
pub(crate) struct Links<'a> {
    latency: &'a Latency,
    seed: u64,
    regions: Vec<usize>,
}

impl<'a> Links<'a> {
    pub(crate) fn new(latency: &'a Latency, nodes: u32, seed: u64) -> Self {
        let regions = match latency {
            Latency::Regions { weights, .. } => {
                (0..nodes).map(|node| region(weights, seed, node)).collect()
            }
            Latency::Constant { .. } | Latency::Uniform { .. } => Vec::new(),
        };
        Self { latency, seed, regions }
    }

    /// The time that one message takes. `chance` is the sender's.
    pub(crate) fn draw(&self, from: u32, to: u32, chance: &mut Chance) -> Duration {
        match self.latency {
            Latency::Constant { one_way } => *one_way,
            Latency::Uniform { low, high, jitter } => {
                let place = of_pair(self.seed, "link", from, to);
                let base = *low + (*high - *low).mul_f64(place);
                base.mul_f64(1.0 + jitter * chance.fraction())
            }
            Latency::Regions { means, deviation, shortest, .. } => {
                let mean = means[self.regions[from as usize]][self.regions[to as usize]];
                mean.mul_f64((1.0 + deviation * chance.normal()).max(0.0)).max(*shortest)
            }
        }
    }
}

fn region(weights: &[f64], seed: u64, node: u32) -> usize {
    let mut place =
        Chance::keyed(seed, "region", node.into()).fraction() * weights.iter().sum::<f64>();
    for (region, weight) in weights.iter().enumerate() {
        if place < *weight {
            return region;
        }
        place -= weight;
    }
    weights.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_pair_keeps_its_latency_and_jitter_only_adds() {
        let latency = Latency::Uniform { low: 10 * MS, high: 150 * MS, jitter: 0.1 };
        let links = Links::new(&latency, 2, 7);
        let mut chance = Chance::keyed(7, "jitter", 0);
        let draws: Vec<Duration> = (0..100).map(|_| links.draw(0, 1, &mut chance)).collect();
        let (low, high) = (*draws.iter().min().unwrap(), *draws.iter().max().unwrap());
        assert!(low >= 10 * MS && high <= 165 * MS && high <= low.mul_f64(1.1), "{low:?} {high:?}");
        assert!(high > low.mul_f64(1.05), "jitter is there: {low:?} {high:?}");
    }

    #[test]
    fn regions_have_their_means() {
        let means = vec![vec![30 * MS, 200 * MS], vec![200 * MS, 40 * MS]];
        let latency =
            Latency::Regions { weights: vec![0.5, 0.5], means, deviation: 0.3, shortest: 10 * MS };
        let links = Links::new(&latency, 200, 3);
        let there = links.regions.iter().filter(|region| **region == 1).count();
        assert!((70..130).contains(&there), "{there}");
        let from = links.regions.iter().position(|region| *region == 0).unwrap() as u32;
        let to = links.regions.iter().position(|region| *region == 1).unwrap() as u32;
        let mut chance = Chance::keyed(3, "normal", 0);
        let sum: Duration = (0..2000).map(|_| links.draw(from, to, &mut chance)).sum();
        let mean = sum / 2000;
        assert!((195..205).contains(&mean.as_millis()), "{mean:?}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let reversed = Latency::Uniform { low: 2 * MS, high: MS, jitter: 0.0 };
        assert_eq!(reversed.check(), Err(LatencyError::Reversed));
        let negative = Latency::Uniform { low: MS, high: MS, jitter: -0.1 };
        assert_eq!(negative.check(), Err(LatencyError::Negative));
        let lopsided = Latency::Regions {
            weights: vec![1.0, 1.0],
            means: vec![vec![MS, MS]],
            deviation: 0.1,
            shortest: MS,
        };
        assert_eq!(lopsided.check(), Err(LatencyError::Matrix));
    }
}
