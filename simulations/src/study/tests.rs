//! Studies: side by side, interrupted, failed; and what they leave on disk.

use std::fs;
use std::path::PathBuf;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;

use super::{CellResult, End, Plan, run, write_report, write_tables};
use crate::file::Document;

const STUDY: &str = r#"
schema = 1
kind = "volunteers"
engine = "direct"
seeds = 3
population = 10

[hosts.all]
behaviour = "colluder"
cores = 1

[jobs.main]
units = 20

[jobs.main.validation]
policy = "fixed"
min_quorum = 2

[[sweep]]
axis = "phi"
set = ["hosts.all.rate"]
values = [0.1, 0.5]

[[sweep]]
axis = "quorum"
set = ["jobs.main.validation.min_quorum"]
values = [2, 3]

[[expect]]
metric = "completed"
target = 1.0
tolerance = { absolute = 0.0 }
source = "nothing is lost"

[figure]
x = "phi"
by = "quorum"
y = ["accepted_error_rate", "replicas_per_unit"]
log = ["accepted_error_rate"]
"#;

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("dockercomp-study-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn document() -> Document {
    Document::new("study".into(), toml::from_str(STUDY).expect("TOML")).expect("a scenario")
}

fn study(threads: usize, folder: Option<PathBuf>) -> Vec<CellResult> {
    let document = document();
    let plan = Plan { document: &document, first_seed: 1, seeds: 3, threads, folder };
    run(&plan, &|| ()).expect("a study")
}

#[test]
fn threads_change_nothing() {
    let alone = study(1, None);
    assert_eq!(alone, study(2, None));
    assert_eq!(alone.len(), 4);
    assert!(alone.iter().all(|result| result.runs.len() == 3));
}

/// A study that was ended in the middle of a line goes on with the runs that are missing.
#[test]
fn an_interrupted_study_goes_on() {
    let folder = Folder::new("interrupted");
    let whole = study(1, Some(folder.0.clone()));
    let path = folder.0.join("runs.jsonl");
    let text = fs::read_to_string(&path).expect("runs");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 12);
    // Seven whole lines and a half, and a mark in the first to see that it is not run again.
    let kept = lines[..7].join("\n").replacen("\"trace_hash\":\"", "\"trace_hash\":\"kept", 1);
    fs::write(&path, format!("{kept}\n{}", &lines[7][..20])).expect("written");
    let again = study(1, Some(folder.0.clone()));
    let marked = |results: &[CellResult]| {
        let runs = results.iter().flat_map(|result| &result.runs);
        let hashes = runs.filter_map(|run| match &run.end {
            End::Ran(run) => Some(run.trace_hash.clone()),
            End::Panicked { .. } => None,
        });
        hashes.collect::<Vec<_>>()
    };
    let (before, after) = (marked(&whole), marked(&again));
    assert_eq!(after[0], format!("kept{}", before[0]));
    assert_eq!(after[1..], before[1..]);
    assert_eq!(fs::read_to_string(&path).expect("runs").lines().count(), 7 + 1 + 5);
}

#[test]
fn tables_and_report_hold_every_run() {
    let folder = Folder::new("tables");
    let (document, results) = (document(), study(0, Some(folder.0.clone())));
    let verdicts: Vec<_> =
        document.expectations.iter().flat_map(|expected| expected.judge(&results)).collect();
    assert!(verdicts.len() == 4 && verdicts.iter().all(super::Verdict::is_within));
    write_tables(&folder.0, &document, &results, &verdicts).expect("tables");
    write_report(&folder.0, &document, &results, &verdicts, "a <command>").expect("a report");

    let metrics = results[0].metrics().len();
    let csv = fs::read_to_string(folder.0.join("runs.csv")).expect("CSV");
    assert_eq!(csv.lines().count(), 1 + 12 * metrics);
    let file = fs::File::open(folder.0.join("runs.parquet")).expect("Parquet");
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let rows: Vec<_> =
        reader.get_row_iter(None).expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!(rows.len(), 12 * metrics);
    // The same rows in the same order: scenario, cell, seed, status, trace, metric, value.
    for (row, line) in rows.iter().zip(csv::Reader::from_reader(csv.as_bytes()).records()) {
        let line = line.expect("a line");
        assert_eq!(row.get_string(1).expect("text"), &line[1]);
        assert_eq!(row.get_long(2).expect("a number").to_string(), line[2]);
        assert_eq!(row.get_string(5).expect("text"), &line[5]);
        assert_eq!(row.get_double(6).expect("a number").to_string(), line[6]);
    }

    let page = fs::read_to_string(folder.0.join("report.html")).expect("a page");
    assert!(page.contains("<svg") && page.contains("a &lt;command&gt;"), "{page}");
    assert!(!page.contains("src=") && !page.contains("href="), "it needs something else");
    let png = fs::read(folder.0.join("figure.png")).expect("a picture");
    assert!(png.starts_with(b"\x89PNG") && png.len() > 5000);
}
