//! A second set of books, kept from what leaves the core alone.
//!
//! The core checks itself from its own state, so a rule that it has forgotten is not missed
//! there. A [`Witness`] knows the rules from the job's specification: it sees each record and
//! each action, and panics at the first that should not have been.
//!
//! # What is not here
//!
//! What only the core can know, such as the exact record of a node, is bounded instead: by all
//! results of the node that anybody agreed with.

use std::collections::{BTreeMap, BTreeSet};

use dockercomp_protocol::job::{Comparison, JobSpec, Policy};
use dockercomp_protocol::layout::Layout;
use dockercomp_protocol::receipt::{Basis, Votes};
use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::Verdict;
use dockercomp_protocol::{Cid, NodeId, ReplicaId, Timestamp, codec};

use crate::lots::audits_millis;
use crate::odds::{self, Odds};
use crate::{Action, Finding, Granted, Input, JobState, Record, Silence, State, credit};

/// Confirmed results after which a node that was caught may count again; later ones more.
const PROBATION: u32 = 10;
/// Units without agreement from which on a job may be called non-deterministic.
const SCATTERED_MIN: u32 = 3;

type Unit = (Cid, u64);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Witness {
    jobs: BTreeMap<Cid, (JobSpec, Layout)>,
    /// Outputs that a comparison finds the same, by the one that stands for them.
    same: BTreeMap<Cid, Cid>,
    /// As nodes registered last.
    operators: BTreeMap<NodeId, Option<String>>,
    had: BTreeSet<(NodeId, Unit)>,
    /// Operators by the units that they have had.
    had_by: BTreeSet<(String, Unit)>,
    leased: BTreeMap<ReplicaId, (NodeId, Unit)>,
    checks: BTreeSet<ReplicaId>,
    /// Leases that have neither ended nor been reported, and until when they last.
    running: BTreeMap<ReplicaId, Timestamp>,
    /// Results that were taken; none is an error.
    said: BTreeMap<ReplicaId, Option<Cid>>,
    unreadable: BTreeSet<ReplicaId>,
    accepted: BTreeMap<Unit, Cid>,
    /// By which rules.
    bases: Vec<Basis>,
    failed: BTreeSet<Unit>,
    stored: BTreeSet<Unit>,
    /// Accepted, and at some time nobody had the output any more.
    lost: BTreeSet<Unit>,
    /// Units whose output somebody was asked for since.
    wanted: BTreeSet<Unit>,
    ended: BTreeSet<Cid>,
    /// Units of each job whose results did not agree.
    scattered: BTreeMap<Cid, u32>,
    /// Audits that lots had to pass when they were closed.
    lots: Vec<(Cid, NodeId, u32)>,
    standings: BTreeMap<NodeId, Standing>,
}

/// What the results of a node amount to at most.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Results that agree with what was accepted, checks among them.
    agreed: u32,
    /// Checks that it passed.
    passed: u32,
    /// Whether it was caught, and how many of its results agreed since.
    caught: Option<u32>,
    /// What it has earned at least, and at most.
    credit: (u64, u64),
}

impl Standing {
    fn agree(&mut self) {
        self.agreed += 1;
        self.caught = self.caught.map(|since| since + 1).filter(|&since| since < PROBATION);
    }
}

/// A unit that was accepted with its lot.
struct OfLot {
    job: Cid,
    results: u32,
    audited: u32,
    /// Who gave a result of it.
    nodes: BTreeSet<NodeId>,
    /// Whether as many that count agree as an audit demands.
    is_confirmed: bool,
}

impl Witness {
    pub(super) fn add_job(&mut self, job: Cid, spec: &JobSpec, layout: Layout) {
        self.jobs.entry(job).or_insert_with(|| (spec.clone(), layout));
    }

    /// Two outputs are the same to whoever compares.
    pub(super) fn add_same(&mut self, output: Cid, stands: Cid) {
        self.same.insert(output, stands);
    }

    pub(super) fn register(&mut self, node: NodeId, operator: Option<String>) {
        self.operators.insert(node, operator);
    }

    pub(super) fn detach(&mut self, node: NodeId) {
        self.operators.remove(&node);
    }

    /// What was not journaled is said again by the nodes, or not.
    pub(super) fn restart(&mut self) {
        self.operators.clear();
    }

