//! Quantities as people write them: `"25ms"`, `"10 GFLOPS"`, and distributions of them.
//!
//! A plain text or number is a fixed value, `"30s..2m"` is even between the two, and a table
//! names a distribution: `{ weibull = { shape = 0.393, scale = "2.964h" } }`.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::random::{Distribution, Spread};

/// What a number without a unit would mean, and which units there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// In microseconds.
    Time,
    /// In megaflops a second.
    Speed,
    /// In megaflops.
    Work,
    /// A number of its own.
    Count,
}

/// Why a quantity is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuantityError {
    /// It does not begin with a number.
    #[error("{text:?} does not begin with a number")]
    NoNumber {
        /// What was written.
        text: String,
    },
    /// Its unit is missing or unknown.
    #[error("{text:?} needs a unit: one of {units}")]
    Unit {
        /// What was written.
        text: String,
        /// The units there are.
        units: String,
    },
    /// It is below zero.
    #[error("{text:?} is negative")]
    Negative {
        /// What was written.
        text: String,
    },
    /// A distribution that cannot be.
    #[error("impossible distribution: {reason}")]
    Impossible {
        /// Why.
        reason: String,
    },
}

impl Dimension {
    const fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Time => &[
                ("us", 1.0),
                ("ms", 1e3),
                ("s", 1e6),
                ("m", 60e6),
                ("min", 60e6),
                ("h", 3600e6),
                ("d", 86_400e6),
            ],
            Self::Speed => &[("MFLOPS", 1.0), ("GFLOPS", 1e3), ("TFLOPS", 1e6)],
            Self::Work => &[("MFLOP", 1.0), ("GFLOP", 1e3), ("TFLOP", 1e6)],
            Self::Count => &[("", 1.0)],
        }
    }

    pub(crate) fn parse(self, text: &str) -> Result<f64, QuantityError> {
        let trimmed = text.trim();
        let end = trimmed
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | '_')))
            .unwrap_or(trimmed.len());
        let (number, unit) = (trimmed[..end].replace('_', ""), trimmed[end..].trim());
        let Ok(number) = number.parse::<f64>() else {
            return Err(QuantityError::NoNumber { text: text.to_owned() });
        };
        if number < 0.0 {
            return Err(QuantityError::Negative { text: text.to_owned() });
        }
        let known = self.units().iter().find(|(name, _)| *name == unit);
        // Nothing is nothing in every unit.
        if known.is_none() && unit.is_empty() && number == 0.0 {
            return Ok(0.0);
        }
        let Some((_, factor)) = known else {
            let names: Vec<&str> = self.units().iter().map(|(name, _)| *name).collect();
            return Err(QuantityError::Unit { text: text.to_owned(), units: names.join(", ") });
        };
        Ok(number * factor)
    }
}

/// A length of time, such as `"25ms"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Time(pub(crate) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let micros = Dimension::Time.parse(&text).map_err(de::Error::custom)?;
        Ok(Self(Duration::from_micros(micros as u64)))
    }
}

/// A quantity or a distribution of quantities, as written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Written {
    Number(f64),
    Text(String),
    Table(Box<Table>),
}

/// A number, or a text with a unit.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "a number, or a text with a unit such as \"25ms\"")]
pub(crate) enum Amount {
    Number(f64),
    Text(String),
}

