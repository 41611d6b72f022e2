//! What is learnt of worlds that are known.

use std::time::Duration;

use dockercomp_protocol::codec;
use dockercomp_protocol::content::block_cid;
use dockercomp_protocol::statement::ResultStatement;

use super::*;
use crate::file::Document;
use crate::outcome::Outcome;
use crate::scenario::Churn;
use crate::{run, run_recorded};

const SEED: u64 = 7;

fn past(scenario: &Scenario) -> (Outcome, Past) {
    let (outcome, records) = run_recorded(scenario, SEED);
    assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
    let mut history = History::default();
    for record in &records {
        let wall = match record {
            Record::Reported { finding: Finding::Success { sealed, .. }, .. } => {
                let statement: ResultStatement = codec::decode(sealed).expect("a statement");
                Some(Duration::from_millis(statement.usage.wall_ms))
            }
            _ => None,
        };
        history.note(record, wall);
    }
    (outcome, history.finish().expect("there was work"))
}

/// A small network with fast and slow hosts, one that lies, a pair that lies alike, one whose
/// programs fail, and some that come and go.
fn world() -> Scenario {
    let mut scenario = Scenario::calm(0, 200);
    let crowd = |hosts, behaviour, percent, cores| Crowd {
        behaviour,
        speed: Spread::Fixed(percent),
        cores: Spread::Fixed(cores),
        ..Crowd::honest(hosts)
    };
    let alone = Deceit { rate: 0.3, ..Deceit::always(Answer::Own) };
    let pair = Deceit { rate: 0.4, together: true, ..Deceit::always(Answer::Shared) };
    let minutes = |low: u64, high: u64| {
        Spread::times(Duration::from_secs(60 * low), Duration::from_secs(60 * high))
    };
    let churn = Churn { up: minutes(8, 25), down: minutes(8, 25), departs: 0.0, day: None };
    scenario.crowds = vec![
        crowd(4, Behaviour::Honest, 100, 2),
        crowd(3, Behaviour::Honest, 300, 1),
        crowd(1, Behaviour::Deceiver(alone), 100, 1),
        crowd(2, Behaviour::Deceiver(pair), 100, 1),
        crowd(1, Behaviour::Flaky { failure: 0.25 }, 100, 1),
        Crowd { churn: Some(churn), ..crowd(4, Behaviour::Honest, 100, 1) },
    ];
    scenario.jobs[0].run = Spread::times(Duration::from_secs(60), Duration::from_secs(180));
    scenario.jobs[0].validation.delay_bound_ms = 10 * 60_000;
    scenario.faults_end = Duration::from_secs(8 * 3600);
    scenario
}

#[test]
fn hosts_and_jobs_are_found_again() {
    let mut scenario = world();
    // Three must agree: two who lie alike are not believed, as a smaller quorum would.
    let rules = &mut scenario.jobs[0].validation;
    (rules.min_quorum, rules.target_nresults) = (4, 4);
    let rules = rules.clone();
    let (_, past) = past(&scenario);
    let crowds = &past.scenario.crowds;
    assert_eq!(past.scenario.hosts(), 15);
    let lying = |wanted| {
        crowds.iter().filter_map(move |crowd| match crowd.behaviour {
            Behaviour::Deceiver(deceit) if deceit.answer == wanted => Some(deceit.rate),
            _ => None,
        })
    };
    let rates: Vec<f64> = lying(Answer::Own).chain(lying(Answer::Shared)).collect();
    assert_eq!(rates.len(), 3, "{rates:?}");
    assert_eq!(lying(Answer::Shared).count(), 2, "{rates:?}");
    assert!(rates.iter().all(|rate| (0.1..0.7).contains(rate)), "{rates:?}");
    let failing = crowds.iter().filter(|crowd| matches!(crowd.behaviour, Behaviour::Flaky { .. }));
    assert_eq!(failing.count(), 1);
    let fast: Vec<f64> = crowds.iter().map(|crowd| crowd.speed.mean()).collect();
    let slowest = fast.iter().copied().fold(f64::INFINITY, f64::min);
    let n_fast = fast.iter().filter(|speed| (2.5..3.6).contains(&(*speed / slowest))).count();
    assert_eq!(n_fast, 3, "{fast:?}");
    let two = crowds.iter().filter(|crowd| crowd.cores == Spread::Fixed(2)).count();
    assert_eq!(two, 4);
    let leaving = crowds.iter().filter(|crowd| crowd.trace.iter().any(|spells| spells.len() > 1));
    assert!((1..=4).contains(&leaving.count()));
    let job = &past.scenario.jobs[0];
    assert_eq!((job.units, job.submit), (200, Duration::ZERO));
    assert_eq!(job.validation, rules);
}

