//! Work units: how a job becomes pieces, one at a time.
//!
//! A [`Plan`] knows how many work units a job has and can make any one of them without
//! making the others, so a job of millions costs memory only for what is in flight.
//!
//! A unit of a later stage names the outputs that it works on by their CIDs. Which units they
//! are of follows from the job ([`Layout`]); what they are is known when those units have been
//! accepted, and the receipts of those units prove it ([`crate::receipt::check_whole`]).

use cid::Cid;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::job::{JobSpec, Stage, SweepParameter, Work};
use crate::layout::Layout;

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
    /// What is put into `/input`, if anything.
    pub inputs: Option<Inputs>,
}

/// What a work unit works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Inputs {
    /// Files of the job's dataset.
    Files(FileRange),
    /// The canonical outputs of units of the level before, in their order; each becomes a
    /// folder.
    Outputs(Vec<Cid>),
}

impl WorkUnit {
    /// The outputs that it works on; none for a unit of the first stage.
    #[must_use]
    pub fn outputs(&self) -> &[Cid] {
        match &self.inputs {
            Some(Inputs::Outputs(outputs)) => outputs,
            Some(Inputs::Files(_)) | None => &[],
        }
    }
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
    stages: Vec<Stage>,
    layout: Layout,
}

impl Plan {
    /// Plans a job whose id is `job` and whose specification was checked.
    #[must_use]
    pub fn new(job: Cid, spec: &JobSpec) -> Self {
        Self {
            job,
            args: spec.program.args.clone(),
            work: spec.work.clone(),
            stages: spec.stages.clone(),
            layout: spec.layout(),
        }
    }