    pub(super) fn accepted(&self, job: Cid, index: u64) -> Option<Cid> {
        self.accepted.get(&(job, index)).copied()
    }

    pub(super) fn bases(&self) -> &[Basis] {
        &self.bases
    }

    /// Units whose output can be fetched, as far as is known.
    pub(super) fn all_wanted(&self) -> Vec<(Cid, u64)> {
        self.wanted.iter().copied().collect()
    }

    /// Whether outputs of a job are compared by more than their bytes.
    pub(super) fn compares(&self, job: Cid) -> bool {
        self.jobs[&job].0.validation.comparison != Comparison::Identical
    }

    /// The output that stands for all that are the same.
    pub(super) fn class_of(&self, job: Cid, output: Cid) -> Cid {
        let same = self.same.get(&output).filter(|_| self.compares(job));
        same.copied().unwrap_or(output)
    }

    fn standing(&mut self, node: NodeId) -> &mut Standing {
        self.standings.entry(node).or_default()
    }

    /// Takes in the records of a step.
    pub(super) fn records(&mut self, records: &[Record]) {
        for record in records {
            self.record(record);
        }
    }

    fn record(&mut self, record: &Record) {
        match record {
            Record::Leased { replica, job, index, node, deadline, .. } => {
                self.leased.insert(*replica, (*node, (*job, *index)));
                self.running.insert(*replica, *deadline);
            }
            Record::SpotCheck { replica, job, index, node, deadline, .. } => {
                assert!(self.accepted.contains_key(&(*job, *index)), "nobody knows the result");
                self.leased.insert(*replica, (*node, (*job, *index)));
                self.running.insert(*replica, *deadline);
                self.checks.insert(*replica);
            }
            Record::Extended { replica, deadline, .. } => {
                let before = self.running.insert(*replica, *deadline);
                assert!(before.is_some_and(|before| before < *deadline), "{replica} was extended");
            }
            Record::Away { ms, .. } => {
                for deadline in self.running.values_mut() {
                    deadline.0 += ms;
                }
            }
            Record::Ended { at, replica, silence } => {
                let deadline = self.running.remove(replica).expect("a lease ends once");
                let is_late = *silence == Silence::NoReply;
                assert!(!is_late || deadline <= *at, "{replica} ended before its deadline");
            }
            Record::Reported { replica, finding, .. } => self.reported(*replica, finding),
            Record::Compared { unreadable, .. } => self.unreadable.extend(unreadable),
            Record::Inconclusive { job, .. } => *self.scattered.entry(*job).or_default() += 1,
            Record::LotClosed { job, node, audits, .. } => self.lots.push((*job, *node, *audits)),
            Record::Accepted { job, index, .. } => {
                assert!(!self.failed.contains(&(*job, *index)), "accepted after it failed");
            }
            Record::Failed { job, index, .. } => {
                let unit = (*job, *index);
                let may_fail = !self.accepted.contains_key(&unit) || self.lost.contains(&unit);
                assert!(may_fail, "failed when accepted");
                assert!(!self.stored.contains(&unit), "failed when safe");
                assert!(self.failed.insert(unit), "unit {index} failed twice");
            }
            Record::OutputStored { job, index, .. } => {
                assert!(self.accepted.contains_key(&(*job, *index)), "stored before accepted");
                assert!(self.stored.insert((*job, *index)), "unit {index} was stored twice");
            }
            Record::OutputLost { job, index, .. } => {
                assert!(!self.stored.contains(&(*job, *index)), "what is safe cannot be lost");
                self.lost.insert((*job, *index));
                self.wanted.remove(&(*job, *index));
            }
            Record::JobCancelled { job, .. } => self.forget(*job),
            Record::JobAdded { .. } | Record::Sampled { .. } | Record::NodeKnown { .. } => {}
        }
    }