#[test]
fn a_past_that_is_run_again_is_like_it_was() {
    let (outcome, past) = past(&world());
    let target = |metric| {
        past.targets.iter().find(|target| target.metric == metric).expect("a target").value
    };
    let was = outcome.counters;
    let close = |measured: f64, target: f64, part: f64| (measured / target - 1.0).abs() <= part;
    assert!(close(was.replicas_per_unit(), target("replicas_per_unit"), 0.01));
    assert!(close(was.virtual_seconds, target("makespan_seconds"), 0.05));
    // As a file, read again.
    let text = past.table("a world of a test").to_string();
    let document = Document::new("past".into(), toml::from_str(&text).expect("TOML"));
    let document = document.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let cell = &document.cells().expect("a cell")[0];
    document.model(cell).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for seed in 1..=2 {
        let again = run(&past.scenario, seed);
        assert!(again.violations.is_empty(), "seed {seed}: {:?}", again.violations);
        let is = again.counters;
        assert_eq!(is.accepted, was.accepted);
        let replicas = (is.replicas_per_unit(), was.replicas_per_unit());
        assert!(close(replicas.0, replicas.1, 0.1), "seed {seed}: {replicas:?}");
        let makespan = (is.virtual_seconds, was.virtual_seconds);
        assert!(close(makespan.0, makespan.1, 0.25), "seed {seed}: {makespan:?}");
    }
}

#[test]
fn another_policy_costs_what_it_would_have_cost() {
    let with = |quorum| {
        let mut scenario = world();
        let rules = &mut scenario.jobs[0].validation;
        (rules.min_quorum, rules.target_nresults) = (quorum, quorum);
        scenario
    };
    let (_, mut past) = past(&with(2));
    let really = run(&with(3), SEED).counters.replicas_per_unit();
    let rules = &mut past.scenario.jobs[0].validation;
    (rules.min_quorum, rules.target_nresults) = (3, 3);
    let would = run(&past.scenario, SEED).counters.replicas_per_unit();
    assert!(really > 3.0 && (would / really - 1.0).abs() < 0.1, "{would} {really}");
}

#[test]
fn a_journal_without_results_gives_no_scenario() {
    assert!(matches!(History::default().finish(), Err(HistoryError::Nothing)));
    let mut history = History::default();
    history.note(&Record::Away { at: Timestamp(5), ms: 5 }, None);
    assert!(matches!(history.finish(), Err(HistoryError::Nothing)));
}

/// Told by hand: a result that comes after its deadline, and a job that is cancelled while a
/// host holds all that it can.
#[test]
fn late_results_count_and_cancelled_jobs_hold_nothing() {
    let mut history = History::default();
    let node = crate::names::name(1);
    let plan = JobPlan::new(1);
    let [first, second] = [b"first", b"other"].map(|name| block_cid(name));
    let terms = || Terms {
        need: dockercomp_protocol::wire::work::Capacity::default(),
        executors: vec![ExecutorKind::Wasm],
        dataset: None,
        validation: plan.validation.clone(),
        stages: vec![],
    };
    let at = |seconds: u64| Timestamp(seconds * 1000);
    let mut told = |record| history.note(&record, Some(Duration::from_secs(50)));
    let added = |seconds, job| {
        let seed = dockercomp_coordinator_core::Seed([0; 32]);
        Record::JobAdded { at: at(seconds), job, terms: terms(), units: 8, seed }
    };
    let leased = |seconds, replica, job| Record::Leased {
        at: at(seconds),
        replica: ReplicaId(replica),
        job,
        index: replica % 8,
        node,
        executor: ExecutorKind::Wasm,
        trusted: None,
        deadline: at(seconds + 100),
    };
    told(added(0, first));
    (0..8).for_each(|replica| told(leased(1, replica, first)));
    told(Record::JobCancelled { at: at(5), job: first });
    told(added(6, second));
    (8..16).for_each(|replica| told(leased(7, replica, second)));
    let late = ReplicaId(8);
    told(Record::Ended { at: at(107), replica: late, silence: Silence::NoReply });
    let output = block_cid(b"output");
    let finding = Finding::Success { output, claim: 0, sealed: vec![] };
    told(Record::Reported { at: at(200), replica: late, finding });
    told(Record::Accepted { at: at(201), job: second, index: 0, output });

    let past = history.finish().expect("a result");
    let [crowd] = &past.scenario.crowds[..] else { panic!("{:?}", past.scenario.crowds) };
    assert_eq!(crowd.cores, Spread::Fixed(4));
    // It never went: it was only slow.
    assert_eq!(crowd.trace.len(), 1);
    assert_eq!(crowd.trace[0].len(), 1, "{:?}", crowd.trace);
    assert_eq!(past.scenario.jobs.len(), 1, "nothing is known of what the first would have taken");
    let replicas = past.targets.iter().find(|target| target.metric == "replicas_per_unit");
    assert_eq!(replicas.map(|target| target.value), Some(1.0));
}
