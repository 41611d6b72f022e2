//! What a run measured.

use std::collections::BTreeMap;

use serde::Serialize;

/// Named numbers and histograms of one run, and the hash of its trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Numbers by name; the module that measures them documents the names and units.
    pub metrics: BTreeMap<String, f64>,
    /// Histograms by name.
    pub histograms: BTreeMap<String, Histogram>,
    /// The same scenario and seed give the same hash, bit for bit.
    pub trace_hash: String,
}

impl Report {
    /// The metric of this name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }
}

/// Counts in bins of one width, the first from 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Histogram {
    /// The width of a bin, in the unit that the histogram's name ends in.
    pub width: f64,
    /// Values in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    pub(crate) fn new(width: f64) -> Self {
        Self { width, counts: Vec::new() }
    }

    pub(crate) fn add(&mut self, value: f64) {
        // Not negative, and the simulated times and counts are far below 2^52.
        let bin = (value / self.width) as usize;
        if bin >= self.counts.len() {
            self.counts.resize(bin + 1, 0);
        }
        self.counts[bin] += 1;
    }

    /// The share of all values in a bin; 0 where there are none.
    #[must_use]
    pub fn share(&self, bin: usize) -> f64 {
        let all: u64 = self.counts.iter().sum();
        let here = self.counts.get(bin).copied().unwrap_or(0);
        if all == 0 { 0.0 } else { here as f64 / all as f64 }
    }
}

/// The value below which the given share of the values lies; 0 where there are none. Sorts them.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let place = (share * last as f64).round() as usize;
    values.get(place.min(last)).copied().unwrap_or(0.0)
}

/// The mean; 0 where there are no values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}