    /// A result was taken: of each replica one.
    fn reported(&mut self, replica: ReplicaId, finding: &Finding) {
        self.running.remove(&replica);
        let (node, (job, index)) = self.leased[&replica];
        let (output, claim) = match finding {
            Finding::Success { output, claim, .. } => (Some(*output), *claim),
            Finding::ClientError { .. } | Finding::ValidateError => (None, 0),
        };
        let before = self.said.insert(replica, output);
        assert!(before.is_none(), "{replica} was taken twice");
        let Some(output) = output else { return };
        let Some(canonical) = self.accepted(job, index) else { return };
        let agrees = self.class_of(job, output) == self.class_of(job, canonical);
        let is_check = self.checks.contains(&replica);
        let standing = self.standing(node);
        match (agrees, is_check) {
            (true, true) => {
                standing.agree();
                standing.passed += 1;
            }
            // It came late; whether it is paid depends on what others had to see.
            (true, false) => {
                standing.agree();
                standing.credit.1 += claim;
            }
            (false, true) => self.catch(node, job),
            (false, false) => {}
        }
    }

    /// A node was wrong, and that is held against it.
    fn catch(&mut self, node: NodeId, job: Cid) {
        if self.scattered.get(&job).is_none_or(|&units| units < SCATTERED_MIN) {
            self.standing(node).caught = Some(0);
        }
    }

    /// Nothing of a job is in memory any more.
    fn forget(&mut self, job: Cid) {
        let leased = &self.leased;
        self.running.retain(|replica, _| leased[replica].1.0 != job);
    }

    /// Checks what the core does, in order. `by` is whose message it answers.
    pub(super) fn actions(&mut self, actions: &[Action], by: Option<NodeId>) {
        let mut of_lots = Vec::new();
        for action in actions {
            match action {
                Action::Lease(granted) => {
                    let node = by.expect("leases answer a request");
                    granted.iter().for_each(|lease| self.granted(node, lease));
                }
                Action::Accept { job, index, output, basis, results, .. } => {
                    of_lots.extend(self.accept((*job, *index), *output, *basis, results));
                }
                Action::FetchOutput { job, index, output, holders } => {
                    assert_eq!(self.accepted(*job, *index), Some(*output), "unit {index}");
                    self.wanted.insert((*job, *index));
                    let input = Input { output: *output, holders: holders.clone() };
                    self.check_holders((*job, *index), &input);
                }
                Action::HeartbeatAnswer { abandon, forget } => {
                    let node = by.expect("the answer to a heartbeat");
                    self.dropped(node, abandon, forget);
                }
                Action::JobEnded { job, state } => self.job_ended(*job, *state),
                Action::Persist(_)
                | Action::Compare { .. }
                | Action::Verdict(_)
                | Action::AnnounceWork => {}
            }
        }
        self.check_lots(&of_lots);
    }

    /// A verdict on what `by` reported as a replica.
    pub(super) fn verdict(&self, verdict: Verdict, result: &ResultStatement) {
        if verdict == Verdict::Stored {
            assert_eq!(self.leased[&result.replica].0, result.node, "stored for a thief");
            assert!(self.said.contains_key(&result.replica), "stored, but not in the journal");
        }
    }

    fn granted(&mut self, node: NodeId, lease: &Granted) {
        let unit = (lease.job, lease.index);
        assert!(self.had.insert((node, unit)), "{node} got unit {} twice", lease.index);
        if let Some(Some(operator)) = self.operators.get(&node) {
            let is_first = self.had_by.insert((operator.clone(), unit));
            // A spot-check decides nothing.
            let is_check = self.checks.contains(&lease.replica);
            assert!(is_first || is_check, "an operator got unit {} twice", lease.index);
        }
        // A later unit takes what was accepted before it and is safe, and nothing else.
        let inputs = self.jobs[&lease.job].1.inputs(lease.index);
        let taken: Vec<Cid> = lease.inputs.iter().map(|input| input.output).collect();
        let accepted: Vec<Cid> =
            inputs.clone().map(|index| self.accepted[&(lease.job, index)]).collect();
        assert_eq!(taken, accepted, "unit {} took something else", lease.index);
        for (index, input) in inputs.zip(&lease.inputs) {
            assert!(self.stored.contains(&(lease.job, index)), "output {index} was not safe");
            self.check_holders((lease.job, index), input);
        }
    }

    /// Whoever is named as having an output has said so.
    fn check_holders(&self, unit: Unit, input: &Input) {
        assert!(!input.holders.is_empty(), "nobody has the output of unit {}", unit.1);
        for holder in &input.holders {
            let has = |(replica, said): (&ReplicaId, &Option<Cid>)| {
                *said == Some(input.output) && self.leased[replica] == (*holder, unit)
            };
            assert!(self.said.iter().any(has), "{holder} never had the output of {}", unit.1);
        }
    }

