//! What a run says of itself.

use super::node::{Node, Story};
use super::scenario::{Behaviour, Group, Scenario};
use crate::moment::Moment;
use crate::overlay::report::{Report, mean, quantile};

/// The metrics of a run, whose nodes are of these groups.
pub(super) fn report(scenario: &Scenario, nodes: &[Node], groups: &[&Group]) -> Report {
    let mut report = Report::default();
    let size = scenario.dataset.bytes as f64;
    let copies = |bytes: u64| bytes as f64 / size;
    for (name, group) in &scenario.nodes {
        let of_group = || nodes.iter().zip(groups).filter(|(_, of)| std::ptr::eq(**of, group));
        let mut set = |metric: &str, value| report.set(&format!("{name}.{metric}"), value);
        let sent: u64 = of_group().map(|(node, _)| node.story.sent_bytes).sum();
        set("sent_copies", copies(sent));
        if group.holds {
            continue;
        }
        let mut took: Vec<f64> = of_group().filter_map(|(node, _)| took(&node.story)).collect();
        set("completed", took.len() as f64 / f64::from(group.count.max(1)));
        set("p50_s", quantile(&mut took, 0.5));
        set("p90_s", quantile(&mut took, 0.9));
        set("max_s", quantile(&mut took, 1.0));
    }
    let of = |holds: bool| {
        let all = nodes.iter().zip(groups);
        all.filter(move |(_, group)| group.holds == holds)
    };
    let stories: Vec<Story> = of(false).map(|(node, _)| node.story).collect();
    let each = |what: &dyn Fn(&Story) -> f64| stories.iter().map(what).collect::<Vec<f64>>();
    let seconds = |at: Moment| at.age().as_secs_f64();
    let done = stories.iter().filter_map(|story| story.done_at);
    let last = done.clone().max().map_or(0.0, seconds);
    let bound = bound(scenario);
    report.set("completed", done.count() as f64 / stories.len() as f64);
    report.set("last_s", last);
    report.set("bound_s", bound);
    report.set("over_bound", last / bound);
    let honest = of(true).filter(|(_, group)| group.behaviour == Behaviour::Honest);
    report.set("seeder_copies", copies(honest.map(|(node, _)| node.story.sent_bytes).sum()));
    report.set("received_copies", mean(&each(&|story| copies(story.received_bytes))));
    let mut sent = each(&|story| copies(story.sent_bytes));
    report.set("largest_sent_copies", quantile(&mut sent, 1.0));
    report.set("wrong_blocks", mean(&each(&|story| story.wrong as f64)));
    let sum = |what: &dyn Fn(&Story) -> u64| stories.iter().map(what).sum::<u64>() as f64;
    report.set("busy_per_block", sum(&|story| story.busy) / sum(&|story| story.stored).max(1.0));
    let named = of(false).flat_map(|(node, _)| &node.named);
    let blamed = named.clone().filter(|who| groups[**who as usize].behaviour == Behaviour::Honest);
    report.set("liars_named", named.count() as f64 / stories.len() as f64);
    report.set("honest_blamed", blamed.count() as f64);
    report
}

/// Seconds from coming to having everything.
fn took(story: &Story) -> Option<f64> {
    let (came, done) = (story.came_at?, story.done_at?);
    Some(done.age().saturating_sub(came.age()).as_secs_f64())
}

/// The least time in seconds, if nobody is late, leaves or lies.
fn bound(scenario: &Scenario) -> f64 {
    let size = scenario.dataset.bytes as f64;
    let groups = || scenario.nodes.values().filter(|group| group.count > 0);
    let up = |group: &Group| group.up as f64 * f64::from(group.count);
    let seeds: f64 =
        groups().filter(|group| group.holds && group.behaviour == Behaviour::Honest).map(up).sum();
    let getters = || groups().filter(|group| !group.holds);
    let n: f64 = getters().map(|group| f64::from(group.count)).sum();
    let slowest = getters().map(|group| group.down as f64).fold(f64::INFINITY, f64::min);
    let all: f64 = seeds + getters().map(up).sum::<f64>();
    (size / seeds).max(size / slowest).max(n * size / all)
}
