//! Availability alone: how much of the time hosts of a churn model are there.
//!
//! `kind = "availability"`: draws spells of being up and down and adds them up, to check that
//! a model has the means that its source states. A host of the other kinds draws its spells
//! from the same code.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Table;

use crate::file::compile::spread;
use crate::file::quantity::{Dimension, Written};
use crate::file::{FileError, read};
use crate::random::{Entity, Purpose, Random, Spread};
use crate::study::{Measure, Model, Run};

const MICROS_PER_HOUR: f64 = 3600e6;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    up: Written,
    down: Written,
    /// Spells of each kind.
    spells: u32,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Availability {
    up: Spread,
    down: Spread,
    spells: u32,
}

impl Availability {
    pub(crate) fn read(body: Table) -> Result<Self, FileError> {
        let section: Section = read(body)?;
        if section.spells == 0 {
            return Err(FileError::invalid("spells", "must be at least 1"));
        }
        let law = |key, written| spread("availability", key, written, Dimension::Time);
        Ok(Self {
            up: law("up", &section.up)?,
            down: law("down", &section.down)?,
            spells: section.spells,
        })
    }
}

/// Draws spells; gives their mean and median in hours.
fn draw(law: &Spread, spells: u32, random: &mut Random) -> (f64, f64) {
    let mut hours: Vec<f64> =
        (0..spells).map(|_| law.draw(random) as f64 / MICROS_PER_HOUR).collect();
    let mean = hours.iter().sum::<f64>() / f64::from(spells);
    let middle = hours.len() / 2;
    let (_, median, _) = hours.select_nth_unstable_by(middle, f64::total_cmp);
    (mean, *median)
}

impl Model for Availability {
    fn run(&self, seed: u64) -> Run {
        let stream = |purpose| Random::keyed(seed, Entity::Host(0), purpose);
        let (up, up_median) = draw(&self.up, self.spells, &mut stream(Purpose::Churn));
        let (down, down_median) = draw(&self.down, self.spells, &mut stream(Purpose::Work));
        let measures = [
            ("availability", up / (up + down)),
            ("up_hours_mean", up),
            ("up_hours_median", up_median),
            ("down_hours_mean", down),
            ("down_hours_median", down_median),
        ];
        let mut hasher = blake3::Hasher::new();
        for (_, value) in measures {
            hasher.update(&value.to_bits().to_le_bytes());
        }
        let named = measures.map(|(name, value)| (name.to_owned(), Measure::Number(value)));
        Run {
            trace_hash: hasher.finalize().to_hex().to_string(),
            measures: BTreeMap::from(named),
            problems: Vec::new(),
        }
    }

    fn explain(&self) -> Vec<(String, String)> {
        let (up, down) = (self.up.mean() / MICROS_PER_HOUR, self.down.mean() / MICROS_PER_HOUR);
        vec![
            ("up".into(), format!("{up:.2} h in the mean of the law")),
            ("down".into(), format!("{down:.2} h in the mean of the law")),
            ("availability".into(), format!("{:.1} % by these means", 100.0 * up / (up + down))),
            ("spells".into(), format!("{} of each", self.spells)),
        ]
    }
}
