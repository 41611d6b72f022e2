//! Why this node has nothing to do: what it knows itself, and what its coordinator says.

use std::time::Duration;

use dockercomp_peer::api::{NodeReasons, ReasonInfo, VolumeStatus};
use dockercomp_protocol::wire::work::{Capacity, Request, Response};

use crate::session::{Handle as Session, NoAnswer};

/// How long the coordinator may take to answer a person's question.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a node knows of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    /// Projects that it is attached to.
    pub(crate) n_projects: usize,
    /// Whether it has been asked to stop.
    pub(crate) is_stopping: bool,
    /// What work may use.
    pub(crate) offer: Capacity,
    /// Bytes of data held.
    pub(crate) used_bytes: u64,
    /// What passed in this month, if that is limited.
    pub(crate) volume: Option<&'a VolumeStatus>,
}

/// What a node knows of itself and one project.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfProject<'a> {
    /// The coordinator, once it was reached.
    pub(crate) coordinator: Option<&'a str>,
    /// Peers that the node is connected to.
    pub(crate) n_peers: usize,
    /// Why work does not go on, if it does not.
    pub(crate) trouble: Option<&'a str>,
    /// Whether the volunteer leaves the project.
    pub(crate) is_leaving: bool,
}

/// What the coordinator said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Why the node gets nothing.
    Reasons(Box<NodeReasons>),
    /// Something else: it is of an older version.
    Other,
    /// Nothing.
    Nothing,
}

/// Asks the coordinator why it gives this node nothing.
pub(crate) async fn ask(session: &Session) -> Said {
    match tokio::time::timeout(PATIENCE, session.ask(Request::Explain)).await {
        Ok(Ok(Response::Explained(explanation))) => {
            Said::Reasons(Box::new(NodeReasons::from(&explanation)))
        }
        Ok(Ok(_)) => Said::Other,
        Ok(Err(NoAnswer)) | Err(_) => Said::Nothing,
    }
}

/// Every reason on this side why there is nothing to do for one project, the most general
/// first.
pub(crate) fn reasons_of_project(own: &OfProject<'_>, said: &Said) -> Vec<ReasonInfo> {
    let mut reasons = Vec::new();
    let mut add = |name: &str, text: String| reasons.push(ReasonInfo::new(name, text));
    if own.is_leaving {
        add("leaving", "the node leaves the project and asks it for nothing".to_owned());
    }
    match (said, own.coordinator) {
        (Said::Nothing, None) if own.n_peers == 0 => add(
            "no_network",
            "no coordinator was found: the node is connected to nobody, not even to the \
             bootstrap nodes of its join link"
                .to_owned(),
        ),
        (Said::Nothing, None) => add(
            "no_coordinator",
            format!(
                "no coordinator of the project was found yet, though {} peers are reached: it \
                 does not run, or this node cannot reach it",
                own.n_peers
            ),
        ),
        (Said::Nothing, Some(coordinator)) => add(
            "coordinator_lost",
            format!("the coordinator {coordinator} does not answer; the node looks for it again"),
        ),
        (Said::Other, _) => add(
            "not_told",
            "the coordinator is of an older version and does not say why".to_owned(),
        ),
        (Said::Reasons(_), _) => {}
    }
    if let Some(trouble) = own.trouble {
        add("trouble", format!("work does not go on: {trouble}"));
    }
    reasons
}

/// Every reason on this side why there is nothing to do for any project, the most general
/// first.
pub(crate) fn reasons(own: &Own<'_>) -> Vec<ReasonInfo> {
    let mut reasons = Vec::new();
    let mut add = |name: &str, text: String| reasons.push(ReasonInfo::new(name, text));
    if own.is_stopping {
        add("stopping", "the node is stopping".to_owned());
    }
    if own.n_projects == 0 {
        let text = "the node is attached to no project; dockercomp node attach LINK adds one";
        add("no_projects", text.to_owned());
    }
    let Capacity { cpu_millis, memory_bytes, disk_bytes } = own.offer;
    for (name, what, is_offered) in [
        ("no_cpu", "cores", cpu_millis > 0),
        ("no_memory", "memory", memory_bytes > 0),
        ("no_disk", "disk", disk_bytes > 0),
    ] {
        if !is_offered {
            add(name, format!("the node offers no {what}"));
        }
    }
    if disk_bytes > 0 && own.used_bytes >= disk_bytes {
        add("disk_full", "the data that the node holds takes all the disk it offers".to_owned());
    }
    if let Some(volume) = own.volume.filter(|volume| volume.is_used_up()) {
        let VolumeStatus { month, limit_bytes, .. } = volume;
        add(
            "volume_used_up",
            format!(
                "the {limit_bytes} bytes of data that may pass in {month} (UTC) have passed: \
                 no data is fetched or served until the month ends, unless --monthly-volume \
                 allows more"
            ),
        );
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: OfProject<'static> =
        OfProject { coordinator: Some("12D3"), n_peers: 3, trouble: None, is_leaving: false };

    fn names(reasons: Vec<ReasonInfo>) -> Vec<String> {
        reasons.into_iter().map(|reason| reason.reason).collect()
    }

    fn reasons_of_coordinator() -> Said {
        Said::Reasons(Box::new(NodeReasons::from(&Default::default())))
    }

    #[test]
    fn a_node_that_is_fine_leaves_it_to_the_coordinator_to_say_why() {
        assert_eq!(names(reasons_of_project(&FINE, &reasons_of_coordinator())), [""; 0]);
        let offer = Capacity { cpu_millis: 1, memory_bytes: 1, disk_bytes: 2 };
        let own = Own { n_projects: 1, is_stopping: false, offer, used_bytes: 1, volume: None };
        assert_eq!(names(reasons(&own)), [""; 0]);
    }

    #[test]
    fn who_cannot_be_reached_is_told_apart() {
        let told = |own: &OfProject<'_>, said| names(reasons_of_project(own, said));
        let lost = Said::Nothing;
        assert_eq!(told(&FINE, &lost), ["coordinator_lost"]);
        let never = OfProject { coordinator: None, ..FINE };
        assert_eq!(told(&never, &lost), ["no_coordinator"]);
        assert_eq!(told(&OfProject { n_peers: 0, ..never }, &lost), ["no_network"]);
        assert_eq!(told(&FINE, &Said::Other), ["not_told"]);
    }

    #[test]
    fn every_local_reason_is_named() {
        let of_project = OfProject { trouble: Some("the store is full"), is_leaving: true, ..FINE };
        let told = reasons_of_project(&of_project, &reasons_of_coordinator());
        assert_eq!(names(told), ["leaving", "trouble"]);
        let volume = VolumeStatus { month: "2026-11".into(), used_bytes: 7, limit_bytes: 7 };
        let own = Own {
            n_projects: 0,
            is_stopping: true,
            offer: Capacity { cpu_millis: 0, memory_bytes: 0, disk_bytes: 1 },
            used_bytes: 1,
            volume: Some(&volume),
        };
        let expected =
            ["stopping", "no_projects", "no_cpu", "no_memory", "disk_full", "volume_used_up"];
        assert_eq!(names(reasons(&own)), expected);
    }
}
