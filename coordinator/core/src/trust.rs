//! Whom the core trusts how far, kept from the records of results.
//!
//! [`Standing`](crate::standing::Standing) says what one node is worth. Here is kept which
//! undecided units hang on it, so that they are looked at again when that changes: when a node
//! is caught, what it gave before and nobody has confirmed is taken back at once.

use std::collections::{BTreeMap, BTreeSet};

use dockercomp_protocol::execution::ExecutorKind;
use dockercomp_protocol::job::Policy;
use dockercomp_protocol::{Cid, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::job::Job;
use crate::lots::{Held, LotKey};
use crate::quota::Quota;
use crate::record::Silence;
use crate::replica::{Replica, ReplicaState, ValidateState};
use crate::standing::{Ending, Standing};
use crate::state::State;
use crate::unit::{Unit, UnitKey};

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trust {
    #[serde(with = "crate::snapshot::pairs")]
    pub(crate) standings: BTreeMap<ExecutorKind, Standing>,
    /// Undecided units that it gave a success of, in jobs that weigh nodes.
    pub(crate) pending: BTreeSet<UnitKey>,
    /// How much work it may have.
    pub(crate) quota: Quota,
    /// What its valid results were worth, in millionths of a Cobblestone.
    pub(crate) credit: u64,
    /// Whether it begins like a node that was caught.
    pub(crate) is_doubtful: bool,
}

impl Trust {
    /// The standing with an executor.
    pub(crate) fn standing(&self, executor: ExecutorKind) -> Standing {
        let known = self.standings.get(&executor).cloned();
        known.unwrap_or_else(|| Standing::of_stranger(self.is_doubtful))
    }
}

/// What is to be looked at again before the event is over. Empty between events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    pub(crate) units: BTreeSet<UnitKey>,
    pub(crate) lots: BTreeSet<LotKey>,
}

impl Dirty {
    pub(crate) fn clear(&mut self) {
        self.units.clear();
        self.lots.clear();
    }
}

/// A success that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vote {
    pub(crate) node: NodeId,
    pub(crate) executor: ExecutorKind,
    pub(crate) output: Cid,
}

impl Job {
    /// Whether it matters which node a result is from.
    pub(crate) const fn weighs(&self) -> bool {
        match self.terms.validation.policy {
            Policy::Fixed | Policy::Adaptive(_) => false,
            Policy::Credibility(_) | Policy::Audited(_) => true,
        }
    }

    /// Results that must agree before one of a held lot is confirmed.
    pub(crate) fn audit_quorum(&self) -> u32 {
        self.terms.validation.min_quorum.max(2)
    }
}

impl ReplicaState {
    /// What a replica that came to this state says of its node, if it says anything.
    fn ending(&self, is_replicated: bool) -> Option<Ending> {
        match self {
            Self::Success { validate: ValidateState::Valid, .. } => {
                Some(Ending::Valid { is_replicated })
            }
            Self::Success { validate: ValidateState::Invalid, .. } => Some(Ending::Invalid),
            Self::ClientError { .. } | Self::ValidateError => Some(Ending::Error),
            Self::Silent(Silence::NoReply) => Some(Ending::Late),
            Self::InProgress { .. } | Self::Silent(_) | Self::Success { .. } => None,
        }
    }

    /// Whether it is a success of an undecided unit.
    const fn is_pending(&self) -> bool {
        matches!(
            self,
            Self::Success { validate: ValidateState::Init | ValidateState::Inconclusive, .. }
        )
    }
}

impl State {
    /// The standing of a node with an executor.
    pub(crate) fn standing_of(&self, node: NodeId, executor: ExecutorKind) -> Standing {
        self.trust.get(&node).map_or_else(Standing::default, |trust| trust.standing(executor))
    }

    /// Whether what a replica brought counts.
    pub(crate) fn counts(&self, replica: &Replica) -> bool {
        self.standing_of(replica.node, replica.executor).counts(replica.id)
    }

    /// The successes of a unit that count, in the order of their leases.
    pub(crate) fn votes(&self, unit: &Unit) -> Vec<Vote> {
        let replicas = unit.replicas.iter().filter(|replica| self.counts(replica));
        replicas
            .filter_map(|replica| {
                let output = unit.class_of(replica.state.output()?);
                Some(Vote { node: replica.node, executor: replica.executor, output })
            })
            .collect()
    }

    /// Keeps the trust in a node when one of its replicas came to another state.
    pub(crate) fn note_ending(&mut self, at: Timestamp, key: UnitKey, replica: &Replica) {
        let job = self.job(key.job);
        let weighs = job.weighs();
        let is_replicated = self.unit(key).is_some_and(|unit| unit.holders().len() > 1);
        let ending = replica.state.ending(is_replicated);
        // Where results differ by themselves, one that differs is nobody's fault.
        let ending = ending.filter(|&end| end != Ending::Invalid || !job.is_nondeterministic());
        if weighs {
            let pending = &mut self.trust.entry(replica.node).or_default().pending;
            if replica.state.is_pending() {
                pending.insert(key);
            } else {
                pending.remove(&key);
            }
        }
        if let Some(ending) = ending {
            self.note_standing(at, replica.node, replica.executor, ending);
        }
    }

    /// Takes what ties a node to others.
    pub(crate) fn learn(&mut self, at: Timestamp, node: NodeId, identity: &Identity) {
        let is_doubtful = self.identities.learn(at, node, identity);
        self.trust.entry(node).or_default().is_doubtful |= is_doubtful;
    }

