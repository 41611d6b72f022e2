//! Model and lab side by side: the same scenario, the same figures, and whether they agree.
//!
//! The model runs many seeds and the lab a few, its seeds the first of the model's. For each
//! figure there are two intervals in which the true difference of the means lies with 95 %
//! confidence:
//!
//! - over all seeds, where what the weather makes of a run is part of the spread;
//! - of pairs, of runs with the same seed and so the same weather, which is the sharper one.
//!
//! Model and lab agree if both hold 0. How wide they are says what could have been seen: a
//! difference smaller than half of it could not.
//!
//! # A few runs, honestly
//!
//! - Numbers: Welch's interval, with as few degrees of freedom as the lab's runs leave. Equal
//!   values of three runs do not show that there is no spread, so the lab's variance counts for
//!   no less than the model's. A single run has the model's.
//! - Pairs: Student's. Those that all differ by the same say nothing of their spread, and do
//!   not count.
//! - Shares: the wider of that and Newcombe's interval (1998, method 10) over all trials, so
//!   that no hits at all do not pass for certainty.

use serde::Serialize;

use crate::study::statistics::{student, wilson};
use crate::study::table::{align, number};
use crate::study::{Measure, Run, estimate};

/// The figures that are compared, and what people call them.
const COMPARED: [(&str, &str); 9] = [
    ("completed", "units completed"),
    ("replicas_per_unit", "replicas per unit"),
    ("accepted_error_rate", "wrong results accepted"),
    ("caught", "saboteurs caught"),
    ("blamed", "honest hosts blamed"),
    ("makespan_seconds", "makespan, s"),
    ("no_reply", "replicas without reply"),
    ("errors", "replicas that failed"),
    ("host_crashes", "crashes of hosts"),
];

/// A figure of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Compared {
    pub(crate) metric: String,
    pub(crate) what: &'static str,
    pub(crate) model: Summary,
    pub(crate) lab: Summary,
    /// The lab's mean less the model's.
    pub(crate) difference: f64,
    /// The 95 % interval of the true difference.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// The same of pairs with the same weather.
    pub(crate) pairs: Option<Summary>,
    pub(crate) agrees: bool,
}

/// A figure of one side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) mean: f64,
    /// The 95 % interval of the mean.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) runs: usize,
}

/// Compares every figure that both have.
pub(crate) fn compare(model: &[Run], lab: &[Run]) -> Vec<Compared> {
    let values = |runs: &[Run], metric: &str| -> Vec<Measure> {
        runs.iter().filter_map(|run| run.measures.get(metric).copied()).collect()
    };
    let both = COMPARED.iter().filter_map(|(metric, what)| {
        let (model, lab) = (values(model, metric), values(lab, metric));
        let (low, high) = interval(&model, &lab)?;
        let pairs = pairs(&model, &lab);
        let (model, lab) = (summary(&model)?, summary(&lab)?);
        let difference = lab.mean - model.mean;
        let holds_0 = |low: f64, high: f64| low <= 0.0 && 0.0 <= high;
        let says_something = |pairs: &&Summary| pairs.low < pairs.high;
        let sharper = pairs.as_ref().filter(says_something);
        let agrees = holds_0(low, high) && sharper.is_none_or(|it| holds_0(it.low, it.high));
        let metric = (*metric).to_owned();
        Some(Compared { metric, what, model, lab, difference, low, high, pairs, agrees })
    });
    both.collect()
}

fn summary(values: &[Measure]) -> Option<Summary> {
    let estimate = estimate(values)?;
    let (mean, low, high) = (estimate.mean, estimate.low, estimate.high);
    Some(Summary { mean, low, high, runs: estimate.seeds })
}

/// The differences of runs with the same seed: the first of the model's are the lab's.
fn pairs(model: &[Measure], lab: &[Measure]) -> Option<Summary> {
    let difference = |(lab, model): (&Measure, &Measure)| lab.value() - model.value();
    let differences: Vec<f64> = lab.iter().zip(model).map(difference).collect();
    let differences: Vec<Measure> = differences.into_iter().map(Measure::Number).collect();
    summary(&differences).filter(|pairs| pairs.runs > 1)
}

/// The 95 % interval of the lab's mean less the model's; nothing if one has no runs, or the
/// model fewer than two.
fn interval(model: &[Measure], lab: &[Measure]) -> Option<(f64, f64)> {
    let (n, few) = (model.len() as f64, lab.len() as f64);
    if model.len() < 2 || lab.is_empty() {
        return None;
    }
    let (of_model, of_lab) = (spread(model), spread(lab));
    let variance = of_lab.1.max(of_model.1) / few + of_model.1 / n;
    let freedom = if lab.len() > 1 { lab.len().min(model.len()) - 1 } else { model.len() - 1 };
    let half = student(freedom) * variance.sqrt();
    let difference = of_lab.0 - of_model.0;
    let (mut low, mut high) = (difference - half, difference + half);
    if let (Some(model), Some(lab)) = (pooled(model), pooled(lab)) {
        let share = |(hits, of): (u64, u64)| hits as f64 / of as f64;
        let difference = share(lab) - share(model);
        let (below, above) = (wilson(model.0, model.1), wilson(lab.0, lab.1));
        let root = |one: f64, other: f64| one.hypot(other);
        low = low.min(difference - root(share(lab) - above.0, below.1 - share(model)));
        high = high.max(difference + root(above.1 - share(lab), share(model) - below.0));
    }
    Some((low, high))
}

