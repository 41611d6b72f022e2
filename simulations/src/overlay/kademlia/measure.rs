//! What the tables and lookups of a run amount to.

use std::collections::BTreeSet;

use crate::overlay::report::{Report, mean, quantile};

use super::client::Provide;
use super::key::{Atlas, NodeId};
use super::table::Entry;
use super::world::Node;

/// Buckets whose means are reported one by one.
const BUCKETS: usize = 16;

/// The closest that a node should know, whatever its `k`.
const CLOSEST: usize = 20;

/// One node's table, as the crawler read it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) node: NodeId,
    pub(super) entries: Vec<Entry>,
}

/// Metrics of tables.
pub(super) fn tables(nodes: &[Node], readings: &[Reading], k: usize, report: &mut Report) {
    let read: BTreeSet<NodeId> = readings.iter().map(|reading| reading.node).collect();
    let mut discovered = read.clone();
    readings.iter().for_each(|r| discovered.extend(r.entries.iter().map(|entry| entry.node)));
    report.set("reachable", read.len() as f64);
    report.set("discovered", discovered.len() as f64);
    let mut all = [0u64; 64];
    let mut unreachable = [0u64; 64];
    let mut full = 0u64;
    for reading in readings {
        let own = nodes[reading.node as usize].key;
        let mut counts = [0usize; 64];
        for entry in &reading.entries {
            let bucket = own.bucket(entry.key).min(63);
            counts[bucket] += 1;
            all[bucket] += 1;
            unreachable[bucket] += u64::from(!read.contains(&entry.node));
        }
        full += counts[..9].iter().filter(|count| **count >= k).count() as u64;
    }
    let tables = (readings.len() as f64).max(1.0);
    let sum = |counts: &[u64]| counts.iter().sum::<u64>() as f64;
    report.set("entries_0_8", sum(&all[..9]) / 9.0 / tables);
    report.set("full_0_8", full as f64 / 9.0 / tables);
    for bucket in 0..BUCKETS {
        let reachable = all[bucket] - unreachable[bucket];
        report.set(&format!("bucket_{bucket}"), reachable as f64 / tables);
    }
    report.set("unreachable_0", sum(&unreachable[..1]) / sum(&all[..1]).max(1.0));
    report.set("unreachable_9_up", sum(&unreachable[9..]) / sum(&all[9..]).max(1.0));
    closest(nodes, readings, &read, report);
}

/// Whether nodes know those who are closest to them.
fn closest(nodes: &[Node], readings: &[Reading], read: &BTreeSet<NodeId>, report: &mut Report) {
    let atlas = Atlas::new(read.iter().map(|node| (nodes[*node as usize].key, *node)));
    let (mut first, mut last, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for reading in readings {
        let own = nodes[reading.node as usize].key;
        let near = atlas.closest(own, CLOSEST + 1);
        let near = &near[1..];
        let entries: BTreeSet<NodeId> = reading.entries.iter().map(|entry| entry.node).collect();
        known.push(near.iter().filter(|(_, node)| entries.contains(node)).count());
        first.extend(near.first().map(|(key, _)| own.bucket(*key) as f64));
        last.extend(near.last().map(|(key, _)| own.bucket(*key) as f64));
    }
    let share = |of: &dyn Fn(usize) -> bool| {
        known.iter().filter(|n| of(**n)).count() as f64 / (known.len() as f64).max(1.0)
    };
    let wanted = CLOSEST.min(atlas.len().saturating_sub(1));
    report.set("knows_20", share(&|n| n >= wanted));
    report.set("knows_under_18", share(&|n| n < 18));
    report.set("knows_under_5", share(&|n| n < 5));
    report.set("closest_bucket", mean(&first));
    report.set("closest_bucket_min", quantile(&mut first, 0.0));
    report.set("twentieth_bucket", mean(&last));
}

/// Metrics of lookups.
pub(super) fn lookups(provides: &[Provide], report: &mut Report) {
    let values = |of: &dyn Fn(&Provide) -> f64| provides.iter().map(of).collect::<Vec<f64>>();
    let share = |of: &dyn Fn(&Provide) -> bool| {
        provides.iter().filter(|p| of(p)).count() as f64 / (provides.len() as f64).max(1.0)
    };
    let mut hops = values(&|provide| f64::from(provide.hops));
    report.set("hops_p50", quantile(&mut hops, 0.5));
    report.set("hops_p90", quantile(&mut hops, 0.9));
    report.set("hops_max", quantile(&mut hops, 1.0));
    report.set("hops_up_to_4", share(&|provide| provide.hops <= 4));
    report.set("hops_up_to_6", share(&|provide| provide.hops <= 6));
    report.set("seen_up_to_3", share(&|provide| provide.seen <= 3));
    report.set("seen_up_to_4", share(&|provide| provide.seen <= 4));
    let mut holders = values(&|provide| f64::from(provide.holders));
    let mut took = values(&|provide| provide.took);
    for (percent, of) in [(5, 0.05), (25, 0.25), (50, 0.5), (75, 0.75), (90, 0.9)] {
        report.set(&format!("holders_p{percent:02}"), quantile(&mut holders, of));
        report.set(&format!("provide_p{percent:02}_s"), quantile(&mut took, of));
    }
    report.set("asked", mean(&values(&|provide| f64::from(provide.asked))));
    report.set("failed", mean(&values(&|provide| f64::from(provide.failed))));
    report.set("accuracy", mean(&values(&|provide| provide.accuracy)));
}
