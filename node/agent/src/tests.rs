//! Stories about one node.

use std::time::Duration;

use dockercomp_protocol::wire::work::Capacity;
use dockercomp_protocol::{ReplicaId, Timestamp};

use super::{AbortReason, Action, Agent, Config, Counts, Event, Lease, Restored};

const CORE: Capacity = Capacity { cpu_millis: 1000, memory_bytes: 100, disk_bytes: 0 };
const HEARTBEAT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(30);

struct TestEnv {
    agent: Agent,
    now: Timestamp,
}

impl TestEnv {
    /// A welcomed node of two cores with room for two more leases, already asking.
    fn new() -> Self {
        let mut env = Self::restored(Restored::default());
        env.send(Event::Welcomed { heartbeat: HEARTBEAT });
        env.expect(&[
            Action::Heartbeat { running: vec![], kept: vec![] },
            Action::AskForWork { free: cores(4), leases_max: 64 },
        ]);
        env.send(Event::HeartbeatAnswered { abandon: vec![], forget: vec![] });
        env.expect(&[]);
        env
    }

    fn restored(restored: Restored) -> Self {
        let now = Timestamp(1_000_000);
        let agent = Agent::new(Config::new(cores(2), 7), restored, now);
        Self { agent, now }
    }

    fn send(&mut self, event: Event) {
        self.agent.handle(self.now, event);
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.send(Event::Wake);
    }

    /// Exactly these actions, no more.
    fn expect(&mut self, expected: &[Action]) {
        let actions: Vec<Action> = std::iter::from_fn(|| self.agent.poll_action()).collect();
        assert_eq!(actions, expected);
    }

    fn drain(&mut self) {
        while self.agent.poll_action().is_some() {}
    }

    fn assign(&mut self, replicas: &[u64]) {
        let leases = replicas.iter().map(|id| self.lease(*id)).collect();
        self.send(Event::Assigned { leases, retry: RETRY });
    }

    fn lease(&self, id: u64) -> Lease {
        let expires_at = self.now + Duration::from_secs(100);
        Lease { replica: ReplicaId(id), need: CORE, expires_at, begun: false }
    }
}

const fn cores(n: u32) -> Capacity {
    Capacity { cpu_millis: 1000 * n, memory_bytes: 100 * n as u64, disk_bytes: 0 }
}

const fn fetch(id: u64) -> Action {
    Action::FetchInputs { replica: ReplicaId(id) }
}

const fn start(id: u64) -> Action {
    Action::Start { replica: ReplicaId(id) }
}

const fn ready(id: u64) -> Event {
    Event::InputsReady { replica: ReplicaId(id) }
}

const fn finished(id: u64) -> Event {
    Event::Finished { replica: ReplicaId(id) }
}

#[test]
fn a_replica_goes_from_lease_to_forgotten() {
    let mut env = TestEnv::new();
    env.assign(&[1]);
    env.expect(&[fetch(1), Action::AskForWork { free: cores(3), leases_max: 63 }]);
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.send(ready(1));
    env.expect(&[start(1)]);
    env.send(finished(1));
    env.expect(&[
        Action::Report { replicas: vec![ReplicaId(1)] },
        Action::AskForWork { free: cores(4), leases_max: 64 },
    ]);
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.send(Event::Reported { stored: vec![ReplicaId(1)], refused: vec![] });
    env.expect(&[]);
    assert_eq!(env.agent.counts(), Counts { kept: 1, ..Counts::default() });
    env.advance(HEARTBEAT);
    env.expect(&[Action::Heartbeat { running: vec![], kept: vec![ReplicaId(1)] }]);
    env.send(Event::HeartbeatAnswered { abandon: vec![], forget: vec![ReplicaId(1)] });
    env.expect(&[Action::Forget { replica: ReplicaId(1) }]);
    assert!(env.agent.is_idle());
}

#[test]
fn only_what_fits_runs_and_the_next_starts_when_one_ends() {
    let mut env = TestEnv::new();
    env.assign(&[1, 2, 3, 4]);
    env.drain();
    for id in [4, 3, 2, 1] {
        env.send(ready(id));
    }
    env.expect(&[start(4), start(3)]);
    env.send(finished(4));
    let report = Action::Report { replicas: vec![ReplicaId(4)] };
    env.expect(&[start(1), report, Action::AskForWork { free: cores(1), leases_max: 61 }]);
}

