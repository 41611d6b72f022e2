//! The table that people read and the list that programs read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::Error;
use crate::load::Load;
use crate::run::{Contender, Run};

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What the ratio is to; none for a figure that stands alone.
    pub(crate) against: Option<String>,
    pub(crate) ratio: Option<f64>,
}

/// What was measured of one contender.
#[derive(Debug)]
struct Line {
    load: &'static str,
    contender: Contender,
    bytes: f64,
    wall: f64,
    transfer: Option<f64>,
    ingest: Option<f64>,
    cells: Vec<(&'static str, f64, &'static str)>,
}

/// All results.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
    /// How long `b3sum` took, by load.
    sums: Vec<(&'static str, f64)>,
    /// Figures that no other contender has.
    own: Vec<Row>,
}

impl Report {
    pub(crate) fn ingest(&mut self, load: Load, b3sum: Option<Duration>) {
        self.sums.extend(b3sum.map(|took| (load.name, took.as_secs_f64())));
    }

    pub(crate) fn add(&mut self, load: Load, (contender, bytes): (Contender, u64), run: &Run) {
        let bytes = bytes as f64;
        let gib = bytes / GIB;
        let mut cells = vec![
            ("sender CPU", run.sender.cpu_seconds / gib, "s/GiB"),
            ("receiver CPU", run.receiver.cpu_seconds / gib, "s/GiB"),
            ("sender peak memory", run.sender.peak_bytes as f64 / MIB, "MiB"),
            ("receiver peak memory", run.receiver.peak_bytes as f64 / MIB, "MiB"),
            ("bytes on the wire", run.wire_bytes as f64 / bytes, "of payload"),
        ];
        cells.extend(run.ping_p99.map(|p99| ("ping p99", p99.as_secs_f64() * 1e3, "ms")));
        self.lines.push(Line {
            load: load.name,
            contender,
            bytes,
            wall: run.wall.as_secs_f64(),
            transfer: run.transfer.map(|took| took.as_secs_f64()),
            ingest: run.ingest.map(|took| took.as_secs_f64()),
            cells,
        });
    }

    pub(crate) fn add_rows(&mut self, rows: Vec<Row>) {
        self.own.extend(rows);
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for line in &self.lines {
            let name = |what: &str| format!("{}, {}, {what}", line.load, line.contender.name());
            let speed = line.bytes / line.wall / 1e9;
            let mut row = |what: &str, value, unit, against: Option<(String, f64)>| {
                let (against, ratio) = against.map_or((None, None), |(a, r)| (Some(a), Some(r)));
                rows.push(Row { name: name(what), value, unit, against, ratio });
            };
            let others = self
                .lines
                .iter()
                .filter(|other| other.load == line.load && other.contender != line.contender);
            match line.contender {
                Contender::Ours | Contender::Sealed => {
                    for other in others {
                        let against = other.contender.name().to_owned();
                        row("start to end", speed, "GB/s", Some((against, other.wall / line.wall)));
                    }
                }
                Contender::Sendme | Contender::Rsync | Contender::Raw => {
                    row("start to end", speed, "GB/s", None);
                }
            }
            if let Some(took) = line.transfer {
                let other = self
                    .lines
                    .iter()
                    .find(|other| other.load == line.load && other.contender == Contender::Sendme);
                let other = other.filter(|_| line.contender.is_ours());
                let ratio = other.and_then(|other| other.transfer).map(|other| other / took);
                let against = ratio.map(|ratio| ("sendme".to_owned(), ratio));
                row("transfer only", line.bytes / took / 1e9, "GB/s", against);
            }
            if let Some(took) = line.ingest {
                let sum = self.sums.iter().find(|(load, _)| *load == line.load);
                let against = sum.map(|(_, sum)| ("b3sum".to_owned(), sum / took));
                row("ingest", line.bytes / took / 1e9, "GB/s", against);
            }
            for (what, value, unit) in &line.cells {
                row(what, *value, unit, None);
            }
        }
        rows.extend(self.small_against_large());
        rows.extend(self.own.iter().cloned());
        rows
    }

    /// How the folder of small files compares with the largest file, byte for byte.
    fn small_against_large(&self) -> Option<Row> {
        let ours = |load: &str| {
            let found = self
                .lines
                .iter()
                .find(|line| line.load == load && line.contender == Contender::Ours);
            found.map(|line| line.bytes / line.wall / 1e9)
        };
        let (small, large) = (ours("50000-files")?, ours("4GiB")?);
        Some(Row {
            name: "50000-files, dockercomp, start to end".to_owned(),
            value: small,
            unit: "GB/s",
            against: Some("dockercomp, 4GiB".to_owned()),
            ratio: Some(small / large),
        })
    }

    pub(crate) fn print(&self) {
        println!("{:<52} {:>9} {:<10} {:>6}  against", "", "", "", "ratio");
        for row in self.rows() {
            let ratio = row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let Row { name, value, unit, against, .. } = row;
            let against = against.unwrap_or_default();
            println!("{name:<52} {value:>9.3} {unit:<10} {ratio:>6}  {against}");
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(path, serde_json::to_vec_pretty(&self.rows())?)?)
    }
}
