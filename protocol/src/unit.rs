//! Work units: how a job becomes pieces, one at a time.
//!
//! A [`Plan`] knows how many work units a job has and can make any one of them without
//! making the others, so a job of millions costs memory only for what is in flight.

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::job::{JobSpec, SweepParameter, Work};

/// One piece of a job. Its id is the CID of its encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkUnit {
    /// Version of the format, 1.
    pub v: u8,
    /// The job it is a piece of.
    pub job: Cid,
    /// Its number in the job, from 0.
    pub index: u64,
    /// The program's arguments, every parameter filled in.
    pub args: Vec<String>,
    /// The files that are put into `/input`, if any.
    pub inputs: Option<FileRange>,
}

/// Consecutive files of a dataset, in manifest order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRange {
    /// The dataset's root.
    pub dataset: Cid,
    /// Number of the first file, from 0.
    pub first: u64,
    /// How many files.
    pub count: u32,
}

/// The work units of one job, made on demand.
#[derive(Clone, Debug)]
pub struct Plan {
    job: Cid,
    args: Vec<String>,
    work: Work,
    units: u64,
}

impl Plan {
    /// Plans a job whose id is `job` and whose specification was checked.
    #[must_use]
    pub fn new(job: Cid, spec: &JobSpec) -> Self {
        let args = spec.program.args.clone();
        Self { job, args, work: spec.work.clone(), units: spec.units() }
    }

    /// How many work units the job has.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.units
    }

    /// Work unit number `index`, or nothing if the job has fewer.
    #[must_use]
    pub fn unit(&self, index: u64) -> Option<WorkUnit> {
        if index >= self.units {
            return None;
        }
        let (args, inputs) = match &self.work {
            Work::Sweep(parameters) => (fill(&self.args, parameters, index)?, None),
            Work::Files { dataset, files_per_unit, files } => {
                let first = index * u64::from(*files_per_unit);
                let left = (files - first).min(u64::from(*files_per_unit));
                let count = u32::try_from(left).expect("at most files_per_unit");
                (self.args.clone(), Some(FileRange { dataset: *dataset, first, count }))
            }
        };
        Some(WorkUnit { v: 1, job: self.job, index, args, inputs })
    }

    /// The id of work unit number `index`.
    #[must_use]
    pub fn unit_cid(&self, index: u64) -> Option<Cid> {
        self.unit(index).map(|unit| codec::block(&unit).0)
    }
}

/// Fills the parameters of combination `index` into the arguments.
fn fill(args: &[String], parameters: &[SweepParameter], index: u64) -> Option<Vec<String>> {
    let mut rest = index;
    let mut values = Vec::with_capacity(parameters.len());
    for parameter in parameters.iter().rev() {
        let count = parameter.values.count();
        values.push((format!("{{{}}}", parameter.name), parameter.values.value(rest % count)?));
        rest /= count;
    }
    let filled = args.iter().map(|arg| substitute(arg, &values));
    Some(filled.collect())
}

/// Replaces each `{name}` once, left to right, so that a value is never itself replaced.
fn substitute(arg: &str, values: &[(String, String)]) -> String {
    let mut filled = String::with_capacity(arg.len());
    let mut rest = arg;
    while let Some(brace) = rest.find('{') {
        filled.push_str(&rest[..brace]);
        rest = &rest[brace..];
        if let Some((name, value)) = values.iter().find(|(name, _)| rest.starts_with(name)) {
            filled.push_str(value);
            rest = &rest[name.len()..];
        } else {
            filled.push('{');
            rest = &rest[1..];
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::chunk_cid;
    use crate::job::SweepValues;

    fn range(name: &str, to: i64) -> SweepParameter {
        SweepParameter { name: name.into(), values: SweepValues::Range { from: 0, to, step: 1 } }
    }

    #[test]
    fn the_last_parameter_varies_fastest() {
        let parameters = [range("column", 1), range("row", 2)];
        let args = ["{column}:{row}".to_owned()];
        let all: Vec<String> =
            (0..6).filter_map(|i| fill(&args, &parameters, i)).flatten().collect();
        assert_eq!(all, ["0:0", "0:1", "0:2", "1:0", "1:1", "1:2"]);
    }

    #[test]
    fn values_are_not_replaced_again() {
        let values = [("{a}".to_owned(), "{b}".to_owned()), ("{b}".to_owned(), "x".to_owned())];
        assert_eq!(substitute("{a}{b}{c}{", &values), "{b}x{c}{");
    }

    #[test]
    fn files_are_grouped_without_gap_or_overlap() {
        let dataset = chunk_cid(b"dataset");
        let plan = Plan {
            job: chunk_cid(b"job"),
            args: vec![],
            work: Work::Files { dataset, files_per_unit: 3, files: 8 },
            units: 3,
        };
        let ranges: Vec<(u64, u32)> = (0..4)
            .filter_map(|index| plan.unit(index)?.inputs)
            .map(|inputs| (inputs.first, inputs.count))
            .collect();
        assert_eq!(ranges, [(0, 3), (3, 3), (6, 2)]);
    }

    #[test]
    fn work_unit_is_golden() {
        let unit = WorkUnit {
            v: 1,
            job: chunk_cid(b"job"),
            index: 7,
            args: vec!["tile".into()],
            inputs: Some(FileRange { dataset: chunk_cid(b"dataset"), first: 3, count: 2 }),
        };
        insta::assert_snapshot!(hex::encode(codec::encode(&unit)), @"a5617601636a6f62d82a58250001551e2063a2265e5c677a2d89fceda7adffcf95a8597d0927d2c1a27c00d89af997f9e66461726773816474696c6565696e6465780766696e70757473a365636f756e7402656669727374036764617461736574d82a58250001551e20768234e135e6d614eed901176cb657426fe97df3fe4236141e1b05312e843e25");
    }
}