    /// Grants credit for a unit that was just accepted.
    pub(crate) fn grant_credit(&mut self, key: UnitKey) {
        let job = self.job(key.job);
        let Some(unit) = self.unit(key) else { return };
        let credit = job.grant(unit);
        let valid = unit.replicas.iter().filter(|replica| replica.state.is_valid());
        let nodes: Vec<NodeId> = valid.map(|replica| replica.node).collect();
        for node in nodes {
            self.credit(key, node, credit);
        }
    }

    /// Grants credit for a valid result that came after its unit was accepted: what the others
    /// got, or what it claims itself, if that is less.
    pub(crate) fn grant_late(&mut self, key: UnitKey, id: dockercomp_protocol::ReplicaId) {
        let Some(unit) = self.unit(key).filter(|unit| unit.target().is_none()) else { return };
        let Some(replica) = unit.replica(id).filter(|replica| replica.state.is_valid()) else {
            return;
        };
        let (node, credit) = (replica.node, self.job(key.job).grant(unit));
        self.credit(key, node, credit);
    }

    fn credit(&mut self, key: UnitKey, node: NodeId, credit: u64) {
        let trust = self.trust.entry(node).or_default();
        trust.credit = trust.credit.saturating_add(credit);
        let job = self.job_mut(key.job);
        job.credit = job.credit.saturating_add(credit);
    }

    /// Counts a lease for the node's account in its job.
    pub(crate) fn note_lease(&mut self, key: UnitKey, node: NodeId) {
        if self.job(key.job).audited().is_none() {
            return;
        }
        self.lots.accounts.entry((key.job, node)).or_default().in_hand += 1;
        if !self.job(key.job).has_new() {
            // Whoever has nothing in hand gives nothing more: its lot is complete.
            self.dirty.lots.extend(self.lots.open_of(key.job));
        }
    }

    pub(crate) fn note_lease_over(&mut self, key: UnitKey, node: NodeId) {
        if self.job(key.job).audited().is_none() {
            return;
        }
        let account = self.lots.accounts.entry((key.job, node)).or_default();
        account.in_hand -= 1;
        if account.in_hand == 0 {
            self.dirty.lots.insert(LotKey { job: key.job, node, number: account.open });
        }
    }

    /// A unit was decided: lots that waited for it may go on.
    pub(crate) fn note_decision(&mut self, key: UnitKey) {
        if self.job(key.job).audited().is_none() {
            return;
        }
        let Some(unit) = self.unit(key) else { return };
        let lots = unit.replicas.iter().flat_map(|replica| self.lots.of(key.job, replica.node));
        let lots: Vec<LotKey> = lots.collect();
        self.dirty.lots.extend(lots);
    }

    /// Takes the end of a result into a standing.
    pub(crate) fn note_standing(
        &mut self,
        at: Timestamp,
        node: NodeId,
        executor: ExecutorKind,
        ending: Ending,
    ) {
        let next = dockercomp_protocol::ReplicaId(self.next_replica);
        let trust = self.trust.entry(node).or_default();
        match ending {
            Ending::Valid { .. } | Ending::CheckPassed => trust.quota.note_good(),
            Ending::Invalid | Ending::CheckFailed | Ending::Error | Ending::Late => {
                trust.quota.note_bad();
            }
        }
        let is_doubtful = trust.is_doubtful;
        let standing =
            trust.standings.entry(executor).or_insert_with(|| Standing::of_stranger(is_doubtful));
        let is_caught = standing.note(ending, at, next);
        let changes_votes = is_caught || ending == Ending::CheckPassed;
        if is_caught {
            self.identities.note_caught(node);
        }
        if changes_votes {
            let trust = self.trust.entry(node).or_default();
            let pending: Vec<UnitKey> = trust.pending.iter().copied().collect();
            for key in pending {
                self.refile(at, key);
                self.dirty.units.insert(key);
            }
        }
    }

    /// In whose lot a unit belongs, and why it waits there.
    pub(crate) fn filing(&self, key: UnitKey, unit: &Unit) -> Option<(NodeId, Held)> {
        let target = unit.target()?;
        let job = self.job(key.job);
        if !job.is_running() {
            return None;
        }
        let votes = self.votes(unit);
        let first = votes.first()?;
        let held = if votes.iter().any(|vote| vote.output != first.output) {
            Held::Disputed
        } else if votes.len() >= self.agreeing_wanted(key, unit, first.node) as usize {
            Held::Confirmed
        } else if target > unit.census().successes() {
            Held::Sampled
        } else {
            Held::Plain
        };
        Some((first.node, held))
    }

    /// Results that must agree before one of a node that is held is confirmed.
    pub(crate) fn agreeing_wanted(&self, key: UnitKey, unit: &Unit, node: NodeId) -> u32 {
        let lot = unit.filed.as_deref().filter(|lot| lot.node == node);
        let demand = lot.and_then(|lot| self.lots.lots.get(lot)?.demand);
        demand.map_or(self.job(key.job).audit_quorum(), |demand| demand.agreeing)
    }

    /// Whether what a node gave is in dispute in some other unit of a job.
    pub(crate) fn is_in_dispute(&self, node: NodeId, job: crate::job::JobNumber) -> bool {
        let Some(trust) = self.trust.get(&node) else { return false };
        let in_job = trust.pending.iter().filter(|key| key.job == job);
        in_job.filter_map(|&key| Some((key, self.unit(key)?))).any(|(key, unit)| {
            self.filing(key, unit).is_some_and(|(_, held)| held == Held::Disputed)
                && self.votes(unit).iter().any(|vote| vote.node == node)
        })
    }
}
