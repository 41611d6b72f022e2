//! Overlays as scenario files: `kind = "gossipsub"`, `"kademlia"` and `"swarm"`.

use toml::Table;

use crate::file::{self, FileError};
use crate::study::{Measure, Model, Run};

use super::report::Report;
use super::{gossip, kademlia, swarm};

/// Reads a scenario of gossipsub.
pub(crate) fn gossipsub(body: Table) -> Result<Box<dyn Model>, FileError> {
    let scenario: gossip::Scenario = file::read(body)?;
    scenario.check().map_err(|error| refusal("gossipsub", &error))?;
    Ok(Box::new(scenario))
}

/// Reads a scenario of Kademlia.
pub(crate) fn kademlia(body: Table) -> Result<Box<dyn Model>, FileError> {
    let scenario: kademlia::Scenario = file::read(body)?;
    scenario.check().map_err(|error| refusal("kademlia", &error))?;
    Ok(Box::new(scenario))
}

/// Reads a scenario of swarms.
pub(crate) fn swarm(body: Table) -> Result<Box<dyn Model>, FileError> {
    let scenario: swarm::Scenario = file::read(body)?;
    scenario.check().map_err(|error| refusal("swarm", &error))?;
    Ok(Box::new(scenario))
}

/// With its causes.
fn refusal(kind: &str, error: &dyn std::error::Error) -> FileError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    FileError::invalid(kind, reason)
}

impl From<Report> for Run {
    fn from(report: Report) -> Self {
        let Report { metrics, trace_hash, .. } = report;
        let number = |(name, value)| (name, Measure::Number(value));
        Self { trace_hash, measures: metrics.into_iter().map(number).collect(), problems: vec![] }
    }
}

impl Model for gossip::Scenario {
    fn run(&self, seed: u64) -> Run {
        gossip::run(self, seed).expect("it was checked when it was read").into()
    }

    fn explain(&self) -> Vec<(String, String)> {
        let line = |name: &str, text: String| (name.to_owned(), text);
        let router = &self.router;
        vec![
            line("nodes", format!("{}, each dials {}", self.nodes, self.dials)),
            line("links", format!("{:?}", self.latency)),
            line("router", format!("{:?}, rules of {:?}", router.version, router.rules)),
            line("mesh", format!("{} to {}, {} wanted", router.d_low, router.d_high, router.d)),
            line("heartbeat", format!("{:?}, history {}", router.heartbeat, router.history)),
            line("traffic", format!("{:?}", self.traffic)),
            line("churn", format!("{:?}", self.churn)),
        ]
    }
}

impl Model for kademlia::Scenario {
    fn run(&self, seed: u64) -> Run {
        kademlia::run(self, seed).expect("it was checked when it was read").into()
    }

    fn explain(&self) -> Vec<(String, String)> {
        let line = |name: &str, text: String| (name.to_owned(), text);
        let routing = &self.routing;
        vec![
            line("servers", format!("{} reachable, {} hidden", self.reachable, self.hidden)),
            line("colocated", format!("{:?}", self.colocated)),
            line("rules", format!("{:?}, k {}, alpha {}", routing.rules, routing.k, routing.alpha)),
            line("refresh", format!("each {:?}, grace {:?}", routing.refresh, routing.grace)),
            line("sessions", format!("{:?}", self.churn)),
            line("time", format!("{:?}, and a crawl of {:?}", self.duration, self.crawl)),
            line("lookups", format!("{:?}", self.lookups)),
        ]
    }
}

impl Model for swarm::Scenario {
    fn run(&self, seed: u64) -> Run {
        swarm::run(self, seed).expect("it was checked when it was read").into()
    }

    fn explain(&self) -> Vec<(String, String)> {
        let line = |name: &str, text: String| (name.to_owned(), text);
        let size = |bytes: u64| bytesize::ByteSize(bytes).display().iec().to_string();
        let swarm::Scenario { dataset, nodes, network, exchange, .. } = self;
        let mut lines = vec![line(
            "dataset",
            format!("{} in chunks of {}", size(dataset.bytes), size(dataset.chunk)),
        )];
        for (name, group) in nodes {
            let has = if group.holds { "have it" } else { "want it" };
            let text = format!(
                "{} that {has}, {}/s up, {}/s down, {:?}, {:?}",
                group.count,
                size(group.up),
                size(group.down),
                group.reach,
                group.behaviour
            );
            lines.push(line(&format!("nodes, {name}"), text));
        }
        lines.push(line("links", format!("{:?}", network.latency)));
        lines.push(line("lines are shared", format!("{:?}", network.sharing)));
        lines.push(line("hidden pairs that connect", network.punched.to_string()));
        lines.push(line("exchange", format!("{exchange:?}")));
        lines.push(line("ends", format!("after {:?}", self.until)));
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::file::Document;

    fn load(name: &str, settings: &[&str]) -> Document {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name);
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        Document::load(&path, &settings).unwrap()
    }

    #[test]
    fn every_cell_of_the_gallery_can_be_simulated() {
        for (name, cells) in [
            ("t4-gossipsub.toml", 6),
            ("t5-lean-gossip.toml", 4),
            ("t8-kademlia-buckets.toml", 1),
            ("t9-kademlia-hops.toml", 1),
            ("t11-network-models.toml", 8),
            ("swarm-of-eight.toml", 2),
            ("swarm-bound.toml", 8),
            ("swarm-hidden.toml", 12),
            ("swarm-poisoned.toml", 24),
        ] {
            let document = load(name, &[]);
            let all = document.cells().unwrap();
            assert_eq!(all.len(), cells, "{name}");
            for cell in &all {
                let lines = document.model(cell).unwrap().explain();
                assert!(lines.len() > 5, "{name}: {lines:?}");
            }
        }
    }

    /// A file says what `run` measures: every metric that it names is there.
    #[test]
    fn what_the_gallery_expects_is_measured() {
        let world = ["reachable=40", "hidden=5", "duration=\"10m\""];
        let heads = ["colocated.nodes=4", "colocated.networks=2"];
        let small = [&world[..], &heads, &["lookups.count=5"]].concat();
        for (name, settings) in [
            ("t4-gossipsub.toml", &["traffic.messages=2"][..]),
            ("t5-lean-gossip.toml", &["traffic.messages=2", "nodes=100", "traffic.sources=9"]),
            ("t8-kademlia-buckets.toml", &small[..5]),
            ("t9-kademlia-hops.toml", &small),
            ("t11-network-models.toml", &["dataset.bytes=\"2 MiB\""]),
            ("swarm-of-eight.toml", &["dataset.bytes=\"2 MiB\""]),
            ("swarm-bound.toml", &["dataset.bytes=\"2 MiB\""]),
            ("swarm-hidden.toml", &["dataset.bytes=\"2 MiB\""]),
            ("swarm-poisoned.toml", &["dataset.bytes=\"2 MiB\""]),
        ] {
            let document = load(name, settings);
            let cell = document.cells().unwrap().swap_remove(0);
            let measures = document.model(&cell).unwrap().run(1).measures;
            let expected = document.expectations.iter().map(|expectation| &expectation.metric);
            for metric in expected.chain(&document.columns) {
                assert!(measures.contains_key(metric), "{name}: {metric}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_cause() {
        let document = load("t4-gossipsub.toml", &["latency.low=\"9s\""]);
        let error = document.model(&document.cells().unwrap()[0]).err().unwrap().to_string();
        assert!(error.contains("the lowest latency is above the highest"), "{error}");
    }
}
