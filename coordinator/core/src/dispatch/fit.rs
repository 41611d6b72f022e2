//! What keeps a node from a unit that waits for one: that it had it, who it belongs to, what it
//! runs on, where it is, or chance.

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::{NodeId, Timestamp};

use crate::Core;
use crate::chance::{Purpose, draw, falls_into};
use crate::identity::Identity;
use crate::job::{Job, JobNumber};
use crate::state::State;
use crate::unit::Unit;

/// Nodes among whom a random choice of auditors is worth its delay.
pub(crate) const CROWD: usize = 8;

/// Who asks, for which job, and what else is known.
pub(crate) struct Asking {
    pub(super) now: Timestamp,
    pub(super) job: JobNumber,
    pub(super) node: NodeId,
    /// Nodes that are there.
    n_present: usize,
    operator: Option<u32>,
    pub(super) executor: Option<ExecutorKind>,
    identity: Identity,
}

/// What keeps a node from a unit that waits for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// It does not wait any more.
    Decided,
    /// The node had a replica of it, whatever became of that.
    HadIt,
    /// Another node of the same operator had one.
    OperatorHadIt,
    /// The node has none of the executors that it needs.
    NoExecutor,
    /// It is committed to nodes of another platform or executor.
    OtherClass,
    /// A node of the same address range has it, and others are there to choose from.
    NearAnother,
    /// Chance has drawn others to audit it; the circle widens while it waits.
    NotDrawn,
}

impl Hindrance {
    /// Whether it holds as long as the unit waits.
    pub(crate) const fn is_lasting(self) -> bool {
        match self {
            Self::Decided | Self::HadIt | Self::OperatorHadIt | Self::NoExecutor => true,
            Self::OtherClass | Self::NearAnother | Self::NotDrawn => false,
        }
    }
}

/// Whether a node may have a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    NotNow,
    Never,
}

impl Core {
    pub(crate) fn asking(
        &self,
        now: Timestamp,
        job: JobNumber,
        node: NodeId,
        executors: &[ExecutorKind],
    ) -> Asking {
        let n_present = self.presence.visits.len();
        let identity = match self.presence.visits.get(&node) {
            Some(visit) => Identity::from(&visit.profile),
            None => self.state.identities.get(node).cloned().unwrap_or_default(),
        };
        let operator = identity.operator.as_deref();
        let operator = operator.and_then(|name| self.state.identities.number(name));
        let executor = self.state.job(job).executor_of(executors);
        Asking { now, job, node, n_present, operator, executor, identity }
    }
}

/// Whether a unit has waited so long that a second choice is good enough. Where few nodes are
/// there, there is no choice.
fn has_waited(who: &Asking, job: &Job, unit: &Unit) -> bool {
    let Some(place) = unit.place else { return true };
    who.n_present <= CROWD || who.now.since(place.since) >= job.terms.validation.delay_bound() / 8
}

impl State {
    pub(super) fn fit(&self, who: &Asking, index: u64) -> Fit {
        match self.hindrance(who, index) {
            None => Fit::Yes,
            Some(hindrance) if hindrance.is_lasting() => Fit::Never,
            Some(_) => Fit::NotNow,
        }
    }

    /// What keeps a node from a unit that waits, if anything does.
    pub(crate) fn hindrance(&self, who: &Asking, index: u64) -> Option<Hindrance> {
        let job = self.job(who.job);
        let Some(unit) = job.units.get(&index) else { return Some(Hindrance::Decided) };
        if unit.knows(who.node, None) {
            return Some(Hindrance::HadIt);
        }
        if unit.knows(who.node, who.operator) {
            return Some(Hindrance::OperatorHadIt);
        }
        let Some(executor) = who.executor else { return Some(Hindrance::NoExecutor) };
        if !self.is_of_class(job, unit, &who.identity.platform, executor) {
            return Some(Hindrance::OtherClass);
        }
        if self.is_near(unit, who.identity.range) && !has_waited(who, job, unit) {
            return Some(Hindrance::NearAnother);
        }
        if job.audited().is_some() && !self.may_audit(who, job, index, unit) {
            return Some(Hindrance::NotDrawn);
        }
        None
    }

    /// Whether chance makes a node the auditor of a result that waits for one. Else a group of
    /// colluders could ask for work whenever one of them has reported. The circle widens while
    /// the unit waits.
    fn may_audit(&self, who: &Asking, job: &Job, index: u64, unit: &Unit) -> bool {
        let Some(place) = unit.place else { return true };
        if who.n_present <= CROWD || unit.filed.is_none() {
            return true;
        }
        let step = (job.terms.validation.delay_bound_ms / 32).max(1);
        let widened =
            u32::try_from(who.now.since(place.since).as_millis() as u64 / step).unwrap_or(64);
        let circle = (CROWD as u64).checked_shl(widened).unwrap_or(u64::MAX);
        let drawn = draw(&job.seed, Purpose::Auditor, index, &who.node.to_bytes());
        falls_into(drawn, circle, who.n_present as u64)
    }
}