    /// What an offline check of the receipt would ask, and what it cannot. A unit that came
    /// with its lot is given back.
    fn accept(
        &mut self,
        unit: Unit,
        output: Cid,
        basis: Basis,
        results: &[Vec<u8>],
    ) -> Option<OfLot> {
        let (job, index) = unit;
        let before = self.accepted.insert(unit, output);
        assert!(before.is_none(), "unit {index} of {job} was accepted twice");
        self.bases.push(basis);
        let canonical = self.class_of(job, output);
        let (mut agreeing, mut against) = (Vec::new(), Vec::new());
        let mut votes: BTreeMap<Cid, usize> = BTreeMap::new();
        let mut nodes = BTreeSet::new();
        for bytes in results {
            let result: ResultStatement = codec::decode(bytes).expect("what was reported");
            assert!(nodes.insert(result.node), "{} voted twice", result.node);
            let lease = self.leased.get(&result.replica);
            assert_eq!(lease, Some(&(result.node, unit)), "a vote without a lease");
            assert!(self.said.get(&result.replica) == Some(&result.output), "another result");
            assert!(!self.unreadable.contains(&result.replica), "nobody could read it");
            let class = self.class_of(job, result.output.expect("a success"));
            *votes.entry(class).or_default() += 1;
            if class == canonical { &mut agreeing } else { &mut against }.push(result);
        }
        votes.remove(&canonical);
        let rival = votes.into_values().max().unwrap_or(0);
        let votes = Votes { agreeing: agreeing.len(), successes: results.len(), rival };
        // Classes were counted here: they are as good as equal bytes.
        let mut rules = self.jobs[&job].0.validation.clone();
        rules.comparison = Comparison::Identical;
        assert!(basis.is_allowed_by(&rules), "unit {index} was accepted by {basis}");
        assert!(basis.is_met_by(&votes, &rules), "unit {index}: {basis} is not met");

        let standing = |result: &ResultStatement| {
            self.standings.get(&result.node).copied().unwrap_or_default()
        };
        let counts = |result: &&ResultStatement| standing(result).caught.is_none();
        let counted = agreeing.iter().filter(counts).count();
        match (basis, &rules.policy) {
            (Basis::Trusted { consecutive_valid }, _) => {
                let mut all = agreeing.iter().chain(&against).map(standing);
                assert!(all.any(|of| of.agreed >= consecutive_valid), "unit {index}: {basis}");
            }
            (Basis::Credible { .. }, Policy::Credibility(policy)) => {
                let n = counted + against.iter().filter(counts).count();
                assert!(n >= rules.min_quorum as usize, "unit {index}: {n} results count");
                let odds = agreeing.iter().filter(counts).map(standing);
                let odds = odds.map(|of| Odds::after(of.passed, policy.saboteurs.0));
                let error = odds.reduce(Odds::and).map(|odds| odds::error(odds, &[]));
                let is_enough = error.is_some_and(|error| error <= policy.accepted_error.0);
                assert!(is_enough, "unit {index}: {error:?} is not {basis}");
            }
            (Basis::Majority { counted: said, .. }, _) => {
                assert!(said as usize <= counted, "unit {index}: {basis}, but {counted} count");
            }
            (Basis::Lot { .. }, _) => assert!(counted > 0, "unit {index}: nobody counts"),
            (Basis::Quorum | Basis::Credible { .. }, _) => {}
        }
        let of_lot = match basis {
            Basis::Lot { results, audited } => {
                let is_confirmed = counted >= rules.min_quorum.max(2) as usize;
                Some(OfLot { job, results, audited, nodes, is_confirmed })
            }
            Basis::Quorum
            | Basis::Trusted { .. }
            | Basis::Credible { .. }
            | Basis::Majority { .. } => None,
        };

        let claims = agreeing.iter().map(|result| credit::claim(result.executor, &result.usage));
        let grant = claims.min().unwrap_or(0);
        for result in agreeing {
            let standing = self.standing(result.node);
            standing.agree();
            standing.credit = (standing.credit.0 + grant, standing.credit.1 + grant);
        }
        for result in against {
            self.catch(result.node, job);
        }
        of_lot
    }

