//! `dockercomp coordinator history`: a coordinator's past as a scenario for the simulator.

use std::path::Path;

use anyhow::Context;
use dockercomp_coordinator::history;
use dockercomp_simulations::history::{History, Past};
use serde::Serialize;

use super::coordinator::Where;
use crate::output::{self, Format};
use crate::paths::{Role, data_dir};

/// What was written.
#[derive(Serialize)]
struct Written {
    scenario: std::path::PathBuf,
    records: u64,
    seconds: f64,
    hosts: u32,
    jobs: usize,
    units: u64,
    /// What happened, by the names of the simulator's metrics.
    targets: std::collections::BTreeMap<&'static str, f64>,
}

/// Reads a journal and writes the scenario.
pub(super) async fn write(at: &Where, into: &Path, format: Format) -> anyhow::Result<()> {
    let dir = data_dir(at.data_dir.as_ref(), Role::Coordinator)?;
    let read = tokio::task::spawn_blocking(move || {
        let mut history = History::default();
        let records = history::read(&dir, &mut |record, wall| history.note(record, wall))?;
        Ok((history, records))
    });
    let (history, records) =
        read.await?.map_err(|error: history::HistoryError| super::start_failed(error))?;
    let past = history.finish()?;
    let written = Written::of(&past, records, into);
    let about = format!(
        "What a coordinator lived through, by {records} records of its journal. The targets are \
         what happened: run it unchanged to see how near the model comes, and with another \
         policy to see what would have been."
    );
    std::fs::write(into, past.table(&about).to_string())
        .with_context(|| format!("cannot write {}", into.display()))?;
    output::print(format, &written, Written::human);
    Ok(())
}

impl Written {
    fn of(past: &Past, records: u64, into: &Path) -> Self {
        let jobs = &past.scenario.jobs;
        Self {
            scenario: into.to_owned(),
            records,
            seconds: past.span.as_secs_f64(),
            hosts: past.scenario.hosts(),
            jobs: jobs.len(),
            units: jobs.iter().map(|job| job.units).sum(),
            targets: past.targets.iter().map(|target| (target.metric, target.value)).collect(),
        }
    }

    fn human(&self) -> String {
        let Self { scenario, records, seconds, hosts, jobs, units, targets } = self;
        let span = humantime::format_duration(std::time::Duration::from_secs(*seconds as u64));
        let targets: Vec<String> =
            targets.iter().map(|(metric, value)| format!("{metric} {value:.2}")).collect();
        format!(
            "journal    {records} records over {span}\nscenario   {hosts} hosts, {jobs} jobs, \
             {units} units\nhappened   {}\ntry        dockercomp sim run {} --set \
             jobs.j00.validation.policy=adaptive",
            targets.join(", "),
            scenario.display()
        )
    }
}
