//! What a terminal shows of a study: cells with their means, and targets with their verdicts.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{CellResult, Estimate, Verdict, estimate};
use crate::file::sweep::shown;

/// One line a cell: its labels, then each metric's mean and half the width of its interval.
#[must_use]
pub fn cells(results: &[CellResult], columns: &[String]) -> String {
    let all = || results.iter().flat_map(CellResult::metrics).collect::<BTreeSet<_>>();
    let columns = if columns.is_empty() { all().into_iter().collect() } else { columns.to_vec() };
    let axes = results
        .first()
        .map(|result| result.cell.labels.iter().map(|(axis, _)| axis.clone()).collect::<Vec<_>>());
    let mut rows = vec![axes.unwrap_or_default().into_iter().chain(columns.clone()).collect()];
    for result in results {
        let labels = result.cell.labels.iter().map(|(_, value)| shown(value));
        let values = columns.iter().map(|metric| {
            estimate(&result.measures(metric)).map_or_else(|| "-".to_owned(), |e| mean(&e))
        });
        rows.push(labels.chain(values).collect());
    }
    align(&rows)
}

/// One line a target: measured beside expected, and whether it is within.
#[must_use]
pub fn verdicts(verdicts: &[Verdict]) -> String {
    let head = ["cell", "metric", "measured", "target", "allowed", "", "source"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for verdict in verdicts {
        let source = if verdict.verified {
            verdict.source.clone()
        } else {
            format!("{} (formula not verified)", verdict.source)
        };
        rows.push(vec![
            verdict.cell.clone(),
            verdict.metric.clone(),
            verdict.measured.map_or_else(|| "-".to_owned(), |e| number(e.mean)),
            number(verdict.target),
            verdict
                .allowed
                .map_or_else(|| "-".to_owned(), |allowed| format!("±{}", number(allowed))),
            if verdict.is_within() { "within" } else { "OUT" }.to_owned(),
            source,
        ]);
    }
    align(&rows)
}

fn mean(estimate: &Estimate) -> String {
    let half = (estimate.high - estimate.low) / 2.0;
    if half > 0.0 {
        format!("{} ±{}", number(estimate.mean), number(half))
    } else {
        number(estimate.mean)
    }
}

/// Four significant digits, as a person would write them.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e7).contains(&size) {
        format!("{value:.3e}")
    } else if size >= 1000.0 {
        format!("{value:.0}")
    } else {
        let digits = 3 - size.log10().floor().clamp(-3.0, 3.0) as i32;
        format!("{value:.*}", usize::try_from(digits.max(0)).unwrap_or(0))
    }
}

/// Columns as wide as their widest value.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (value, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{value:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_four_digits() {
        let values = [0.0, 2.32, 0.1041, 0.02795, 1.2e-4, 12_345.6, 21.7, 1e9];
        let shown: Vec<String> = values.into_iter().map(number).collect();
        let expected = ["0", "2.320", "0.1041", "0.02795", "1.200e-4", "12346", "21.70", "1.000e9"];
        assert_eq!(shown, expected);
    }
}