    /// Lots come whole, and each has passed the audits that were drawn for it, which are as
    /// many as the owner's error rate demands of a node with its record.
    fn check_lots(&self, accepted: &[OfLot]) {
        let mut rest = accepted;
        while let Some(first) = rest.first() {
            let (lot, others) = rest.split_at(first.results as usize);
            rest = others;
            assert!(lot.iter().all(|unit| unit.job == first.job), "a lot of two jobs");
            let confirmed = lot.iter().filter(|unit| unit.is_confirmed).count();
            assert!(first.audited as usize <= confirmed, "{confirmed} of the lot were confirmed");
            let Policy::Audited(rules) = &self.jobs[&first.job].0.validation.policy else {
                panic!("a lot of a job without audits");
            };
            let has_passed = |&(job, node, audits): &(Cid, NodeId, u32)| {
                let of = self.standings.get(&node).copied().unwrap_or_default();
                let least = audits_millis(rules, first.results.into(), of.agreed) / 1000;
                job == first.job
                    && of.caught.is_none()
                    && lot.iter().all(|unit| unit.nodes.contains(&node))
                    && first.audited >= audits.min(first.results)
                    && u64::from(first.audited) >= least
            };
            let any = self.lots.iter().any(has_passed);
            assert!(any, "a lot of {} with {} audits", first.results, first.audited);
        }
    }

    /// What a node is told to drop is of no use to anybody.
    fn dropped(&self, node: NodeId, abandon: &[ReplicaId], forget: &[ReplicaId]) {
        let own = |replica: &&ReplicaId| {
            self.leased.get(replica).is_some_and(|&(holder, (job, _))| {
                holder == node && !self.ended.contains(&job) && !self.checks.contains(replica)
            })
        };
        let is_open =
            |unit: &Unit| !self.accepted.contains_key(unit) && !self.failed.contains(unit);
        for replica in abandon.iter().filter(own) {
            let may_count = is_open(&self.leased[replica].1) && !self.said.contains_key(replica);
            assert!(!may_count, "{replica} was abandoned");
        }
        for replica in forget.iter().filter(own) {
            let unit = &self.leased[replica].1;
            let Some(&Some(said)) = self.said.get(replica) else { continue };
            let is_over = self.stored.contains(unit) || self.failed.contains(unit);
            let is_owed = self.accepted.get(unit) == Some(&said) && !is_over;
            let may_win = is_open(unit) && !self.unreadable.contains(replica);
            assert!(!is_owed && !may_win, "the output of {replica} was forgotten");
        }
    }

    fn job_ended(&mut self, job: Cid, state: JobState) {
        assert!(self.ended.insert(job), "{job} ended twice");
        let layout = &self.jobs[&job].1;
        let of_job =
            |units: &BTreeSet<Unit>| units.iter().filter(|unit| unit.0 == job).count() as u64;
        let (n_stored, n_failed) = (of_job(&self.stored), of_job(&self.failed));
        match state {
            JobState::Completed { .. } if n_failed == 0 || layout.stages() == 1 => {
                assert_eq!(n_stored + n_failed, layout.units(), "units of {job}");
            }
            // What a failed unit leaves behind may be given up as a whole.
            JobState::Completed { .. } | JobState::Cancelled { .. } => self.forget(job),
            JobState::Running => panic!("{job} ended and runs"),
        }
    }

    /// No lease outlives its deadline.
    pub(super) fn check_deadlines(&self, now: Timestamp) {
        for (replica, deadline) in &self.running {
            assert!(*deadline > now, "the lease {replica} was to end at {deadline:?}");
        }
    }

    /// Credit is earned with results that agree, once each.
    pub(super) fn check_credit(&self, state: &State) {
        for (node, trust) in &state.trust {
            let (least, most) = self.standings.get(node).map_or((0, 0), |of| of.credit);
            let is_right = (least..=most).contains(&trust.credit);
            assert!(is_right, "{node} has {}, not {least} to {most}", trust.credit);
        }
    }

    /// Every lease came to an end, and every job.
    pub(super) fn check_end(&self) {
        assert!(self.running.is_empty(), "leases without an end: {:?}", self.running);
        assert!(self.jobs.keys().all(|job| self.ended.contains(job)), "a job without an end");
    }
}
