//! Sweeps: the cells that come of a scenario's axes.
//!
//! ```toml
//! [[sweep]]
//! axis = "f"                            # cells are named by it
//! set = ["hosts.saboteurs.share"]       # where its values go
//! values = [0.0, 0.1, 0.2]              # or range = { from, to, step }, log = { from, to, points }
//!
//! [[sweep]]
//! axis = "policy"
//! cases = [{ label = "fixed", set = { "jobs.main.validation.policy" = "fixed" } }]
//! ```
//!
//! Axes are combined with each other; those that name the same `zip` go in step.

use serde::Deserialize;
use toml::{Table, Value};

use super::error::FileError;

/// Cells of a sweep at most: more would be a mistake.
pub(crate) const CELLS_MAX: usize = 100_000;

/// One axis.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Axis {
    #[serde(rename = "axis")]
    pub(crate) name: String,
    #[serde(default)]
    set: Vec<String>,
    values: Option<Vec<Value>>,
    range: Option<Range>,
    log: Option<Log>,
    cases: Option<Vec<Case>>,
    zip: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: f64,
    to: f64,
    step: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    from: f64,
    to: f64,
    points: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    label: String,
    #[serde(default)]
    set: Table,
}

/// One combination of the axes' values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// The axes and what this cell has on each.
    pub labels: Vec<(String, Value)>,
    /// Paths and what is put there.
    pub settings: Vec<(String, Value)>,
}

impl Cell {
    /// What the cell has on an axis.
    #[must_use]
    pub fn label(&self, axis: &str) -> Option<&Value> {
        self.labels.iter().find(|(name, _)| name == axis).map(|(_, value)| value)
    }

    fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        joined.labels.extend(other.labels.iter().cloned());
        joined.settings.extend(other.settings.iter().cloned());
        joined
    }
}

/// A value as people read it.
#[must_use]
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Axis {
    /// The axis' part of each of its cells.
    fn points(&self) -> Result<Vec<Cell>, FileError> {
        let refuse =
            |reason: &str| FileError::invalid(format!("sweep axis {:?}", self.name), reason);
        let values: Vec<Value> = match (&self.values, &self.range, &self.log, &self.cases) {
            (Some(values), None, None, None) => values.clone(),
            (None, Some(range), None, None) => {
                let Range { from, to, step } = *range;
                let steps = (to - from) / step;
                if !(step > 0.0 && steps >= 0.0) {
                    return Err(refuse("a range goes upwards, by a positive step"));
                }
                if steps > CELLS_MAX as f64 {
                    return Err(refuse("has more than 100,000 values"));
                }
                // Half a step forgives what binary fractions lose.
                let n = (steps + 1e-9).floor() as u32;
                (0..=n).map(|i| Value::Float(round(from + step * f64::from(i)))).collect()
            }
            (None, None, Some(log), None) => {
                let Log { from, to, points } = *log;
                if !(from > 0.0 && to > from && points >= 2) {
                    return Err(refuse("log goes upwards from above zero, by 2 points or more"));
                }
                let step = libm::log(to / from) / f64::from(points - 1);
                let value = |i| round(from * libm::exp(step * f64::from(i)));
                (0..points).map(|i| Value::Float(value(i))).collect()
            }
            (None, None, None, Some(cases)) => {
                let cell = |case: &Case| Cell {
                    labels: vec![(self.name.clone(), Value::String(case.label.clone()))],
                    settings: case.set.iter().map(|(p, v)| (p.clone(), v.clone())).collect(),
                };
                return Ok(cases.iter().map(cell).collect());
            }
            _ => return Err(refuse("needs exactly one of values, range, log, cases")),
        };
        if self.set.is_empty() {
            return Err(refuse("set says where its values go, and is empty"));
        }
        let cell = |value: Value| Cell {
            labels: vec![(self.name.clone(), value.clone())],
            settings: self.set.iter().map(|path| (path.clone(), value.clone())).collect(),
        };
        Ok(values.into_iter().map(cell).collect())
    }
}

/// To 12 significant digits, so that 0.1 + 0.2 reads 0.3.
fn round(value: f64) -> f64 {
    format!("{value:.12e}").parse().unwrap_or(value)
}

