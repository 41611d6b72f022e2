//! Why something does not happen, for people.

use dockercomp_coordinator::api::types::{NodeExplained, UnitExplained};
use dockercomp_node::api::{NodeExplained as OwnExplained, ProjectExplained};
use dockercomp_peer::api::{JobReasonsInfo, NodeReasons, ReasonInfo};

use crate::output;

/// A work unit, for its job's owner.
pub(super) fn unit(explained: &UnitExplained) -> String {
    let mut text = format!(
        "job        {} ({})\nwork unit  {}\nstate      {}\n",
        explained.job,
        explained.name,
        explained.unit,
        explained.state.replace('_', " "),
    );
    if let Some(output) = &explained.output {
        text += &format!("output     {output}\n");
    }
    text += &format!("\n{}\n", explained.text);
    for group in &explained.summary {
        text += &format!("  {}\n", group.text);
    }
    if explained.summary.is_empty() && explained.state == "waiting" {
        text += "  no node is there\n";
    }
    if !explained.replicas.is_empty() {
        let rows = explained.replicas.iter().map(|replica| {
            vec![replica.node.clone(), replica.executor.clone(), replica.text.clone()]
        });
        text += &format!("\n{}\n", output::table(&["NODE", "EXECUTOR", "WHAT BECAME OF IT"], rows));
    }
    if let Some(tail) = &explained.log_tail {
        text += "\nthe last failing replica printed\n";
        for line in tail.lines() {
            text += &format!("  | {line}\n");
        }
    }
    text
}

/// A node, for its coordinator's operator.
pub(super) fn node(explained: &NodeExplained) -> String {
    let mut text = format!("node       {}\n", explained.node);
    text += &format!("work       {} replicas leased to it\n\n", explained.running);
    text + &reasons(&explained.reasons)
}

/// A node, for its own operator.
pub(super) fn own(explained: &OwnExplained) -> String {
    let tasks = &explained.tasks;
    let mut text = format!(
        "node       {}\nwork       {} fetching, {} ready, {} running\n",
        explained.node, tasks.fetching, tasks.ready, tasks.running,
    );
    for ReasonInfo { text: why, .. } in &explained.here {
        text += &format!("here: {why}\n");
    }
    for ProjectExplained { info, here, there } in &explained.projects {
        text += &format!(
            "\nproject    {} {}\nstate      {}\ncoordinator {}\n\n",
            info.project,
            info.name.as_deref().unwrap_or_default(),
            info.text,
            info.coordinator.as_deref().unwrap_or("not reached yet"),
        );
        for ReasonInfo { text: why, .. } in here {
            text += &format!("here: {why}\n");
        }
        if let Some(there) = there {
            text += &reasons(there);
        }
    }
    text
}

fn reasons(all: &NodeReasons) -> String {
    let mut text = String::new();
    for ReasonInfo { text: why, .. } in &all.reasons {
        text += &format!("{why}\n");
    }
    for JobReasonsInfo { job, name, reasons } in &all.jobs {
        text += &format!("job {job} ({name})\n");
        if reasons.is_empty() {
            text += "  it can have work of this job\n";
        }
        for ReasonInfo { text: why, .. } in reasons {
            text += &format!("  {why}\n");
        }
    }
    if all.more_jobs > 0 {
        text += &format!("and {} more jobs\n", all.more_jobs);
    }
    for words in &all.standing {
        text += &format!("\n{words}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_a_node_is_printed() {
        let why = |text: &str| vec![ReasonInfo::new("why", text)];
        let of_job = |reasons| JobReasonsInfo { job: "bafy".into(), name: "tiles".into(), reasons };
        let text = reasons(&NodeReasons {
            reasons: why("first"),
            jobs: vec![of_job(why("second")), of_job(vec![])],
            more_jobs: 2,
            quota_per_day: None,
            quota_left: None,
            standing: vec!["third".into()],
        });
        let expected = "first\njob bafy (tiles)\n  second\njob bafy (tiles)\n  it can have work \
                        of this job\nand 2 more jobs\n\nthird\n";
        assert_eq!(text, expected);
    }
}
