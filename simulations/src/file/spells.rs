//! Availability traces: when real hosts were there, from a CSV file beside the scenario.
//!
//! ```text
//! host,up,down       a row a spell: the host's number from 0, and when it came and left,
//! 0,0,3600           in seconds since the trace began
//! 1,120,600
//! 0,7200,9000        rows of one host are in order, those of several may be mixed
//! ```
//!
//! The file is read when the scenario is, and becomes part of it: what is stored beside results
//! needs no other file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use super::error::FileError;

/// The spells of one host: when it came and left.
pub(crate) type Spells = Vec<(Duration, Duration)>;

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{} is no availability trace (host,up,down)", path.display())]
pub struct TraceError {
    /// The file.
    pub path: PathBuf,
    /// Where and why.
    #[source]
    pub source: csv::Error,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    host: usize,
    up: f64,
    down: f64,
}

/// Puts the spells themselves where a group of hosts names a file of them, relative to `folder`.
pub(super) fn inline(file: &mut Table, folder: &Path) -> Result<(), FileError> {
    let Some(Value::Table(groups)) = file.get_mut("hosts") else { return Ok(()) };
    for (name, group) in groups.iter_mut() {
        let Value::Table(group) = group else { continue };
        let Some(Value::String(path)) = group.get("trace") else { continue };
        let path = folder.join(path);
        let rows = read(&path).map_err(|source| TraceError { path: path.clone(), source })?;
        let spells = by_host(&format!("hosts.{name}.trace"), rows)?;
        let pair = |(up, down)| Value::Array(vec![Value::Float(up), Value::Float(down)]);
        let host = |spells: Vec<_>| Value::Array(spells.into_iter().map(pair).collect());
        group.insert("trace".into(), Value::Array(spells.into_iter().map(host).collect()));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Row>, csv::Error> {
    csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path)?.deserialize().collect()
}

/// Gives each host its rows.
fn by_host(place: &str, rows: Vec<Row>) -> Result<Vec<Vec<(f64, f64)>>, FileError> {
    let hosts = rows.iter().map(|row| row.host + 1).max().unwrap_or(0);
    // No file can have rows for so many, and no machine room for their lists.
    if hosts > rows.len() {
        let reason = format!("names host {}, and has {} rows", hosts - 1, rows.len());
        return Err(FileError::invalid(place, reason));
    }
    let mut spells = vec![Vec::new(); hosts];
    for row in rows {
        spells[row.host].push((row.up, row.down));
    }
    Ok(spells)
}

/// Checks spells as they are written, in seconds.
pub(super) fn compile(place: &str, written: &[Vec<(f64, f64)>]) -> Result<Vec<Spells>, FileError> {
    let refuse = |reason: String| Err(FileError::invalid(place, reason));
    if written.is_empty() {
        return refuse("has no host".into());
    }
    let mut all = Vec::new();
    for (host, written) in written.iter().enumerate() {
        if written.is_empty() {
            return refuse(format!("has no row of host {host}, and some of later ones"));
        }
        let mut spells: Spells = Vec::new();
        for &(up, down) in written {
            let times = (Duration::try_from_secs_f64(up), Duration::try_from_secs_f64(down));
            let (Ok(came), Ok(left)) = times else {
                return refuse(format!("host {host}: {up} to {down} are no times"));
            };
            if came >= left {
                return refuse(format!("host {host}: leaves at {down} s, and came at {up} s"));
            }
            if let Some((_, before)) = spells.last()
                && came < *before
            {
                let before = before.as_secs_f64();
                let reason = "goes backwards: it comes at";
                return refuse(format!("host {host}: {reason} {up} s, and left at {before} s"));
            }
            spells.push((came, left));
        }
        all.push(spells);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> Result<Vec<Spells>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("hosts.csv"), text).expect("a file");
        let mut file: Table = toml::from_str("[hosts.h]\ntrace = \"hosts.csv\"").expect("TOML");
        let chain = |error: FileError| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error} {}", source.unwrap_or_default())
        };
        inline(&mut file, folder.path()).map_err(chain)?;
        let written = file["hosts"]["h"]["trace"].clone();
        let written: Vec<Vec<(f64, f64)>> = written.try_into().expect("pairs of numbers");
        compile("hosts.h.trace", &written).map_err(chain)
    }

    #[test]
    fn a_trace_is_read() {
        let seconds = Duration::from_secs;
        let read = compiled("host,up,down\n0,0,10\n1, 2.5 ,3\n0,20,30\n").expect("a trace");
        let half = Duration::from_millis(2500);
        assert_eq!(
            read,
            [vec![(seconds(0), seconds(10)), (seconds(20), seconds(30))], vec![(half, seconds(3))]]
        );
    }

    #[test]
    fn what_is_wrong_with_a_trace_is_said() {
        for (rows, reason) in [
            ("", "has no host"),
            ("0,0,10\n2,0,10\n2,20,30\n", "has no row of host 1"),
            ("7,0,10\n", "names host 7, and has 1 rows"),
            ("0,0,10\n0,,30\n", "cannot parse float"),
            ("0,0\n", "found record with 2 fields"),
            ("0,0,10\n0,5,30\n", "goes backwards: it comes at 5 s, and left at 10 s"),
            ("0,20,30\n0,0,10\n", "goes backwards"),
            ("0,10,10\n", "leaves at 10 s, and came at 10 s"),
            ("0,10,5\n", "leaves at 5 s"),
            ("0,-1,5\n", "are no times"),
            ("0,NaN,5\n", "are no times"),
            ("-1,0,5\n", "invalid digit"),
        ] {
            let error = compiled(&format!("host,up,down\n{rows}")).expect_err(rows);
            assert!(error.contains(reason), "{rows:?}: {error}");
        }
        let error = compiled("host,from,to\n0,0,10\n").expect_err("other columns");
        assert!(error.contains("unknown field `from`"), "{error}");
    }
}
