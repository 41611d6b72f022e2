//! Laws with a logarithm in them, drawn portably.
//!
//! `libm` computes the same bits on every platform, which the standard library's functions do
//! not promise, so a seed stays a run.
//!
//! # Sources
//!
//! Weibull and exponential by inversion; normal by Box and Muller (1958); gamma by Marsaglia
//! and Tsang (2000), with their boost for shapes below 1.

use super::Random;

/// A probability law of positive numbers, in the base unit of what is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Weibull.
    Weibull {
        /// k, greater than 0.
        shape: f64,
        /// Lambda, greater than 0.
        scale: f64,
    },
    /// Gamma.
    Gamma {
        /// k, greater than 0.
        shape: f64,
        /// Theta, greater than 0.
        scale: f64,
    },
    /// Log-normal: `unit` times e to a normal number.
    LogNormal {
        /// Mean of the normal number.
        mu: f64,
        /// Its standard deviation.
        sigma: f64,
        /// What one is.
        unit: f64,
    },
    /// One of several exponential laws; with one, the exponential law.
    HyperExponential {
        /// Probabilities that add up to 1.
        weights: Vec<f64>,
        /// The mean of each law.
        means: Vec<f64>,
    },
}

impl Distribution {
    /// Draws a number.
    pub(crate) fn draw(&self, random: &mut Random) -> f64 {
        match self {
            Self::Weibull { shape, scale } => {
                scale * libm::pow(standard_exponential(random), 1.0 / shape)
            }
            Self::Gamma { shape, scale } => scale * standard_gamma(random, *shape),
            Self::LogNormal { mu, sigma, unit } => {
                unit * libm::exp(mu + sigma * standard_normal(random))
            }
            Self::HyperExponential { weights, means } => {
                let mut place = random.fraction();
                let mut chosen = means.last().copied().unwrap_or_default();
                for (weight, mean) in weights.iter().zip(means) {
                    if place < *weight {
                        chosen = *mean;
                        break;
                    }
                    place -= weight;
                }
                chosen * standard_exponential(random)
            }
        }
    }

    /// The law of `factor` times the number.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        match self {
            Self::Weibull { shape, scale } => Self::Weibull { shape, scale: scale * factor },
            Self::Gamma { shape, scale } => Self::Gamma { shape, scale: scale * factor },
            Self::LogNormal { mu, sigma, unit } => {
                Self::LogNormal { mu, sigma, unit: unit * factor }
            }
            Self::HyperExponential { weights, means } => {
                let means = means.into_iter().map(|mean| mean * factor).collect();
                Self::HyperExponential { weights, means }
            }
        }
    }

    /// The mean, in closed form.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Weibull { shape, scale } => scale * libm::tgamma(1.0 + 1.0 / shape),
            Self::Gamma { shape, scale } => shape * scale,
            Self::LogNormal { mu, sigma, unit } => unit * libm::exp(mu + sigma * sigma / 2.0),
            Self::HyperExponential { weights, means } => {
                weights.iter().zip(means).map(|(weight, mean)| weight * mean).sum()
            }
        }
    }
}

/// From 0, excluded, to infinity; mean 1.
fn standard_exponential(random: &mut Random) -> f64 {
    -libm::log(1.0 - random.fraction())
}

fn standard_normal(random: &mut Random) -> f64 {
    let radius = libm::sqrt(2.0 * standard_exponential(random));
    radius * libm::cos(std::f64::consts::TAU * random.fraction())
}

fn standard_gamma(random: &mut Random, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = libm::pow(1.0 - random.fraction(), 1.0 / shape);
        return boost * standard_gamma(random, shape + 1.0);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let x = standard_normal(random);
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let v = v * v * v;
        let u = 1.0 - random.fraction();
        if libm::log(u) < x * x / 2.0 + d - d * v + d * libm::log(v) {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Entity, Purpose};

    /// Means by the law of large numbers against the closed forms; the second moments bound
    /// the error of each.
    #[test]
    fn draws_have_the_mean_of_the_closed_form() {
        let laws = [
            Distribution::Weibull { shape: 0.393, scale: 2.964 },
            Distribution::Gamma { shape: 0.357, scale: 43.652 },
            Distribution::LogNormal { mu: -0.586, sigma: 1.0, unit: 2.0 },
            Distribution::HyperExponential { weights: vec![0.3, 0.7], means: vec![10.0, 1.0] },
        ];
        let means = [10.35, 15.58, 1.835, 3.7];
        for (law, known) in laws.iter().zip(means) {
            assert!((law.mean() / known - 1.0).abs() < 1e-3, "{law:?}: {}", law.mean());
            let mut random = Random::keyed(5, Entity::Author, Purpose::Nature);
            let n = 200_000;
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..n {
                let x = law.draw(&mut random);
                sum += x;
                squares += x * x;
            }
            let mean = sum / f64::from(n);
            let error = ((squares / f64::from(n) - mean * mean) / f64::from(n)).sqrt();
            assert!((mean - known).abs() < 4.0 * error, "{law:?}: {mean}, expected {known}");
        }
    }

    /// The median of a Weibull law is scale (ln 2)^(1/k): 1.17 h for the hosts of SETI@home.
    #[test]
    fn the_median_is_that_of_the_law() {
        let law = Distribution::Weibull { shape: 0.393, scale: 2.964 };
        let mut random = Random::keyed(6, Entity::Author, Purpose::Nature);
        let below = (0..100_000).filter(|_| law.draw(&mut random) < 1.1664).count();
        assert!((49_300..50_700).contains(&below), "{below} of 100,000 below the median");
    }
}
