//! What becomes of a reported result.
//!
//! The first report of a replica by its holder counts, whenever it comes, as long as its
//! work unit is in memory:
//!
//! - while the unit is undecided it votes, even after the deadline, since the work is done and
//!   as good as any other; a replacement that was leased meanwhile is abandoned if the
//!   vote decides;
//! - after an acceptance it is compared with the canonical output, so that a slow saboteur is
//!   caught as well as a fast one; where that output is lost, it brings it back, or is one more
//!   that differs, until the unit is given up;
//! - after a failure it is too late.
//!
//! A unit leaves memory when it is decided, its output is safe, and nobody is at work on it.
//! From then on reports of its replicas are too late, repeated ones included.

use dockercomp_protocol::statement::ResultStatement;
use dockercomp_protocol::wire::work::Verdict;
use dockercomp_protocol::{Cid, Timestamp};

use crate::action::Action;
use crate::record::{Finding, Record};
use crate::unit::{Stage, UnitKey};
use crate::{Core, state::State};

/// What the state says of a report before it is taken.
enum Standing {
    /// The first report of a replica in memory.
    New(UnitKey),
    /// The first report of a spot-check.
    Check,
    /// Not taken, and this is why.
    Settled(Verdict),
}

impl Core {
    pub(crate) fn on_result_reported(
        &mut self,
        now: Timestamp,
        result: &ResultStatement,
        sealed: Vec<u8>,
    ) {
        self.presence.seen(now, result.node);
        let finding = Finding::of(result, sealed);
        let verdict = match self.state.standing(result, &finding) {
            Standing::Settled(verdict) => verdict,
            Standing::New(key) => self.take_report(now, key, result, finding),
            Standing::Check => {
                self.persist(Record::Reported { at: now, replica: result.replica, finding });
                Verdict::Stored
            }
        };
        self.actions.push_back(Action::Verdict(verdict));
    }

    fn take_report(
        &mut self,
        now: Timestamp,
        key: UnitKey,
        result: &ResultStatement,
        finding: Finding,
    ) -> Verdict {
        let is_success = matches!(finding, Finding::Success { .. });
        let (was_open, was_failed) = match self.state.unit(key).map(|unit| &unit.stage) {
            Some(Stage::Open { .. }) => (true, false),
            Some(Stage::Failed { .. }) => (false, true),
            Some(Stage::Accepted { .. }) | None => (false, false),
        };
        self.persist(Record::Reported { at: now, replica: result.replica, finding });
        if was_open {
            self.transition(now, key);
        } else if self.state.agrees(key, result.output) {
            // One more node has what is wanted: the fetch may need it.
            self.actions.extend(self.state.owed_fetch(key));
        } else {
            self.forgo(now, key);
        }
        if was_failed && is_success { Verdict::TooLate } else { Verdict::Stored }
    }
}

impl State {
    /// Whether an output is the canonical one of a unit in memory.
    fn agrees(&self, key: UnitKey, output: Option<Cid>) -> bool {
        match self.unit(key).map(|unit| &unit.stage) {
            Some(Stage::Accepted { output: canonical, .. }) => output == Some(*canonical),
            Some(Stage::Open { .. } | Stage::Failed { .. }) | None => false,
        }
    }

    fn standing(&self, result: &ResultStatement, finding: &Finding) -> Standing {
        if let Some(check) = self.checks.get(&result.replica) {
            let is_holder = check.node == result.node && self.job(check.job).id == result.job;
            return if is_holder { Standing::Check } else { Standing::Settled(Verdict::NotYours) };
        }
        let Some(&key) = self.replicas.get(&result.replica) else {
            let was_leased = result.replica.0 < self.next_replica;
            return Standing::Settled(if was_leased {
                Verdict::TooLate
            } else {
                Verdict::NotYours
            });
        };
        let replica = self.unit(key).and_then(|unit| unit.replica(result.replica));
        match replica {
            Some(replica) if replica.node == result.node && self.job(key.job).id == result.job => {
                if !replica.state.is_reported() {
                    Standing::New(key)
                } else if replica.state.repeats(finding) {
                    Standing::Settled(Verdict::Stored)
                } else {
                    // Two different results for one replica: the first one stands.
                    Standing::Settled(Verdict::NotRight)
                }
            }
            Some(_) | None => Standing::Settled(Verdict::NotYours),
        }
    }
}