    /// How many work units the job has, in all stages.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.layout.units()
    }

    /// Which units belong to which stage, and which take the outputs of which.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Work unit number `index` of the first stage, or nothing if that has fewer.
    #[must_use]
    pub fn unit(&self, index: u64) -> Option<WorkUnit> {
        if index >= self.layout.first_units() {
            return None;
        }
        let (args, inputs) = match &self.work {
            Work::Sweep(parameters) => (fill(&self.args, parameters, index)?, None),
            Work::Files { dataset, files_per_unit, files } => {
                let first = index * u64::from(*files_per_unit);
                let left = (files - first).min(u64::from(*files_per_unit));
                let count = u32::try_from(left).expect("at most files_per_unit");
                let range = FileRange { dataset: *dataset, first, count };
                (self.args.clone(), Some(Inputs::Files(range)))
            }
        };
        Some(WorkUnit { v: 1, job: self.job, index, args, inputs })
    }

    /// Work unit number `index`, which takes these outputs of others: none in the first stage,
    /// and in the others those of the units that [`Layout::inputs`] names, in their order.
    /// Nothing if there is no such unit, or if it takes another number of outputs.
    #[must_use]
    pub fn unit_of(&self, index: u64, outputs: &[Cid]) -> Option<WorkUnit> {
        if index < self.layout.first_units() {
            return if outputs.is_empty() { self.unit(index) } else { None };
        }
        let taken = self.layout.inputs(index);
        if index >= self.units() || taken.end - taken.start != outputs.len() as u64 {
            return None;
        }
        let stage = self.stages.get(self.layout.stage_of(index).checked_sub(1)?)?;
        let inputs = Some(Inputs::Outputs(outputs.to_vec()));
        Some(WorkUnit { v: 1, job: self.job, index, args: stage.args.clone(), inputs })
    }

    /// Whether a work unit is one of the job. Of the outputs that it works on, this says how
    /// many they are and whose; [`crate::receipt::check_whole`] says whether they are the canonical ones.
    #[must_use]
    pub fn has(&self, unit: &WorkUnit) -> bool {
        self.unit_of(unit.index, unit.outputs()).as_ref() == Some(unit)
    }

    /// The id of work unit number `index` of the first stage.
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
    use crate::job::{Gather, JobFile, SweepValues};
    use crate::time::Timestamp;

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

    fn plan(work: Work, stages: Vec<Stage>) -> Plan {
        let text = "version = 1\nname = \"j\"\n[program]\nmodule = \"file:m\"\n[sweep]\nx = [1]\n";
        let nobody = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".parse();
        let spec = JobFile::parse(text)
            .expect("a job file")
            .resolve(
                nobody.expect("a peer id"),
                Timestamp(1),
                None,
                Some(chunk_cid(b"module")),
                None,
            )
            .expect("a job");
        Plan::new(chunk_cid(b"job"), &JobSpec { work, stages, ..spec })
    }

    #[test]
    fn files_are_grouped_without_gap_or_overlap() {
        let dataset = chunk_cid(b"dataset");
        let plan = plan(Work::Files { dataset, files_per_unit: 3, files: 8 }, vec![]);
        let ranges: Vec<(u64, u32)> = (0..4)
            .filter_map(|index| plan.unit(index)?.inputs)
            .map(|inputs| match inputs {
                Inputs::Files(range) => (range.first, range.count),
                Inputs::Outputs(_) => panic!("a first stage takes no outputs"),
            })
            .collect();
        assert_eq!(ranges, [(0, 3), (3, 3), (6, 2)]);
    }

    fn sum() -> Stage {
        let gather = Gather::Tree { fan_in: 2 };
        Stage { name: "sum".into(), args: vec!["add".into()], gather }
    }

    /// Three units, then two that take (0 1) and (2), then one that takes both.
    #[test]
    fn later_units_follow_from_the_job_and_the_outputs() {
        let plan = plan(Work::Sweep(vec![range("x", 2)]), vec![sum()]);
        assert_eq!(plan.units(), 6);
        let [one, two] = [b"one", b"two"].map(|name| chunk_cid(name));
        let unit = plan.unit_of(3, &[one, two]).expect("a unit");
        assert_eq!((unit.index, unit.outputs()), (3, &[one, two][..]));
        assert_eq!(unit.args, ["add"]);
        assert!(plan.has(&unit));
        assert!(plan.has(&plan.unit_of(4, &[one]).expect("the last of an odd level")));
        assert!(plan.has(&plan.unit_of(5, &[two, one]).expect("the root")));

        for (index, outputs) in
            [(0, &[one][..]), (3, &[one]), (4, &[one, two]), (5, &[]), (6, &[one, two]), (6, &[])]
        {
            assert_eq!(plan.unit_of(index, outputs), None, "unit {index}");
        }
        let other = WorkUnit { args: vec!["rm".into()], ..unit };
        assert!(!plan.has(&other));
    }

    #[test]
    fn later_work_unit_is_golden() {
        let plan = plan(Work::Sweep(vec![range("x", 2)]), vec![sum()]);
        let unit = plan.unit_of(4, &[chunk_cid(b"output")]).expect("a unit");
        insta::assert_snapshot!(hex::encode(codec::encode(&unit)), @"a5617601636a6f62d82a58250001551e2063a2265e5c677a2d89fceda7adffcf95a8597d0927d2c1a27c00d89af997f9e66461726773816361646465696e6465780466696e70757473a1676f75747075747381d82a58250001551e2096e754fa8b2ab9d1f3f8f2d2bb4ec79a18016b212cf44f8fd2f7441e6e97a48b");
    }

    #[test]
    fn work_unit_is_golden() {
        let unit = WorkUnit {
            v: 1,
            job: chunk_cid(b"job"),
            index: 7,
            args: vec!["tile".into()],
            inputs: Some(Inputs::Files(FileRange {
                dataset: chunk_cid(b"dataset"),
                first: 3,
                count: 2,
            })),
        };
        insta::assert_snapshot!(hex::encode(codec::encode(&unit)), @"a5617601636a6f62d82a58250001551e2063a2265e5c677a2d89fceda7adffcf95a8597d0927d2c1a27c00d89af997f9e66461726773816474696c6565696e6465780766696e70757473a16566696c6573a365636f756e7402656669727374036764617461736574d82a58250001551e20768234e135e6d614eed901176cb657426fe97df3fe4236141e1b05312e843e25");
    }
}
