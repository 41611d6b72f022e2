//! Outputs that are the same although their bytes differ.
//!
//! The core cannot see bytes. When the results of a unit are not all equal and its job asks for
//! more than equality, the shell is asked to compare ([`Action::Compare`]) and answers with
//! classes ([`Event::Compared`](crate::Event::Compared)); until then the unit waits. From then
//! on one output stands for all of its class, the one that was leased first, and every policy
//! counts classes as it counts outputs.
//!
//! An output that is in no class could not be fetched or read: its result is a
//! [`ValidateError`](crate::replica::ReplicaState::ValidateError). A result that comes after the
//! decision and differs in its bytes is not judged at all.
//!
//! # Programs that are not deterministic
//!
//! When three results of a unit fall into three classes, no saboteur is needed to explain it.
//! With [`SCATTERED_MIN`] such units, and more than one for every [`DONE_PER_SCATTERED`] that are
//! accepted, the job is said to be non-deterministic, and its results lower nobody's standing
//! any more.

use std::collections::{BTreeMap, BTreeSet};

use dockercomp_protocol::job::Comparison;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Core;
use crate::action::Action;
use crate::job::Job;
use crate::record::Record;
use crate::replica::ReplicaState;
use crate::state::{ApplyError, Effects, State};
use crate::unit::{Stage, Unit, UnitKey};

/// Units with three different results before a job is called non-deterministic.
const SCATTERED_MIN: u64 = 3;
/// Accepted units that speak against one such unit.
const DONE_PER_SCATTERED: u64 = 20;

/// What the shell found about the outputs of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Classes {
    /// The output that stands for another.
    #[serde(with = "crate::snapshot::pairs")]
    stands: BTreeMap<Cid, Cid>,
    /// Replicas that were compared.
    seen: BTreeSet<ReplicaId>,
}

impl Job {
    /// Whether equality is not the last word.
    pub(crate) const fn compares(&self) -> bool {
        !matches!(self.terms.validation.comparison, Comparison::Identical)
    }

    /// Whether its program seems to give another output each time.
    pub(crate) const fn is_nondeterministic(&self) -> bool {
        self.n_scattered >= SCATTERED_MIN && self.n_scattered * DONE_PER_SCATTERED > self.n_done
    }
}

impl Unit {
    /// The output that stands for all that are the same as this one.
    pub(crate) fn class_of(&self, output: Cid) -> Cid {
        let stands = self.classes.as_ref().and_then(|classes| classes.stands.get(&output));
        stands.copied().unwrap_or(output)
    }

    /// Whether an output is the same as the canonical one, byte for byte, or was compared.
    pub(crate) fn has_class(&self, output: Cid) -> bool {
        let is_canonical = matches!(self.stage, Stage::Accepted { output: canonical, .. }
            if canonical == output);
        let stands = self.classes.as_ref().map(|classes| &classes.stands);
        is_canonical || stands.is_some_and(|stands| stands.contains_key(&output))
    }

    /// Whether a result can be judged by its bytes and what is known of them.
    pub(crate) fn is_compared(&self, id: ReplicaId) -> bool {
        self.classes.as_ref().is_some_and(|classes| classes.seen.contains(&id))
    }

    /// Whether its results differ in bytes and were not all compared yet.
    fn lacks_comparison(&self) -> bool {
        let mut outputs = BTreeSet::new();
        let mut is_all_seen = true;
        for replica in &self.replicas {
            if let Some(output) = replica.state.output() {
                outputs.insert(output);
                is_all_seen &= self.is_compared(replica.id);
            }
        }
        outputs.len() > 1 && !is_all_seen
    }

    fn outputs(&self) -> Vec<(ReplicaId, NodeId, Cid)> {
        let successes = self.replicas.iter();
        successes
            .filter_map(|replica| Some((replica.id, replica.node, replica.state.output()?)))
            .collect()
    }
}

impl Core {
    /// Asks for a comparison if a unit needs one before it can be decided. Says whether it
    /// does.
    pub(crate) fn wants_comparison(&mut self, key: UnitKey) -> bool {
        let job = self.state.job(key.job);
        let Some(unit) = self.state.unit(key).filter(|unit| unit.target().is_some()) else {
            return false;
        };
        if !job.compares() || !unit.lacks_comparison() {
            return false;
        }
        let (job, index, outputs) = (job.id, key.index, unit.outputs());
        let asked: Vec<ReplicaId> = outputs.iter().map(|&(id, ..)| id).collect();
        if self.asked.get(&key) != Some(&asked) {
            self.asked.insert(key, asked);
            self.actions.push_back(Action::Compare { job, index, outputs });
        }
        true
    }

    /// Asks again for what was asked before a restart.
    pub(crate) fn ask_again(&mut self) {
        let jobs = self.state.jobs.iter().filter(|(_, job)| job.compares());
        let units = jobs
            .flat_map(|(&job, found)| found.units.keys().map(move |&index| UnitKey { job, index }));
        let units: Vec<UnitKey> = units.collect();
        for key in units {
            self.wants_comparison(key);
        }
    }

    pub(crate) fn on_compared(
        &mut self,
        now: Timestamp,
        job: Cid,
        index: u64,
        asked: &[ReplicaId],
        classes: Vec<Vec<ReplicaId>>,
    ) {
        let Some(&number) = self.state.numbers.get(&job) else { return };
        let key = UnitKey { job: number, index };
        // What came in since an earlier question is not unreadable.
        if self.asked.get(&key).is_none_or(|newest| newest != asked) {
            return;
        }
        let listed: BTreeSet<ReplicaId> = classes.iter().flatten().copied().collect();
        if !listed.iter().all(|id| asked.contains(id)) {
            return;
        }
        self.asked.remove(&key);
        if self.state.unit(key).is_none_or(|unit| unit.target().is_none()) {
            return;
        }
        let unreadable = asked.iter().copied().filter(|id| !listed.contains(id)).collect();
        self.persist(Record::Compared { at: now, job, index, classes, unreadable });
        self.transition(now, key);
    }
}

impl State {
    /// Takes what a comparison found.
    pub(crate) fn classify(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        found: &[Vec<ReplicaId>],
        unreadable: &[ReplicaId],
    ) -> Result<Effects, ApplyError> {
        let unit = self.unit_mut(key);
        let mut classes = Classes::default();
        for class in found {
            let mut first = None;
            let members = unit.replicas.iter().filter(|replica| class.contains(&replica.id));
            for replica in members {
                classes.seen.insert(replica.id);
                if let Some(output) = replica.state.output() {
                    classes.stands.insert(output, *first.get_or_insert(output));
                }
            }
        }
        unit.classes = Some(Box::new(classes));
        if let Stage::Open { sealed, .. } = &mut unit.stage {
            sealed.retain(|id, _| !unreadable.contains(id));
        }
        for &id in unreadable {
            let unit = self.unit_mut(key);
            if unit.replica(id).is_some_and(|replica| replica.state.output().is_some()) {
                self.set_replica(at, key, id, ReplicaState::ValidateError);
            }
        }
        Ok(self.settle(at, key))
    }

    /// Counts a unit whose first three results all differ.
    pub(crate) fn note_scatter(&mut self, key: UnitKey) {
        let Some(unit) = self.unit(key) else { return };
        let outputs = unit.census().outputs;
        let distinct: BTreeSet<Cid> = outputs.iter().copied().collect();
        if outputs.len() == 3 && distinct.len() == 3 {
            self.job_mut(key.job).n_scattered += 1;
        }
    }
}
