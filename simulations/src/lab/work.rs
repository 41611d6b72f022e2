//! What hosts have to do: the job file, and which outputs are right.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dockercomp_processes::installed;
use toml::{Table, Value};

use super::error::LabError;
use crate::file::write::validation;
use crate::jobs::UnitId;
use crate::scenario::JobPlan;
use crate::weather;

/// Memory that a unit may use; hosts offer as much for each core.
pub(super) const MEMORY_MIB: u64 = 32;
/// The program, as a static binary and as a module: it waits as long as its argument says.
const BINARY: &str = "examples/wait/build/wait";
const MODULE: &str = "examples/wait/build/wait.wasm";
/// What the program leaves.
const OUTPUT: &str = "unit.txt";

/// The program that all units run.
#[derive(Debug)]
pub(super) struct Program {
    binary: PathBuf,
    module: PathBuf,
}

impl Program {
    pub(super) fn find() -> Result<Self, LabError> {
        let find = |path| {
            let found = installed(path).and_then(|found| std::path::absolute(found).ok());
            found.ok_or(LabError::NoProgram { path })
        };
        Ok(Self { binary: find(BINARY)?, module: find(MODULE)? })
    }

    /// Writes the job file of a job into `dir`.
    pub(super) fn job_file(
        &self,
        seed: u64,
        job: u32,
        plan: &JobPlan,
        dir: &Path,
    ) -> Result<PathBuf, LabError> {
        let path = dir.join(format!("job-{job}.toml"));
        let text = self.job(seed, job, plan).to_string();
        std::fs::write(&path, text).map_err(LabError::file(&path))?;
        Ok(path)
    }

    fn job(&self, seed: u64, job: u32, plan: &JobPlan) -> Table {
        let reference = |path: &Path| Value::from(format!("file:{}", path.display()));
        // A time that is the same for all is drawn as well: the plan has seen to it.
        let time = |index| weather::run_time(seed, UnitId { job, index }, &plan.run);
        let argument = |index: u64| Value::from(format!("{index}:{}", time(index).as_millis()));
        let mut program = Table::new();
        program.insert("image".into(), reference(&self.binary));
        program.insert("module".into(), reference(&self.module));
        program.insert("args".into(), Value::from(vec!["{unit}"]));
        let mut sweep = Table::new();
        sweep.insert("unit".into(), Value::Array((0..plan.units).map(argument).collect()));
        let mut resources = Table::new();
        resources.insert("cpus".into(), Value::from(1.0));
        resources.insert("memory".into(), Value::from(format!("{MEMORY_MIB} MiB")));
        resources.insert("tmp".into(), Value::from("1 MiB"));
        resources.insert("output".into(), Value::from("1 MiB"));
        resources.insert("pids".into(), Value::from(4));
        let wall_time = format!("{}ms", plan.validation.delay_bound_ms);
        resources.insert("wall_time".into(), Value::from(wall_time));
        let mut file = Table::new();
        file.insert("version".into(), Value::from(1));
        file.insert("name".into(), Value::from(format!("job {job}")));
        file.insert("program".into(), Value::Table(program));
        file.insert("sweep".into(), Value::Table(sweep));
        file.insert("resources".into(), Value::Table(resources));
        file.insert("validation".into(), validation(&plan.validation));
        file
    }

    /// How many of the outputs that were fetched into `dir` are not what the program gives here,
    /// where nobody lies.
    pub(super) async fn count_wrong(
        &self,
        units: u64,
        dir: &Path,
        scratch: &Path,
    ) -> Result<u64, LabError> {
        let mut wrong = 0;
        for unit in 0..units {
            let ran = dockercomp_processes::command(&self.binary)
                .arg(format!("{unit}:0"))
                .arg("--into")
                .arg(scratch)
                .stdin(Stdio::null())
                .status()
                .await?;
            let right = scratch.join(OUTPUT);
            let right = std::fs::read(&right).map_err(LabError::file(&right))?;
            let path = dir.join(format!("units/{unit:08}")).join(OUTPUT);
            let given = std::fs::read(&path).map_err(LabError::file(&path))?;
            wrong += u64::from(!ran.success() || given != right);
        }
        Ok(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dockercomp_protocol::job::JobFile;

    /// What is written is a job file, and its rules are the scenario's.
    #[test]
    fn the_job_file_is_one() {
        let program = Program { binary: "/bin/wait".into(), module: "/lib/wait.wasm".into() };
        let plan = JobPlan::new(3);
        let text = program.job(1, 0, &plan).to_string();
        let file = JobFile::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let owner = dockercomp_protocol::NodeId::from_bytes(b"\0\x05owner").expect("an id");
        let cid = dockercomp_protocol::content::block_cid(b"program");
        let now = dockercomp_protocol::Timestamp(0);
        let spec = file.resolve(owner, now, Some(cid), Some(cid), None).expect("a job");
        assert_eq!(spec.validation, plan.validation);
        assert_eq!(spec.limits.wall_ms, plan.validation.delay_bound_ms);
        assert_eq!(spec.limits.cpu_millis, 1000);
        for index in 0..3 {
            let time = weather::run_time(1, UnitId { job: 0, index }, &plan.run).as_millis();
            assert!(text.contains(&format!("\"{index}:{time}\"")), "{text}");
        }
    }
}