/// Mean and variance.
fn spread(values: &[Measure]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|value| value.value()).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value.value() - mean).powi(2)).sum();
    (mean, if values.len() > 1 { squares / (n - 1.0) } else { 0.0 })
}

/// All hits and all trials, of shares that have any.
fn pooled(values: &[Measure]) -> Option<(u64, u64)> {
    let sum = values.iter().try_fold((0, 0), |(all_hits, all), value| match value {
        Measure::Share { hits, of } => Some((all_hits + hits, all + of)),
        Measure::Number(_) => None,
    });
    sum.filter(|(_, of)| *of > 0)
}

/// One line a figure.
pub(crate) fn table(compared: &[Compared]) -> String {
    let head = ["", "model", "lab", "difference", "over all seeds", "same weather", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for figure in compared {
        rows.push(vec![
            figure.what.to_owned(),
            mean(&figure.model),
            mean(&figure.lab),
            signed(figure.difference),
            format!("{} to {}", signed(figure.low), signed(figure.high)),
            figure.pairs.as_ref().map_or_else(
                || "-".to_owned(),
                |pairs| {
                    if pairs.low < pairs.high {
                        format!("{} to {}", signed(pairs.low), signed(pairs.high))
                    } else {
                        format!("always {}", signed(pairs.mean))
                    }
                },
            ),
            if figure.agrees { "agree" } else { "DIFFER" }.to_owned(),
        ]);
    }
    align(&rows)
}

fn mean(summary: &Summary) -> String {
    format!("{} ({} to {})", number(summary.mean), number(summary.low), number(summary.high))
}

fn signed(value: f64) -> String {
    if value > 0.0 { format!("+{}", number(value)) } else { number(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(values: &[f64]) -> Vec<Measure> {
        values.iter().map(|&value| Measure::Number(value)).collect()
    }

    /// Welch by hand: means 5 and 8, variances 2.5 over 5 and 4 over 3 runs, t of 2 degrees of
    /// freedom is 4.3027.
    #[test]
    fn the_interval_of_numbers_is_welchs() {
        let model = numbers(&[3.0, 4.0, 5.0, 6.0, 7.0]);
        let (low, high) = interval(&model, &numbers(&[6.0, 8.0, 10.0])).expect("an interval");
        let half = 4.3027 * (4.0f64 / 3.0 + 2.5 / 5.0).sqrt();
        assert!((low - (3.0 - half)).abs() < 1e-3, "{low}");
        assert!((high - (3.0 + half)).abs() < 1e-3, "{high}");
    }

    #[test]
    fn equal_values_of_a_few_runs_are_no_certainty() {
        let model = numbers(&[3.0, 4.0, 5.0, 6.0, 7.0]);
        let (low, high) = interval(&model, &numbers(&[6.0, 6.0, 6.0])).expect("an interval");
        assert!(low < 0.0 && high > 2.0, "{low} {high}");
        let (low, high) = interval(&model, &numbers(&[6.0])).expect("an interval");
        assert!(low < 0.0 && high > 2.0, "{low} {high}");
    }

    /// Differences 1, 2 and 3: mean 2, standard error 0.577, t of 2 degrees of freedom 4.3027.
    #[test]
    fn pairs_have_the_same_weather_and_students_interval() {
        let model = numbers(&[10.0, 20.0, 30.0, 99.0]);
        let found = pairs(&model, &numbers(&[11.0, 22.0, 33.0])).expect("an interval");
        assert!((found.mean - 2.0).abs() < 1e-9, "{found:?}");
        assert!((found.high - 2.0 - 4.3027 / 3.0f64.sqrt()).abs() < 1e-3, "{found:?}");
        assert_eq!(pairs(&model, &numbers(&[11.0])), None, "one pair has no interval");
    }

    #[test]
    fn what_is_far_apart_differs() {
        let model = numbers(&[99.0, 100.0, 101.0, 100.0]);
        let (low, _) = interval(&model, &numbers(&[119.0, 120.0, 121.0])).expect("an interval");
        assert!(low > 0.0, "{low}");
    }

    /// Newcombe's example (e): 5 of 56 against 0 of 29 gives -0.0381 to 0.1926.
    #[test]
    fn the_interval_of_shares_is_at_least_newcombes() {
        let share = |hits, of| Measure::Share { hits, of };
        let (low, high) = interval(&[share(0, 14), share(0, 15)], &[share(5, 56)]).expect("one");
        assert!((low - -0.0381).abs() < 1e-3, "{low}");
        assert!((high - 0.1926).abs() < 1e-3, "{high}");
        let all = [share(30, 30), share(30, 30)];
        let (low, high) = interval(&all, &all).expect("one");
        assert!(low < -0.05 && high > 0.05, "all of a few is not all: {low} {high}");
    }
}