/// All combinations.
pub(crate) fn cells(axes: &[Axis]) -> Result<Vec<Cell>, FileError> {
    let mut groups: Vec<(Option<&str>, Vec<Cell>)> = Vec::new();
    for axis in axes {
        let points = axis.points()?;
        let group = groups.iter_mut().find(|(zip, _)| zip.is_some() && *zip == axis.zip.as_deref());
        match group {
            Some((_, cells)) if cells.len() == points.len() => {
                *cells = cells.iter().zip(&points).map(|(cell, point)| cell.join(point)).collect();
            }
            Some(_) => {
                let reason = "axes that are zipped have as many values each";
                return Err(FileError::invalid(format!("sweep axis {:?}", axis.name), reason));
            }
            None => groups.push((axis.zip.as_deref(), points)),
        }
    }
    let n = groups.iter().fold(1usize, |n, (_, cells)| n.saturating_mul(cells.len()));
    if n > CELLS_MAX {
        let reason = format!("would have {n} cells; at most {CELLS_MAX} are allowed");
        return Err(FileError::invalid("sweep", reason));
    }
    let mut all = vec![Cell::default()];
    for (_, points) in groups {
        all = all.iter().flat_map(|cell| points.iter().map(|point| cell.join(point))).collect();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(text: &str) -> Result<Vec<Cell>, FileError> {
        #[derive(Deserialize)]
        struct File {
            sweep: Vec<Axis>,
        }
        cells(&toml::from_str::<File>(text).expect("TOML").sweep)
    }

    fn labels(cells: &[Cell]) -> Vec<String> {
        let one = |cell: &Cell| {
            let shown: Vec<String> = cell.labels.iter().map(|(_, value)| shown(value)).collect();
            shown.join(" ")
        };
        cells.iter().map(one).collect()
    }

    #[test]
    fn axes_are_combined_and_the_last_varies_fastest() {
        let cells = axes(
            "[[sweep]]\naxis = 'f'\nset = ['a.f']\nrange = { from = 0.0, to = 0.3, step = 0.1 }\n\
             [[sweep]]\naxis = 'p'\ncases = [{ label = 'x', set = { 'b' = 1 } }, { label = 'y' }]",
        );
        let cells = cells.expect("a sweep");
        let all = ["0.0 x", "0.0 y", "0.1 x", "0.1 y", "0.2 x", "0.2 y", "0.3 x", "0.3 y"];
        assert_eq!(labels(&cells), all);
        assert_eq!(
            cells[2].settings,
            [("a.f".to_owned(), Value::Float(0.1)), ("b".to_owned(), Value::Integer(1))]
        );
    }

    #[test]
    fn zipped_axes_go_in_step() {
        let zipped = |second: &str| {
            axes(&format!(
                "[[sweep]]\naxis = 'm'\nset = ['m']\nvalues = [1, 2]\nzip = 'z'\n\
                 [[sweep]]\naxis = 'q'\nset = ['q']\nvalues = {second}\nzip = 'z'"
            ))
        };
        assert_eq!(labels(&zipped("[1, 3]").expect("a sweep")), ["1 1", "2 3"]);
        assert!(zipped("[1, 3, 5]").is_err());
    }

    #[test]
    fn log_axes_rise_by_a_factor() {
        let text =
            "[[sweep]]\naxis = 's'\nset = ['s']\nlog = { from = 0.001, to = 1.0, points = 4 }";
        assert_eq!(labels(&axes(text).expect("a sweep")), ["0.001", "0.01", "0.1", "1.0"]);
    }

    #[test]
    fn a_sweep_of_a_billion_cells_is_refused() {
        let axis = |name| {
            format!(
                "[[sweep]]\naxis = '{name}'\nset = ['{name}']\n\
                 range = {{ from = 0.0, to = 1000.0, step = 1.0 }}\n"
            )
        };
        let error = axes(&(axis("a") + &axis("b") + &axis("c"))).expect_err("a billion cells");
        assert_eq!(
            error.to_string(),
            "sweep: would have 1003003001 cells; at most 100000 are allowed"
        );
    }
}
