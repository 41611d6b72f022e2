//! What a study leaves in its folder: one table, as CSV and as Parquet, and a summary.
//!
//! # Schema
//!
//! One row a run and metric; a run that panicked has one row without a metric.
//!
//! | Column | Type | What |
//! |---|---|---|
//! | `scenario` | text | the scenario's name |
//! | `cell` | text | the cell: its labels in one line |
//! | `seed` | integer | the seed |
//! | `status` | text | `ran` or `panicked` |
//! | `trace_hash` | text | BLAKE3 over everything that happened |
//! | `metric` | text | which figure |
//! | `value` | number | the figure |
//! | `hits`, `of` | integer | of a share: how many, of how many; else empty |
//! | `axis.NAME` | text | what the cell has on each axis of the sweep |

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde_json::{Value, json};

use super::{CellResult, End, Measure, Verdict, estimate};
use crate::file::Document;
use crate::file::sweep::shown;

/// Why results could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A file cannot be made.
    #[error("{} cannot be written", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CSV table.
    #[error("the CSV table cannot be written")]
    Csv(#[from] csv::Error),
    /// The Parquet table.
    #[error("the Parquet table cannot be written")]
    Parquet(#[from] ParquetError),
    /// A figure.
    #[error("figure {name}: {reason}")]
    Figure {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
}

/// The table, by columns.
struct Table {
    columns: Vec<(String, Column)>,
    rows: usize,
}

enum Column {
    Text(Vec<Option<String>>),
    Integer(Vec<Option<i64>>),
    Number(Vec<Option<f64>>),
}

/// Writes the table twice and the summary.
///
/// # Errors
/// See [`WriteError`].
pub fn write(
    folder: &Path,
    document: &Document,
    results: &[CellResult],
    verdicts: &[Verdict],
) -> Result<(), WriteError> {
    let table = table(document, results);
    csv(&folder.join("runs.csv"), &table)?;
    parquet(&folder.join("runs.parquet"), &table)?;
    let summary = serde_json::to_string_pretty(&summary(document, results, verdicts));
    save(&folder.join("summary.json"), summary.expect("plain values can be written"))?;
    save(&folder.join("scenario.toml"), document.resolved.to_string())
}

/// Writes a file.
pub(super) fn save(path: &Path, content: impl AsRef<[u8]>) -> Result<(), WriteError> {
    std::fs::write(path, content)
        .map_err(|source| WriteError::File { path: path.to_owned(), source })
}

fn table(document: &Document, results: &[CellResult]) -> Table {
    let axes = document.axis_names();
    let (mut texts, mut seeds) = (vec![Vec::new(); 5 + axes.len()], Vec::new());
    let (mut values, mut hits, mut ofs) = (Vec::new(), Vec::new(), Vec::new());
    for result in results {
        let (cell, labels) = (result.name(), axes.iter().map(|axis| result.cell.label(axis)));
        let labels: Vec<Option<String>> = labels.map(|label| label.map(shown)).collect();
        for run in &result.runs {
            let mut row = |status: &str, hash: Option<&str>, metric: Option<(&str, Measure)>| {
                let name = metric.map(|(name, _)| name.to_owned());
                let head = [
                    Some(document.name.clone()),
                    Some(cell.clone()),
                    Some(status.to_owned()),
                    hash.map(str::to_owned),
                    name,
                ];
                for (column, text) in texts.iter_mut().zip(head.into_iter().chain(labels.clone())) {
                    column.push(text);
                }
                seeds.push(i64::try_from(run.seed).ok());
                values.push(metric.map(|(_, measure)| measure.value()));
                let share = metric.and_then(|(_, measure)| match measure {
                    Measure::Share { hits, of } => Some((hits, of)),
                    Measure::Number(_) => None,
                });
                hits.push(share.and_then(|(hits, _)| i64::try_from(hits).ok()));
                ofs.push(share.and_then(|(_, of)| i64::try_from(of).ok()));
            };
            match &run.end {
                End::Ran(ran) => {
                    for (name, measure) in &ran.measures {
                        row("ran", Some(&ran.trace_hash), Some((name, *measure)));
                    }
                }
                End::Panicked { .. } => row("panicked", None, None),
            }
        }
    }
    let rows = seeds.len();
    let mut texts = texts.into_iter().map(Column::Text);
    let mut next = |name: &str| (name.to_owned(), texts.next().unwrap_or(Column::Text(Vec::new())));
    let mut columns = vec![next("scenario"), next("cell")];
    columns.push(("seed".to_owned(), Column::Integer(seeds)));
    columns.extend([next("status"), next("trace_hash"), next("metric")]);
    columns.push(("value".to_owned(), Column::Number(values)));
    columns.push(("hits".to_owned(), Column::Integer(hits)));
    columns.push(("of".to_owned(), Column::Integer(ofs)));
    columns.extend(axes.iter().map(|axis| next(&format!("axis.{axis}"))));
    Table { columns, rows }
}

impl Column {
    fn text(&self, row: usize) -> String {
        match self {
            Self::Text(values) => values[row].clone().unwrap_or_default(),
            Self::Integer(values) => values[row].map_or_else(String::new, |v| v.to_string()),
            Self::Number(values) => values[row].map_or_else(String::new, |v| v.to_string()),
        }
    }

    const fn kind(&self) -> (Physical, ConvertedType) {
        match self {
            Self::Text(_) => (Physical::BYTE_ARRAY, ConvertedType::UTF8),
            Self::Integer(_) => (Physical::INT64, ConvertedType::NONE),
            Self::Number(_) => (Physical::DOUBLE, ConvertedType::NONE),
        }
    }

    fn write(&self, writer: &mut ColumnWriter) -> Result<(), ParquetError> {
        match (self, writer) {
            (Self::Text(values), ColumnWriter::ByteArrayColumnWriter(writer)) => {
                let (present, levels) = levels(values);
                let bytes: Vec<ByteArray> =
                    present.iter().map(|text| ByteArray::from(text.as_str())).collect();
                writer.write_batch(&bytes, Some(&levels), None)?;
            }
            (Self::Integer(values), ColumnWriter::Int64ColumnWriter(writer)) => {
                let (present, levels) = levels(values);
                writer.write_batch(&present, Some(&levels), None)?;
            }
            (Self::Number(values), ColumnWriter::DoubleColumnWriter(writer)) => {
                let (present, levels) = levels(values);
                writer.write_batch(&present, Some(&levels), None)?;
            }
            _ => return Err(ParquetError::General("a column has another type".to_owned())),
        }
        Ok(())
    }
}

/// The values that are there, and for each row whether one is.
fn levels<T: Clone>(values: &[Option<T>]) -> (Vec<T>, Vec<i16>) {
    let present = values.iter().flatten().cloned().collect();
    (present, values.iter().map(|value| i16::from(value.is_some())).collect())
}

fn csv(path: &Path, table: &Table) -> Result<(), WriteError> {
    let mut writer = csv::Writer::from_path(path)?;
    writer.write_record(table.columns.iter().map(|(name, _)| name))?;
    for row in 0..table.rows {
        writer.write_record(table.columns.iter().map(|(_, column)| column.text(row)))?;
    }
    writer.flush().map_err(|source| WriteError::File { path: path.to_owned(), source })
}

fn parquet(path: &Path, table: &Table) -> Result<(), WriteError> {
    let field = |(name, column): &(String, Column)| {
        let (physical, converted) = column.kind();
        let builder = Type::primitive_type_builder(name, physical);
        let builder = builder.with_converted_type(converted);
        builder.with_repetition(Repetition::OPTIONAL).build().map(Arc::new)
    };
    let fields = table.columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Type::group_type_builder("runs").with_fields(fields).build()?;
    let file =
        File::create(path).map_err(|source| WriteError::File { path: path.to_owned(), source })?;
    let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::default())?;
    let mut group: SerializedRowGroupWriter<'_, File> = writer.next_row_group()?;
    for (_, column) in &table.columns {
        let Some(mut chunk) = group.next_column()? else { break };
        column.write(chunk.untyped())?;
        chunk.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

/// Means, intervals, verdicts and problems, for machines.
fn summary(document: &Document, results: &[CellResult], verdicts: &[Verdict]) -> Value {
    let cells = results.iter().map(|result| {
        let labels = result.cell.labels.iter().map(|(axis, v)| (axis.clone(), json!(shown(v))));
        let names = result.metrics();
        let metrics = names.into_iter().filter_map(|metric| {
            let estimate = estimate(&result.measures(&metric))?;
            let (mean, low, high) = (estimate.mean, estimate.low, estimate.high);
            Some((metric, json!({ "mean": mean, "low": low, "high": high })))
        });
        let problems = result.problems().map(|(seed, problem, text)| {
            let kind = match problem {
                None => "panic",
                Some(problem) if problem.is_of_safety => "safety",
                Some(_) => "liveness",
            };
            json!({ "seed": seed, "kind": kind, "text": text })
        });
        json!({
            "labels": labels.collect::<serde_json::Map<_, _>>(),
            "seeds": result.runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
            "metrics": metrics.collect::<serde_json::Map<_, _>>(),
            "problems": problems.collect::<Vec<_>>(),
        })
    });
    json!({
        "schema": 1,
        "scenario": document.name,
        "kind": document.kind,
        "about": document.about,
        "cells": cells.collect::<Vec<_>>(),
        "expectations": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
    })
}