#[test]
fn nothing_to_do_means_waiting_for_the_timer_or_news() {
    let mut env = TestEnv::new();
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.expect(&[]);
    env.send(Event::Announced);
    env.expect(&[Action::AskForWork { free: cores(4), leases_max: 64 }]);
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.advance(RETRY);
    env.expect(&[
        Action::Heartbeat { running: vec![], kept: vec![] },
        Action::AskForWork { free: cores(4), leases_max: 64 },
    ]);
}

/// A node with a little room left that gets nothing asks again when it has more room.
#[test]
fn nothing_for_a_node_that_holds_work_may_only_mean_that_it_did_not_fit() {
    let mut env = TestEnv::new();
    env.assign(&[1, 2, 3]);
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.drain();
    env.send(ready(1));
    env.expect(&[start(1)]);
    env.send(finished(1));
    env.expect(&[
        Action::Report { replicas: vec![ReplicaId(1)] },
        Action::AskForWork { free: cores(2), leases_max: 62 },
    ]);
}

/// News that arrives while a question is on its way is not lost.
#[test]
fn news_during_a_question_leads_to_another() {
    let mut env = TestEnv::new();
    env.send(Event::Announced);
    env.expect(&[]);
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.expect(&[Action::AskForWork { free: cores(4), leases_max: 64 }]);
}

#[test]
fn a_silent_coordinator_is_asked_ever_more_rarely() {
    let mut env = TestEnv::new();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        env.send(Event::AskFailed);
        env.drain();
        let ask = env.agent.ask.next().expect("it is not on its way");
        pauses.push(ask.since(env.now));
        env.now = ask;
        env.send(Event::Wake);
        env.drain();
    }
    assert!(pauses[0] < Duration::from_secs(1), "{pauses:?}");
    assert!(pauses[4] > pauses[0] * 8, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(75)), "{pauses:?}");
}

#[test]
fn results_wait_for_the_coordinator_and_are_sent_again() {
    let mut env = TestEnv::new();
    env.assign(&[1]);
    env.send(ready(1));
    env.drain();
    env.send(finished(1));
    env.drain();
    env.send(Event::ReportFailed);
    env.expect(&[]);
    env.advance(Duration::from_secs(1));
    env.expect(&[Action::Report { replicas: vec![ReplicaId(1)] }]);
}

#[test]
fn a_restarted_node_goes_on() {
    let expires_at = Timestamp(2_000_000);
    let mut env = TestEnv::restored(Restored {
        leases: vec![Lease { replica: ReplicaId(3), need: CORE, expires_at, begun: false }],
        unreported: vec![ReplicaId(2)],
        kept: vec![ReplicaId(1)],
    });
    env.send(Event::Welcomed { heartbeat: HEARTBEAT });
    env.expect(&[
        fetch(3),
        Action::Report { replicas: vec![ReplicaId(2)] },
        Action::Heartbeat { running: vec![ReplicaId(3), ReplicaId(2)], kept: vec![ReplicaId(1)] },
        Action::AskForWork { free: cores(3), leases_max: 63 },
    ]);
}

#[test]
fn what_is_not_needed_is_stopped() {
    let mut env = TestEnv::new();
    env.assign(&[1]);
    env.send(ready(1));
    env.drain();
    env.advance(HEARTBEAT);
    env.drain();
    env.send(Event::HeartbeatAnswered { abandon: vec![ReplicaId(1)], forget: vec![] });
    env.expect(&[Action::Abort { replica: ReplicaId(1), reason: AbortReason::NotNeeded }]);
    // Room is free only when it has really stopped.
    assert_eq!(env.agent.counts().running, 1);
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.send(Event::Aborted { replica: ReplicaId(1) });
    assert!(env.agent.is_idle());
}

/// The inputs were there a moment before the abort: the replica must not stay for ever.
#[test]
fn inputs_that_arrive_after_an_abort_lead_to_another_abort() {
    let mut env = TestEnv::new();
    env.assign(&[1]);
    env.drain();
    env.advance(HEARTBEAT);
    env.drain();
    let abort = Action::Abort { replica: ReplicaId(1), reason: AbortReason::NotNeeded };
    env.send(Event::HeartbeatAnswered { abandon: vec![ReplicaId(1)], forget: vec![] });
    env.expect(std::slice::from_ref(&abort));
    env.send(ready(1));
    env.expect(&[abort]);
    env.send(Event::Aborted { replica: ReplicaId(1) });
    assert!(env.agent.is_idle());
}

