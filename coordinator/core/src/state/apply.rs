//! What each record does to the state.

use std::time::Duration;

use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp};

use super::{ApplyError, Effects, KNOWN, State};
use crate::books::push_bounded;
use crate::gate::Gate;
use crate::job::{Job, JobNumber, JobState, UnitFailure};
use crate::lots::{Demand, LotKey};
use crate::record::{Finding, Record, Seed, Silence, Terms, UnitError};
use crate::replica::{Replica, ReplicaState, ValidateState};
use crate::unit::{Stage, Unit, UnitKey};
use crate::validate::check_pair;

impl State {
    /// Applies one record. If it does not fit, nothing is changed.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<Effects, ApplyError> {
        let effects = self.change(record)?;
        self.last_at = self.last_at.max(record.at());
        Ok(effects)
    }

    fn change(&mut self, record: &Record) -> Result<Effects, ApplyError> {
        match record {
            Record::JobAdded { at, job, terms, units, seed } => {
                self.add_job(*at, *job, terms, *units, *seed)
            }
            Record::JobCancelled { at, job } => self.cancel_job(*at, *job),
            Record::Away { at: _, ms } => Ok(self.lengthen(Duration::from_millis(*ms))),
            Record::Leased { at, replica, job, index, node, executor, trusted, deadline } => {
                let key = UnitKey { job: self.running(*job)?, index: *index };
                let lease = Replica::leased(*replica, *node, *executor, *deadline);
                self.lease(*at, key, lease, *trusted)
            }
            Record::SpotCheck { at, replica, job, index, node, executor, deadline } => {
                let key = UnitKey { job: self.running(*job)?, index: *index };
                self.lease_check(*at, key, *replica, *node, *executor, *deadline)
            }
            Record::Compared { at, job, index, classes, unreadable } => {
                self.classify(*at, self.open(*job, *index)?, classes, unreadable)
            }
            Record::Sampled { at, job, index, target } => {
                self.raise(*at, self.open(*job, *index)?, *target)
            }
            Record::LotClosed { at, job, node, number, audits, agreeing } => {
                let demand = Demand { audits: *audits, agreeing: *agreeing };
                self.close_lot(*at, self.running(*job)?, *node, *number, demand)
            }
            Record::Reported { at, replica, finding } => self.report(*at, *replica, finding),
            Record::Ended { at, replica, silence } => self.end(*at, *replica, *silence),
            Record::Inconclusive { at, job, index, target } => {
                self.disagree(*at, self.open(*job, *index)?, *target)
            }
            Record::Accepted { at, job, index, output } => {
                self.accept(*at, self.open(*job, *index)?, *output)
            }
            Record::Failed { at, job, index, errors } => {
                self.fail(*at, self.endable(*job, *index)?, errors)
            }
            Record::NodeKnown { at, node, identity } => {
                self.learn(*at, *node, identity);
                Ok(Effects::default())
            }
            Record::Extended { at: _, replica, deadline } => self.extend(*replica, *deadline),
            Record::OutputLost { at, job, index } => self.lose(*at, *job, *index),
            Record::OutputStored { at, job, index } => self.store(*at, *job, *index),
        }
    }

    fn add_job(
        &mut self,
        at: Timestamp,
        id: Cid,
        terms: &Terms,
        units: u64,
        seed: Seed,
    ) -> Result<Effects, ApplyError> {
        let number = self.next_job;
        if self.numbers.contains_key(&id) {
            return Err(ApplyError::KnownJob { job: id });
        }
        self.numbers.insert(id, number);
        self.next_job = JobNumber(number.0 + 1);
        self.jobs.insert(number, Job::new(id, at, terms.clone(), units, seed));
        self.note_work(number);
        let ended = self.complete_if_finished(at, number);
        Ok(Effects { is_there_new_work: units > 0, ended })
    }

    /// The replicas of a cancelled job are over at once, and forgotten: whoever still names
    /// one in a heartbeat is told to abandon or forget what is not known.
    fn cancel_job(&mut self, at: Timestamp, id: Cid) -> Result<Effects, ApplyError> {
        let number = self.running(id)?;
        self.forget_all(at, number);
        self.job_mut(number).state = JobState::Cancelled { at };
        self.note_work(number);
        Ok(Effects { is_there_new_work: false, ended: Some(number) })
    }

    /// Ends all replicas of a job that is over, and forgets its units.
    pub(crate) fn forget_all(&mut self, at: Timestamp, number: JobNumber) {
        let indices: Vec<u64> = self.job(number).units.keys().copied().collect();
        for index in indices {
            let key = UnitKey { job: number, index };
            self.each_replica(at, key, |state| match state {
                ReplicaState::InProgress { .. } => Some(ReplicaState::Silent(Silence::DidntNeed)),
                ReplicaState::Success {
                    output,
                    validate: ValidateState::Init | ValidateState::Inconclusive,
                } => {
                    let validate = ValidateState::NoCheck;
                    Some(ReplicaState::Success { output: *output, validate })
                }
                ReplicaState::Success { .. }
                | ReplicaState::Silent(_)
                | ReplicaState::ClientError { .. }
                | ReplicaState::ValidateError => None,
            });
            self.forget(key);
        }
        self.drop_checks_of(at, number);
        self.job_mut(number).gate = Gate::default();
    }

    /// Gives every lease the time that nobody could use.
    fn lengthen(&mut self, away: Duration) -> Effects {
        for (deadline, id) in std::mem::take(&mut self.deadlines) {
            let later = deadline + away;
            self.deadlines.insert((later, id));
            if let Some(check) = self.checks.get_mut(&id) {
                check.deadline = later;
            }
            let Some(&key) = self.replicas.get(&id) else { continue };
            let replicas = self.unit_mut(key).replicas.iter_mut();
            for replica in replicas.filter(|replica| replica.id == id) {
                replica.state = ReplicaState::InProgress { deadline: later };
            }
        }
        Effects::default()
    }

    fn lease(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        mut replica: Replica,
        trusted: Option<u32>,
    ) -> Result<Effects, ApplyError> {
        let node = replica.node;
        replica.operator = self.identities.operator(node);
        let ReplicaState::InProgress { deadline } = replica.state else { unreachable!() };
        let job = self.job(key.job);
        let is_new = key.index == job.next_unexpanded && key.index < job.layout.first_units();
        let is_wanted = match self.unit(key) {
            Some(unit) => job.wanted(unit) > 0 && !unit.knows(node, replica.operator),
            None => is_new,
        };
        if replica.id.0 != self.next_replica || !is_wanted {
            return Err(ApplyError::WrongLease {
                replica: replica.id,
                job: job.id,
                index: key.index,
            });
        }
        self.next_replica += 1;
        let job = self.jobs.get_mut(&key.job).expect(KNOWN);
        if is_new && !job.units.contains_key(&key.index) {
            job.n_open += 1;
            job.next_unexpanded += 1;
        }
        let target = job.target_at_first();
        let unit = job.units.entry(key.index).or_insert_with(|| Unit::new(target));
        let may_trust = unit.replicas.is_empty() || unit.trusted.is_some();
        // One whose output was lost is decided already, on what it was decided on.
        if let Stage::Open { target, .. } = &mut unit.stage {
            // Whoever gives it: the receipt says what the least of its nodes had shown.
            let least = unit.trusted.unwrap_or(u32::MAX);
            unit.trusted = trusted.filter(|_| may_trust).map(|shown| shown.min(least));
            // One result is enough as long as only trusted nodes had it.
            match (unit.trusted, unit.replicas.is_empty()) {
                (Some(_), _) => *target = 1,
                (None, false) if may_trust => *target = job.terms.validation.target_nresults,
                (None, _) => {}
            }
        }
        // Whoever computes a lost output again cannot be checked with it.
        if let Some(known) = job.known.iter_mut().find(|known| known.index == key.index) {
            known.had.push(node);
        }
        job.tally.add(&replica.state);
        self.nodes.entry(node).or_default().add(&replica.state);
        self.replicas.insert(replica.id, key);
        let id = replica.id;
        unit.replicas.push(replica);
        self.index_lease(deadline, id, node);
        self.note_lease(key, node);
        self.trust.entry(node).or_default().quota.note_lease(at);
        // A unit that starts to wait because it was begun is no news to anybody.
        self.tidy(at, key);
        Ok(Effects::default())
    }

    fn report(
        &mut self,
        at: Timestamp,
        id: ReplicaId,
        finding: &Finding,
    ) -> Result<Effects, ApplyError> {
        if self.checks.contains_key(&id) {
            return self.report_check(at, id, finding);
        }
        let wrong = ApplyError::WrongReplica { replica: id };
        let key = *self.replicas.get(&id).ok_or_else(|| wrong.clone())?;
        let is_shown = self.job(key.job).is_shown(key.index);
        let compares = self.job(key.job).compares();
        let unit = self.unit_mut(key);
        if unit.replica(id).is_none_or(|replica| replica.state.is_reported()) {
            return Err(wrong);
        }
        let state = match finding {
            Finding::ClientError { exit } => ReplicaState::ClientError { exit: exit.clone() },
            Finding::ValidateError => ReplicaState::ValidateError,
            Finding::Success { output, claim, sealed } => {
                let claimed = unit.replicas.iter_mut().find(|replica| replica.id == id);
                if let Some(replica) = claimed {
                    replica.claim = *claim;
                }
                // What was decided by more than equality cannot be told from bytes alone.
                let class = unit.class_of(*output);
                let class = (!compares || unit.has_class(*output)).then_some(class);
                // Nobody can look at a lost output any more: who differs is not blamed.
                let is_lost = unit.is_lost();
                let validate = match &mut unit.stage {
                    Stage::Open { sealed: kept, .. } => {
                        kept.insert(id, sealed.clone());
                        ValidateState::Init
                    }
                    // What others were given may have been copied.
                    Stage::Accepted { output: canonical, .. }
                        if is_shown && output == canonical =>
                    {
                        ValidateState::TooLate
                    }
                    Stage::Accepted { output: canonical, .. } => match class {
                        Some(class) if class == *canonical || !is_lost => {
                            check_pair(class, *canonical)
                        }
                        Some(_) => ValidateState::NoCheck,
                        None => ValidateState::NoCheck,
                    },
                    Stage::Failed { .. } => ValidateState::TooLate,
                };
                ReplicaState::Success { output: *output, validate }
            }
        };
        self.set_replica(at, key, id, state);
        self.grant_late(key, id);
        Ok(self.settle(at, key))
    }

    fn end(
        &mut self,
        at: Timestamp,
        id: ReplicaId,
        silence: Silence,
    ) -> Result<Effects, ApplyError> {
        if self.checks.contains_key(&id) {
            return Ok(self.drop_check(at, id, silence));
        }
        let wrong = ApplyError::WrongReplica { replica: id };
        let key = *self.replicas.get(&id).ok_or_else(|| wrong.clone())?;
        if !self.unit_mut(key).replica(id).is_some_and(|replica| replica.state.is_in_progress()) {
            return Err(wrong);
        }
        self.set_replica(at, key, id, ReplicaState::Silent(silence));
        Ok(self.settle(at, key))
    }

    fn disagree(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        raised: u32,
    ) -> Result<Effects, ApplyError> {
        if let Stage::Open { target, .. } = &mut self.unit_mut(key).stage {
            *target = raised;
        }
        self.note_scatter(key);
        self.each_success(at, key, |_| ValidateState::Inconclusive);
        Ok(self.settle(at, key))
    }

    /// Puts a deadline off.
    fn extend(&mut self, id: ReplicaId, later: Timestamp) -> Result<Effects, ApplyError> {
        let wrong = ApplyError::WrongReplica { replica: id };
        if let Some(check) = self.checks.get_mut(&id) {
            self.deadlines.remove(&(check.deadline, id));
            self.deadlines.insert((later, id));
            check.deadline = later;
            check.extensions = check.extensions.saturating_add(1);
            return Ok(Effects::default());
        }
        let key = *self.replicas.get(&id).ok_or_else(|| wrong.clone())?;
        let unit = self.unit_mut(key);
        let replica = unit.replicas.iter_mut().find(|replica| replica.id == id);
        let Some(replica) = replica else { return Err(wrong) };
        let ReplicaState::InProgress { deadline } = &mut replica.state else { return Err(wrong) };
        let old = std::mem::replace(deadline, later);
        replica.extensions = replica.extensions.saturating_add(1);
        self.deadlines.remove(&(old, id));
        self.deadlines.insert((later, id));
        Ok(Effects::default())
    }

    /// Nobody has a canonical output any more.
    fn lose(&mut self, at: Timestamp, id: Cid, index: u64) -> Result<Effects, ApplyError> {
        let key = UnitKey { job: self.running(id)?, index };
        let unit = self.job_mut(key.job).units.get_mut(&index);
        let Some(unit) = unit.filter(|unit| !unit.holders().is_empty()) else {
            return Err(ApplyError::WrongStage { job: id, index });
        };
        if !matches!(unit.stage, Stage::Accepted { stored: false, .. }) {
            return Err(ApplyError::WrongStage { job: id, index });
        }
        for replica in &mut unit.replicas {
            replica.is_gone |= replica.state.is_reported();
        }
        Ok(self.settle(at, key))
    }

    /// Aims at more results of a unit whose results do not disagree.
    fn raise(&mut self, at: Timestamp, key: UnitKey, raised: u32) -> Result<Effects, ApplyError> {
        if let Stage::Open { target, .. } = &mut self.unit_mut(key).stage {
            *target = raised;
        }
        Ok(self.settle(at, key))
    }

    fn close_lot(
        &mut self,
        at: Timestamp,
        number: JobNumber,
        node: NodeId,
        lot: u32,
        demand: Demand,
    ) -> Result<Effects, ApplyError> {
        let key = LotKey { job: number, node, number: lot };
        let rules = self.job(number).audited().copied();
        if !rules.is_some_and(|rules| self.lots.close(key, demand, &rules)) {
            return Err(ApplyError::WrongLot { job: self.job(number).id, node, number: lot });
        }
        // What was confirmed may not be by as many as it now takes.
        for index in self.lots.indices(key) {
            self.refile(at, UnitKey { job: number, index });
        }
        Ok(Effects::default())
    }

    fn accept(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        canonical: Cid,
    ) -> Result<Effects, ApplyError> {
        let unit = self.unit_mut(key);
        if !unit.replicas.iter().any(|replica| replica.state.output() == Some(canonical)) {
            let job = self.job(key.job).id;
            return Err(ApplyError::WrongOutput { job, index: key.index });
        }
        let needed = self.job(key.job).is_needed(key.index);
        let unit = self.unit_mut(key);
        unit.stage = Stage::Accepted { output: canonical, stored: false, needed };
        let classes = unit.classes.clone();
        let stand_in = Unit { classes, ..Unit::new(0) };
        self.each_success(at, key, |output| check_pair(stand_in.class_of(output), canonical));
        let job = self.job_mut(key.job);
        job.n_open -= 1;
        job.n_done += 1;
        job.progress(key.index).done += 1;
        self.grant_credit(key);
        let job = self.job_mut(key.job);
        // A later unit can be given out again only while its inputs are here.
        if job.credibility().is_some() && key.index < job.layout.first_units() {
            job.remember(key.index);
        }
        self.note_decision(key);
        Ok(self.settle(at, key))
    }

    fn fail(
        &mut self,
        at: Timestamp,
        key: UnitKey,
        errors: &[UnitError],
    ) -> Result<Effects, ApplyError> {
        let failures_max = self.config.failures_per_job_max;
        let unit = self.unit_mut(key);
        let was_open = unit.target().is_some();
        unit.stage = Stage::Failed { errors: errors.to_vec() };
        let exits = unit.replicas.iter().filter_map(|replica| match &replica.state {
            ReplicaState::ClientError { exit } => Some(exit.clone()),
            ReplicaState::InProgress { .. }
            | ReplicaState::Silent(_)
            | ReplicaState::Success { .. }
            | ReplicaState::ValidateError => None,
        });
        let exits = exits.collect();
        if was_open {
            self.note_decision(key);
            self.each_success(at, key, |_| ValidateState::NoCheck);
            self.job_mut(key.job).n_open -= 1;
        } else {
            // What was said of its results when it was accepted stands.
            let job = self.job_mut(key.job);
            job.known.retain(|known| known.index != key.index);
            job.n_done -= 1;
            job.progress(key.index).done -= 1;
        }
        let job = self.job_mut(key.job);
        job.n_failed += 1;
        job.progress(key.index).failed += 1;
        let failure = UnitFailure { index: key.index, at, errors: errors.to_vec(), exits };
        push_bounded(&mut job.failures, failure, failures_max);
        self.pass_failure(at, key);
        Ok(self.settle(at, key))
    }

    fn store(&mut self, at: Timestamp, id: Cid, index: u64) -> Result<Effects, ApplyError> {
        let key = UnitKey { job: self.running(id)?, index };
        let job = self.job_mut(key.job);
        match job.units.get_mut(&index).map(|unit| &mut unit.stage) {
            Some(Stage::Accepted { stored, .. }) if !*stored => *stored = true,
            Some(Stage::Accepted { .. } | Stage::Open { .. } | Stage::Failed { .. }) | None => {
                return Err(ApplyError::WrongStage { job: id, index });
            }
        }
        job.n_stored += 1;
        job.progress(index).stored += 1;
        let is_there_new_work = self.pass_output(at, key);
        let effects = self.settle(at, key);
        Ok(Effects { is_there_new_work: effects.is_there_new_work || is_there_new_work, ..effects })
    }
}
