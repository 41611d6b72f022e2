//! Means over seeds, and how far they can be trusted.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::Measure;

/// The share of intervals that hold the true value.
const CONFIDENCE: f64 = 0.95;

/// What a metric amounts to over all seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean over seeds; of shares, all hits over all trials.
    pub mean: f64,
    /// The lower end of the confidence interval; the mean if nothing can be said.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// The standard error of the mean over seeds; nothing with fewer than two.
    pub error: Option<f64>,
    /// How many trials all shares have together; nothing for plain numbers.
    pub trials: Option<u64>,
    /// How many seeds.
    pub seeds: usize,
}

/// Sums a metric up. Nothing if there are no values.
///
/// The interval is Student's over seeds. That of a share is at least Wilson's over all
/// trials, so that no hits at all do not pass for certainty.
#[must_use]
pub fn estimate(measures: &[Measure]) -> Option<Estimate> {
    let n = measures.len();
    if n == 0 {
        return None;
    }
    let values: Vec<f64> = measures.iter().map(|measure| measure.value()).collect();
    // From the first: the mean of equal values is that value, to the last bit.
    let first = values[0];
    let plain = first + values.iter().map(|value| value - first).sum::<f64>() / n as f64;
    let pooled = pool(measures);
    let mean = match pooled {
        Some((hits, of)) if of > 0 => hits as f64 / of as f64,
        _ => plain,
    };
    let error = (n >= 2).then(|| {
        let squares: f64 = values.iter().map(|value| (value - plain).powi(2)).sum();
        (squares / (n - 1) as f64 / n as f64).sqrt()
    });
    let half = error.map_or(0.0, |error| error * student(n - 1));
    let (mut low, mut high) = (mean - half, mean + half);
    if let Some((hits, of)) = pooled.filter(|(_, of)| *of > 0) {
        let (wilson_low, wilson_high) = wilson(hits, of);
        (low, high) = (low.max(0.0).min(wilson_low), high.min(1.0).max(wilson_high));
    }
    Some(Estimate { mean, low, high, error, trials: pooled.map(|(_, of)| of), seeds: n })
}

fn pool(measures: &[Measure]) -> Option<(u64, u64)> {
    measures.iter().try_fold((0, 0), |(all_hits, all), measure| match measure {
        Measure::Share { hits, of } => Some((all_hits + hits, all + of)),
        Measure::Number(_) => None,
    })
}

/// The quantile of Student's law that both tails leave out together.
pub(crate) fn student(freedom: usize) -> f64 {
    let law = StudentsT::new(0.0, 1.0, freedom as f64).expect("one degree of freedom or more");
    law.inverse_cdf(f64::midpoint(1.0, CONFIDENCE))
}

/// Wilson's interval of a share (1927).
pub(crate) fn wilson(hits: u64, of: u64) -> (f64, f64) {
    let z = Normal::standard().inverse_cdf(f64::midpoint(1.0, CONFIDENCE));
    let (n, share) = (of as f64, hits as f64 / of as f64);
    let scale = 1.0 + z * z / n;
    let centre = (share + z * z / (2.0 * n)) / scale;
    let half = z / scale * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let low = if hits == 0 { 0.0 } else { centre - half };
    let high = if hits == of { 1.0 } else { centre + half };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The t quantile of 9 degrees of freedom is 2.262.
    #[test]
    fn the_interval_of_ten_seeds_is_students() {
        let values: Vec<Measure> = (0..10).map(|i| Measure::Number(f64::from(i))).collect();
        let got = estimate(&values).expect("values");
        assert!((got.mean - 4.5).abs() < 1e-12);
        let error = got.error.expect("ten seeds");
        assert!((error - 0.957_427).abs() < 1e-6, "{error}");
        assert!((got.high - got.mean - 2.262_157 * error).abs() < 1e-5, "{got:?}");
    }

    /// Wilson's interval of 0 in 1000 ends at 0.003827.
    #[test]
    fn no_hits_are_not_certainty() {
        let shares = [Measure::Share { hits: 0, of: 500 }; 2];
        let got = estimate(&shares).expect("values");
        assert_eq!((got.mean, got.low, got.trials), (0.0, 0.0, Some(1000)));
        assert!((got.high - 0.003_827).abs() < 1e-6, "{got:?}");
    }

    #[test]
    fn equal_values_have_no_width() {
        let got = estimate(&[Measure::Number(51.2); 3]).expect("values");
        assert_eq!((got.mean, got.low, got.high, got.error), (51.2, 51.2, 51.2, Some(0.0)));
    }

    #[test]
    fn one_seed_has_no_error() {
        let got = estimate(&[Measure::Number(3.0)]).expect("a value");
        assert_eq!((got.mean, got.low, got.high, got.error), (3.0, 3.0, 3.0, None));
    }
}