#[test]
fn a_late_replica_is_not_started() {
    let mut env = TestEnv::new();
    env.assign(&[1]);
    env.drain();
    env.advance(Duration::from_secs(100));
    let actions: Vec<Action> = std::iter::from_fn(|| env.agent.poll_action()).collect();
    assert!(
        actions.contains(&Action::Abort { replica: ReplicaId(1), reason: AbortReason::Late }),
        "{actions:?}"
    );
}

/// Its deadline passed while the node was away; only the coordinator knows what became of it.
#[test]
fn a_replica_with_a_checkpoint_is_started_again_however_late() {
    let late = |id| Lease {
        replica: ReplicaId(id),
        need: CORE,
        expires_at: Timestamp(900_000),
        begun: id == 1,
    };
    let leases = vec![late(1), late(2)];
    let mut env = TestEnv::restored(Restored { leases, ..Restored::default() });
    env.send(Event::Welcomed { heartbeat: HEARTBEAT });
    env.expect(&[
        fetch(1),
        fetch(2),
        Action::Abort { replica: ReplicaId(2), reason: AbortReason::Late },
        Action::Heartbeat { running: vec![ReplicaId(1), ReplicaId(2)], kept: vec![] },
        Action::AskForWork { free: cores(2), leases_max: 62 },
    ]);
    env.send(Event::Aborted { replica: ReplicaId(2) });
    env.send(ready(1));
    env.expect(&[start(1)]);
    env.send(Event::HeartbeatAnswered { abandon: vec![ReplicaId(1)], forget: vec![] });
    env.expect(&[Action::Abort { replica: ReplicaId(1), reason: AbortReason::NotNeeded }]);
}

#[test]
fn a_node_that_leaves_finishes_reports_and_goes() {
    let mut env = TestEnv::new();
    env.assign(&[1]);
    env.drain();
    env.send(Event::Leave { now: false });
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.send(ready(1));
    env.expect(&[start(1)]);
    env.send(finished(1));
    env.expect(&[Action::Report { replicas: vec![ReplicaId(1)] }]);
    env.send(Event::Reported { stored: vec![ReplicaId(1)], refused: vec![] });
    env.expect(&[]);
    env.advance(HEARTBEAT);
    env.drain();
    env.send(Event::HeartbeatAnswered { abandon: vec![], forget: vec![ReplicaId(1)] });
    env.expect(&[Action::Forget { replica: ReplicaId(1) }, Action::TakeLeave]);
    // It is over: not even a heartbeat follows.
    assert_eq!(env.agent.next_wake(), None);
    env.advance(HEARTBEAT);
    env.expect(&[]);
}

#[test]
fn a_node_that_leaves_now_drops_everything_and_goes_when_all_has_stopped() {
    let mut env = TestEnv::new();
    env.assign(&[1, 2, 3]);
    env.send(ready(1));
    env.send(ready(2));
    env.drain();
    env.send(finished(2));
    env.drain();
    env.send(Event::Leave { now: true });
    let abort = |id| Action::Abort { replica: ReplicaId(id), reason: AbortReason::Left };
    env.expect(&[abort(1), abort(3), Action::Forget { replica: ReplicaId(2) }]);
    // Its report was on its way, and so were more leases.
    env.send(Event::Reported { stored: vec![ReplicaId(2)], refused: vec![] });
    env.expect(&[Action::Forget { replica: ReplicaId(2) }]);
    env.assign(&[4]);
    env.expect(&[abort(4)]);
    for id in [1, 3] {
        env.send(Event::Aborted { replica: ReplicaId(id) });
        env.expect(&[]);
    }
    env.send(Event::Aborted { replica: ReplicaId(4) });
    env.expect(&[Action::TakeLeave]);
}

#[test]
fn a_node_that_stays_after_all_asks_again() {
    let mut env = TestEnv::new();
    env.send(Event::Assigned { leases: vec![], retry: RETRY });
    env.send(Event::Leave { now: false });
    env.expect(&[Action::TakeLeave]);
    env.send(Event::Stay);
    env.advance(RETRY);
    env.expect(&[
        Action::Heartbeat { running: vec![], kept: vec![] },
        Action::AskForWork { free: cores(4), leases_max: 64 },
    ]);
}

#[test]
fn stale_events_change_nothing() {
    let mut env = TestEnv::new();
    env.send(ready(99));
    env.send(finished(99));
    env.send(Event::Aborted { replica: ReplicaId(99) });
    env.send(Event::HeartbeatAnswered {
        abandon: vec![ReplicaId(99)],
        forget: vec![ReplicaId(98)],
    });
    env.expect(&[]);
    assert!(env.agent.is_idle());
}
