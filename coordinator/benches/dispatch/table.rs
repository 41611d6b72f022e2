//! What was measured: as a table for people, and as a list for programs.

use std::path::Path;

use serde_json::{Value, json};

const MIB: f64 = (1 << 20) as f64;

/// One job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) units: u64,
    pub(crate) agents: usize,
    pub(crate) quorum: u32,
    /// From submission to the end of the job.
    pub(crate) seconds: f64,
    /// CPU time of the coordinator, in seconds.
    pub(crate) coordinator_cpu: f64,
    /// CPU time of all agents, in seconds.
    pub(crate) agents_cpu: f64,
    /// The most memory of the coordinator, in bytes.
    pub(crate) peak: u64,
    /// The coordinator's data directory at the end, in bytes.
    pub(crate) disk: u64,
}

impl Row {
    fn rate(&self) -> f64 {
        self.units as f64 / self.seconds
    }
}

/// Everything that was measured so far; each line is printed when it is known.
#[derive(Default)]
pub(crate) struct Table {
    values: Vec<Value>,
    dask: Option<f64>,
    has_rows: bool,
}

impl Table {
    /// The core alone.
    pub(crate) fn core(&mut self, quorum: u32, rate: f64) {
        println!("core alone, one thread, quorum {quorum}: {rate:.0} units/s");
        self.push(format!("core alone, quorum {quorum}"), rate, "units/s", None);
    }

    /// Dask, by number of tasks.
    pub(crate) fn dask(&mut self, rates: &[(u64, f64)]) {
        for (tasks, rate) in rates {
            println!("Dask distributed, {tasks} empty tasks: {rate:.0} tasks/s");
            self.push(format!("Dask distributed, {tasks} empty tasks"), *rate, "tasks/s", None);
            self.dask = Some(self.dask.map_or(*rate, |best| best.max(*rate)));
        }
    }

    /// A job.
    pub(crate) fn row(&mut self, row: Row) {
        if !std::mem::replace(&mut self.has_rows, true) {
            println!(
                "\nvalidated: accepted in a synced batch, in the signed log, output stored\n\
                 sync: every batch (RocksDB write-ahead log, fdatasync); signatures: ed25519, one \
                 a report, checked\na single agent can only do quorum 1: a node has one vote\n\n\
                 {:>9} {:>6} {:>6} {:>8} {:>9} {:>11} {:>11} {:>9} {:>9}",
                "units",
                "agents",
                "quorum",
                "seconds",
                "units/s",
                "coord CPU",
                "agents CPU",
                "peak",
                "disk"
            );
        }
        let per_thousand = |seconds: f64| seconds * 1000.0 / row.units as f64;
        println!(
            "{:>9} {:>6} {:>6} {:>8.2} {:>9.0} {:>8.1} ms {:>8.1} ms {:>5.0} MiB {:>5.0} MiB",
            row.units,
            row.agents,
            row.quorum,
            row.seconds,
            row.rate(),
            1000.0 * per_thousand(row.coordinator_cpu),
            1000.0 * per_thousand(row.agents_cpu),
            row.peak as f64 / MIB,
            row.disk as f64 / MIB,
        );
        let name = |what: &str| {
            format!("{what}: {} units, {} agents, quorum {}", row.units, row.agents, row.quorum)
        };
        let dask = self.dask.map(|rate| ("Dask distributed, best", row.rate() / rate));
        self.push(name("validated"), row.rate(), "units/s", dask);
        let cpu = per_thousand(row.coordinator_cpu);
        self.push(name("coordinator CPU"), cpu, "s/1000 units", None);
        let cpu = per_thousand(row.agents_cpu);
        self.push(name("agents CPU"), cpu, "s/1000 units", None);
        self.push(name("coordinator peak memory"), row.peak as f64, "bytes", None);
    }

    /// A large job, submitted.
    pub(crate) fn submitted(&mut self, seconds: f64, bytes: u64) {
        let mib = bytes as f64 / MIB;
        println!("\n10,000,000 work units submitted in {seconds:.3} s, for {mib:.1} MiB of memory");
        self.push("submit 10,000,000 units".into(), seconds, "s", None);
        self.push("memory of 10,000,000 units waiting".into(), bytes as f64, "bytes", None);
    }

    /// Idle nodes.
    pub(crate) fn idle(&mut self, n: usize, bytes: u64, cpu: f64) {
        let mib = bytes as f64 / MIB;
        println!(
            "{n} idle nodes, each with its own identity and real TCP connection: {mib:.0} MiB, \
             {cpu:.2} s of CPU in a minute"
        );
        self.push(format!("memory of {n} idle nodes"), bytes as f64, "bytes", None);
        self.push(format!("CPU of {n} idle nodes"), cpu / 60.0, "cores", None);
    }

    /// Writes everything for programs.
    pub(crate) fn finish(self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(&self.values)?)?;
        println!("\nas JSON: {}", path.display());
        Ok(())
    }

    fn push(&mut self, name: String, value: f64, unit: &str, against: Option<(&str, f64)>) {
        let (against, ratio) = against.unzip();
        self.values.push(json!({
            "name": name, "value": value, "unit": unit, "against": against, "ratio": ratio,
        }));
    }
}
