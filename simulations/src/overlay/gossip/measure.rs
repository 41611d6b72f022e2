//! Counting what happens.

use crate::moment::Moment;
use crate::overlay::report::{Histogram, Report, mean, quantile};

use super::message::{Message, MessageId, NodeId};

/// Microseconds.
const BIN: u64 = 100_000;

/// The counters of one run.
#[derive(Debug)]
pub(super) struct Measure {
    /// When each message was published, and how many nodes were there.
    published: Vec<(Moment, u32)>,
    /// Which nodes have had each message, one bit a node: who returns hears some again.
    reached: Vec<Vec<u64>>,
    deliveries: u64,
    /// Publishers excluded, in seconds.
    latencies: Vec<f64>,
    hops: Vec<f64>,
    bins: Histogram,
    sent: [u64; 7],
}

impl Measure {
    pub(super) fn new() -> Self {
        Self {
            published: Vec::new(),
            reached: Vec::new(),
            deliveries: 0,
            latencies: Vec::new(),
            hops: Vec::new(),
            bins: Histogram::new(BIN as f64 / 1e6),
            sent: [0; 7],
        }
    }

    pub(super) fn published(&mut self, now: Moment, nodes_there: u32) {
        self.published.push((now, nodes_there));
        self.reached.push(Vec::new());
    }

    pub(super) fn sent(&mut self, message: &Message) {
        self.sent[usize::from(message.kind().0)] += 1;
    }

    pub(super) fn delivered(&mut self, now: Moment, node: NodeId, id: MessageId, hops: u8) {
        if !self.is_first(node, id) {
            return;
        }
        self.deliveries += 1;
        if hops > 0 {
            let micros = now.0 - self.published[id as usize].0.0;
            self.latencies.push(micros as f64 / 1e6);
            self.hops.push(f64::from(hops));
            // By whole numbers, so that 100 ms is not in the bin below.
            self.bins.add((micros / BIN) as f64 * self.bins.width + self.bins.width / 2.0);
        }
    }

    fn is_first(&mut self, node: NodeId, id: MessageId) -> bool {
        let (word, bit) = (node as usize / 64, 1 << (node % 64));
        let reached = &mut self.reached[id as usize];
        if reached.len() <= word {
            reached.resize(word + 1, 0);
        }
        let is_first = reached[word] & bit == 0;
        reached[word] |= bit;
        is_first
    }

    pub(super) fn report(mut self, nodes: u32, mesh_degree: f64, trace_hash: String) -> Report {
        let mut report = Report { trace_hash, ..Report::default() };
        let deliveries = self.deliveries as f64;
        report.set("deliveries", deliveries);
        for (kind, name) in
            ["copies", "ihave", "iwant", "graft", "prune", "connect"].into_iter().enumerate()
        {
            report.set(name, self.sent[kind + 1] as f64);
        }
        report.set("copies_per_delivery", self.sent[1] as f64 / deliveries.max(1.0));
        report.set("mesh_degree", mesh_degree);
        for bin in 0..4 {
            report.set(&format!("under_{}_ms", (bin + 1) * 100), self.bins.share(bin));
        }
        report.set("hops_mean", mean(&self.hops));
        report.set("hops_max", quantile(&mut self.hops, 1.0));
        report.set("latency_p50_s", quantile(&mut self.latencies, 0.5));
        report.set("latency_p99_s", quantile(&mut self.latencies, 0.99));
        report.set("latency_max_s", quantile(&mut self.latencies, 1.0));
        let there: u64 = self.published.iter().map(|(_, there)| u64::from(*there)).sum();
        let all = self.published.len() as f64 * f64::from(nodes);
        report.set("delivery_rate", deliveries / all.max(1.0));
        report.set("delivery_rate_of_present", deliveries / (there as f64).max(1.0));
        report.histograms.insert("latency_s".to_owned(), self.bins);
        report
    }
}
