//! Which panels, lines and points a figure has: what is drawn, without how.
//!
//! One panel for each metric of `y` and each combination of the axes that the figure does not
//! name; in each, one line for each value of `by`.

use toml::Value;

use super::{CellResult, Estimate, Figure, estimate};
use crate::file::sweep::shown;

/// Everything that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawing {
    /// Row by row.
    pub(super) panels: Vec<Panel>,
    /// Panels in a row.
    pub(super) columns: usize,
    /// The names of the lines, the same in all panels.
    pub(super) lines: Vec<String>,
}

/// One system of axes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) x_label: String,
    pub(super) y_label: String,
    /// Whether y is logarithmic.
    pub(super) is_log: bool,
    /// The names of the places on the x axis, if they are no numbers.
    pub(super) places: Option<Vec<String>>,
    /// The points of each line.
    pub(super) series: Vec<Vec<(f64, Estimate)>>,
}

/// Lays a figure out.
pub(super) fn lay_out(figure: &Figure, results: &[CellResult]) -> Drawing {
    let xs = values(results, &figure.x);
    let numbers: Option<Vec<f64>> = xs.iter().map(number).collect();
    let places = numbers.is_none().then(|| xs.iter().map(shown).collect::<Vec<_>>());
    let place = |value: &Value| match number(value) {
        Some(number) if numbers.is_some() => number,
        _ => xs.iter().position(|x| x == value).unwrap_or(0) as f64,
    };
    let lines = figure.by.as_ref().map_or_else(Vec::new, |by| values(results, by));
    let mut facets: Vec<String> = Vec::new();
    for result in results {
        let facet = facet(figure, result);
        if !facets.contains(&facet) {
            facets.push(facet);
        }
    }
    let word = |name: &String| figure.labels.get(name).unwrap_or(name).clone();
    let mut panels = Vec::new();
    for title in &facets {
        for metric in &figure.y {
            let of_line = |line: Option<&Value>| {
                let mut points: Vec<(f64, Estimate)> = results
                    .iter()
                    .filter(|result| facet(figure, result) == *title)
                    .filter(|result| {
                        let by = figure.by.as_ref().and_then(|by| result.cell.label(by));
                        line.is_none() || by == line
                    })
                    .filter_map(|result| {
                        let x = place(result.cell.label(&figure.x)?);
                        Some((x, estimate(&result.measures(metric))?))
                    })
                    .collect();
                points.sort_by(|one, other| one.0.total_cmp(&other.0));
                points
            };
            let series = if lines.is_empty() {
                vec![of_line(None)]
            } else {
                lines.iter().map(|line| of_line(Some(line))).collect()
            };
            panels.push(Panel {
                title: title.clone(),
                x_label: word(&figure.x),
                y_label: word(metric),
                is_log: figure.log.contains(metric),
                places: places.clone(),
                series,
            });
        }
    }
    Drawing { panels, columns: figure.y.len().max(1), lines: lines.iter().map(shown).collect() }
}

/// What a cell has on the axes that the figure does not name.
fn facet(figure: &Figure, result: &CellResult) -> String {
    let is_named = |axis: &String| *axis == figure.x || Some(axis) == figure.by.as_ref();
    let labels = result.cell.labels.iter().filter(|(axis, _)| !is_named(axis));
    labels.map(|(_, value)| shown(value)).collect::<Vec<_>>().join(", ")
}

/// The values of an axis, in the order of the sweep.
fn values(results: &[CellResult], axis: &str) -> Vec<Value> {
    let mut values: Vec<Value> = Vec::new();
    for value in results.iter().filter_map(|result| result.cell.label(axis)) {
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    values
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    }
}