/// A named distribution. Exactly one key is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    uniform: Option<[Amount; 2]>,
    exponential: Option<Mean>,
    weibull: Option<Shaped>,
    gamma: Option<Shaped>,
    log_normal: Option<LogNormal>,
    hyper_exponential: Option<Mixture>,
    quantiles: Option<Vec<Amount>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mean {
    mean: Amount,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shaped {
    shape: f64,
    scale: Amount,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogNormal {
    /// Mean and standard deviation of the logarithm of the number of `unit`s.
    mu: f64,
    sigma: f64,
    unit: Amount,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mixture {
    weights: Vec<f64>,
    means: Vec<Amount>,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a quantity such as \"25ms\", a range such as \"1s..5s\", or a \
                    distribution such as { exponential = { mean = \"2h\" } }",
                )
            }

            fn visit_i64<E>(self, number: i64) -> Result<Written, E> {
                Ok(Written::Number(number as f64))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Written, E> {
                Ok(Written::Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Written, E> {
                Ok(Written::Number(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Written, E> {
                Ok(Written::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Written::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Amount {
    fn read(&self, dimension: Dimension) -> Result<f64, QuantityError> {
        match self {
            Self::Number(number) => dimension.parse(&number.to_string()),
            Self::Text(text) => dimension.parse(text),
        }
    }
}

impl Written {
    /// The distribution that is meant, in the base unit of the dimension.
    pub(crate) fn spread(&self, dimension: Dimension) -> Result<Spread, QuantityError> {
        match self {
            Self::Number(number) => Ok(Spread::Fixed(dimension.parse(&number.to_string())? as u64)),
            Self::Text(text) => match text.split_once("..") {
                Some((low, high)) => between(dimension.parse(low)?, dimension.parse(high)?),
                None => Ok(Spread::Fixed(dimension.parse(text)? as u64)),
            },
            Self::Table(table) => table.spread(dimension),
        }
    }
}

impl Table {
    fn spread(&self, dimension: Dimension) -> Result<Spread, QuantityError> {
        let named = [
            self.uniform.is_some(),
            self.exponential.is_some(),
            self.weibull.is_some(),
            self.gamma.is_some(),
            self.log_normal.is_some(),
            self.hyper_exponential.is_some(),
            self.quantiles.is_some(),
        ];
        if named.into_iter().filter(|is_there| *is_there).count() != 1 {
            return Err(impossible("name exactly one distribution"));
        }
        if let Some([low, high]) = &self.uniform {
            return between(low.read(dimension)?, high.read(dimension)?);
        }
        if let Some(values) = &self.quantiles {
            let values = values.iter().map(|value| value.read(dimension));
            let values = values.collect::<Result<Vec<f64>, _>>()?;
            if values.is_empty() || values.windows(2).any(|pair| pair[0] > pair[1]) {
                return Err(impossible("quantiles must be there, and must not fall"));
            }
            return Ok(Spread::Quantiles(values.into_iter().map(|value| value as u64).collect()));
        }
        self.distribution(dimension).map(Spread::Law)
    }

    fn distribution(&self, dimension: Dimension) -> Result<Distribution, QuantityError> {
        if let Some(Mean { mean }) = &self.exponential {
            let mean = positive("mean", mean.read(dimension)?)?;
            return Ok(Distribution::HyperExponential { weights: vec![1.0], means: vec![mean] });
        }
        if let Some(Shaped { shape, scale }) = &self.weibull {
            let scale = positive("scale", scale.read(dimension)?)?;
            return Ok(Distribution::Weibull { shape: positive("shape", *shape)?, scale });
        }
        if let Some(Shaped { shape, scale }) = &self.gamma {
            let scale = positive("scale", scale.read(dimension)?)?;
            return Ok(Distribution::Gamma { shape: positive("shape", *shape)?, scale });
        }
        if let Some(LogNormal { mu, sigma, unit }) = &self.log_normal {
            if *sigma < 0.0 || !mu.is_finite() {
                return Err(impossible("sigma must not be negative"));
            }
            let unit = positive("unit", unit.read(dimension)?)?;
            return Ok(Distribution::LogNormal { mu: *mu, sigma: *sigma, unit });
        }
        let Some(Mixture { weights, means }) = &self.hyper_exponential else {
            return Err(impossible("name exactly one distribution"));
        };
        let sum: f64 = weights.iter().sum();
        if weights.is_empty() || weights.len() != means.len() {
            return Err(impossible("as many weights as means are needed, and at least one"));
        }
        if weights.iter().any(|weight| *weight < 0.0) || (sum - 1.0).abs() > 1e-6 {
            return Err(impossible("weights must not be negative, and must add up to 1"));
        }
        let means = means.iter().map(|mean| positive("means", mean.read(dimension)?));
        let means = means.collect::<Result<_, _>>()?;
        Ok(Distribution::HyperExponential { weights: weights.clone(), means })
    }
}

fn between(low: f64, high: f64) -> Result<Spread, QuantityError> {
    if low > high {
        return Err(impossible("the range ends before it begins"));
    }
    Ok(Spread::Uniform(low as u64, high as u64))
}

fn positive(name: &str, value: f64) -> Result<f64, QuantityError> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(impossible(&format!("{name} must be greater than zero")))
    }
}

fn impossible(reason: &str) -> QuantityError {
    QuantityError::Impossible { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct One {
        x: Written,
    }

    fn time(toml: &str) -> Result<Spread, QuantityError> {
        toml::from_str::<One>(&format!("x = {toml}")).expect("TOML").x.spread(Dimension::Time)
    }

    #[test]
    fn quantities_are_read_in_their_units() {
        assert_eq!(time("\"25ms\""), Ok(Spread::Fixed(25_000)));
        assert_eq!(time("\"1.5h\""), Ok(Spread::Fixed(5_400_000_000)));
        assert_eq!(time("0"), Ok(Spread::Fixed(0)));
        assert_eq!(time("\"1s..2 s\""), Ok(Spread::Uniform(1_000_000, 2_000_000)));
        assert_eq!(Dimension::Speed.parse("10 GFLOPS"), Ok(10_000.0));
        assert_eq!(Dimension::Work.parse("7.56 TFLOP"), Ok(7_560_000.0));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        for (toml, reason) in [
            ("\"25\"", "\"25\" needs a unit: one of us, ms, s, m, min, h, d"),
            ("\"25 bananas\"", "\"25 bananas\" needs a unit: one of us, ms, s, m, min, h, d"),
            ("\"-1s\"", "\"-1s\" is negative"),
            ("\"5s..1s\"", "impossible distribution: the range ends before it begins"),
            (
                "{ weibull = { shape = 0.0, scale = \"1h\" } }",
                "impossible distribution: shape must be greater than zero",
            ),
            (
                "{ hyper_exponential = { weights = [0.5, 0.4], means = [\"1h\", \"2h\"] } }",
                "impossible distribution: weights must not be negative, and must add up to 1",
            ),
            (
                "{ quantiles = [\"2s\", \"1s\"] }",
                "impossible distribution: quantiles must be there, and must not fall",
            ),
            ("{}", "impossible distribution: name exactly one distribution"),
        ] {
            let error = time(toml).expect_err(toml);
            assert_eq!(error.to_string(), reason);
        }
    }
}
