//! Scenario files that are wrong, and what is said about them; and the gallery, which is not.

use std::path::{Path, PathBuf};

use super::{Document, FileError, sweep};
use crate::Scenario;
use crate::study::{CellResult, End, SeedRun, Verdict};

const SMALL: &str = r#"
schema = 1
kind = "volunteers"
population = 10

[hosts.saboteurs]
share = 0.2
behaviour = "saboteur"

[hosts.honest]
speed = "10 GFLOPS"

[jobs.main]
units = 5
run = "30s..120s"

[jobs.main.validation]
policy = "fixed"
min_quorum = 2
"#;

fn gallery() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// Reads the small scenario with one text replaced, all the way to a model.
fn read(replace: &str, by: &str) -> Result<Document, FileError> {
    assert!(SMALL.contains(replace), "{replace}");
    let table = toml::from_str(&SMALL.replace(replace, by)).expect("TOML");
    let document = Document::new("small".into(), table)?;
    for cell in document.cells()? {
        document.model(&cell)?;
    }
    Ok(document)
}

fn refused(replace: &str, by: &str) -> String {
    read(replace, by).expect_err(by).to_string()
}

#[test]
fn the_rest_of_the_population_is_the_group_that_states_no_number() {
    let table = toml::from_str(SMALL).expect("TOML");
    let document = Document::new("small".into(), table).expect("a scenario");
    let body = document.body(&document.cells().expect("a cell")[0]).expect("a body");
    let scenario: Scenario = super::compile::volunteers(body).expect("a scenario");
    let counts: Vec<u32> = scenario.crowds.iter().map(|crowd| crowd.hosts).collect();
    // In the order of their names: honest, saboteurs.
    assert_eq!(counts, [8, 2]);
    // 10 GFLOPS beside the reference of 3.36.
    assert_eq!(scenario.crowds[0].speed, crate::Spread::Fixed(298));
}

#[test]
fn an_unknown_key_is_refused_and_the_nearest_is_named() {
    let message = refused("share = 0.2", "shore = 0.2");
    assert!(message.contains("unknown field `shore`"), "{message}");
    assert!(message.contains("did you mean `share`?"), "{message}");
    let message = refused("units = 5", "unit = 5");
    assert!(message.contains("did you mean `units`?"), "{message}");
    let message = refused("\"saboteur\"", "\"sabotuer\"");
    assert!(message.contains("did you mean `saboteur`?"), "{message}");
    let message = refused("population = 10", "populaton = 10");
    assert!(message.contains("did you mean `population`?"), "{message}");
}

#[test]
fn what_cannot_be_is_refused() {
    for (replace, by, message) in [
        ("\"10 GFLOPS\"", "\"-10 GFLOPS\"", "hosts.honest.speed: \"-10 GFLOPS\" is negative"),
        (
            "population = 10",
            "population = 0",
            "population: is 0: an empty network computes nothing",
        ),
        (
            "min_quorum = 2",
            "min_quorum = 11",
            "jobs.main.validation.min_quorum: is 11, larger than the network of 10 hosts",
        ),
        ("share = 0.2", "count = 11", "hosts: the groups have 11 hosts, population is 10"),
        (
            "share = 0.2",
            "share = 1.2",
            "hosts.saboteurs.share: is 1.2; a probability is from 0 to 1",
        ),
        (
            "\"saboteur\"",
            "\"saboteur\"\nrate = -0.1",
            "hosts.saboteurs.rate: is -0.1; a probability is from 0 to 1",
        ),
        (
            "\"30s..120s\"",
            "\"120s..30s\"",
            "jobs.main.run: impossible distribution: the range ends before it begins",
        ),
        ("\"saboteur\"", "\"sleeper\"", "hosts.saboteurs: behaviour sleeper needs wakes_after"),
        (
            "speed =",
            "detects = 0.5\nspeed =",
            "hosts.honest: detects means nothing to behaviour honest",
        ),
        (
            "population = 10",
            "population = 10\nengine = \"direct\"\n[network]\nloss = 0.1",
            "network: means nothing with engine = \"direct\"; write engine = \"full\"",
        ),
        ("schema = 1", "schema = 2", "schema: is 2, this program reads 1"),
        (
            "units = 5",
            "units = 0",
            "jobs: the job would have 0 work units; 1 to 100000000 are allowed",
        ),
    ] {
        assert_eq!(refused(replace, by), message);
    }
}

#[test]
fn an_expectation_about_an_axis_that_is_not_there_is_refused() {
    let expect = "[[expect]]\nmetric = \"x\"\nwhere = { f = 1 }\ntarget = 1.0\n\
                  tolerance = { sigma = 3.0 }\nsource = \"us\"\n[jobs.main]";
    let message = refused("[jobs.main]", expect);
    assert_eq!(message, "expect \"x\": names the axis \"f\", which the sweep does not have");
}

#[test]
fn files_that_include_each_other_are_refused() {
    let folder = std::env::temp_dir().join(format!("dockercomp-include-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("a.toml");
    std::fs::write(&path, "include = [\"a.toml\"]").expect("a file");
    let error = Document::load(&path, &[]).expect_err("a circle");
    std::fs::remove_dir_all(&folder).expect("it is ours");
    assert!(error.to_string().contains("do files include each other?"), "{error}");
}

/// Every file of the gallery can be run, in every cell.
#[test]
fn the_gallery_is_right() {
    let mut n = 0;
    for entry in std::fs::read_dir(gallery()).expect("a gallery") {
        let path = entry.expect("an entry").path();
        let document = Document::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        for cell in document.cells().expect("cells") {
            let model = document.model(&cell);
            model.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        n += 1;
    }
    assert!(n >= 4, "{n} files");
}

/// Sarmenta's voting at a small scale, by the files that have it at full scale. At phi = 0.35
/// one vote more or less moves the error by more than the tolerance.
#[test]
fn voting_is_within_its_tolerance() {
    for (name, kept) in [
        ("t1-voting.toml", ["phi=0.35 m=2", "phi=0.35 m=3"]),
        ("t1-voting-hypergeometric.toml", ["hosts=20 phi=0.35 m=2", "hosts=20 phi=0.35 m=3"]),
    ] {
        let settings = ["jobs.main.units=400".to_owned()];
        let document = Document::load(&gallery().join(name), &settings).expect("a scenario");
        let cells = document.cells().expect("cells").into_iter();
        let results: Vec<CellResult> = cells
            .map(|cell| {
                let model = document.model(&cell).expect("a model");
                (CellResult { cell, runs: Vec::new() }, model)
            })
            .filter(|(result, _)| kept.contains(&result.name().as_str()))
            .map(|(mut result, model)| {
                result.runs.push(SeedRun { seed: 1, end: End::Ran(model.run(1)) });
                result
            })
            .collect();
        assert_eq!(results.len(), kept.len());
        let verdicts = document.expectations.iter().flat_map(|e| e.judge(&results));
        let about = verdicts.filter(|v| v.measured.is_some() && v.metric == "accepted_error_rate");
        let about: Vec<_> = about.collect();
        assert_eq!(about.len(), kept.len());
        assert!(about.iter().all(Verdict::is_within), "{about:#?}");
    }
}

/// One cell of a file of the gallery, smaller: what it measures.
fn small(name: &str, cell: &str, settings: &[&str]) -> CellResult {
    let document = Document::load(&gallery().join(name), &[]).expect("a scenario");
    let mut cells = document.cells().expect("cells").into_iter();
    let mut result = CellResult { cell: sweep::Cell::default(), runs: Vec::new() };
    result.cell = cells
        .find(|candidate| CellResult { cell: candidate.clone(), runs: vec![] }.name() == cell)
        .expect("a cell of that name");
    for setting in settings {
        result.cell.settings.push(super::merge::parse_setting(setting).expect("a setting"));
    }
    let run = document.model(&result.cell).expect("a model").run(1);
    assert!(run.problems.is_empty(), "{:?}", run.problems);
    result.runs.push(SeedRun { seed: 1, end: End::Ran(run) });
    result
}

fn mean(result: &CellResult, metric: &str) -> f64 {
    crate::study::estimate(&result.measures(metric)).expect("a metric").mean
}

/// Colluders that always lie are never trusted, so adaptive replication accepts what a quorum
/// of two does, 0.085, at less than its cost of 2.32.
#[test]
fn adaptive_replication_stops_gross_cheats_only_as_a_quorum_does() {
    let settings = ["population=100", "jobs.main.units=2841"];
    let cell = "results a host=50 adversary=f=0.2 s=1";
    let result = small("t3-adaptive-replication.toml", cell, &settings);
    let (wrong, cost) = (mean(&result, "accepted_error_rate"), mean(&result, "replicas_per_unit"));
    assert!((0.069..0.101).contains(&wrong), "{wrong}");
    assert!((1.67..1.85).contains(&cost), "{cost}");
}

/// A fifth of the hosts collude and always lie: the owner's error rate holds, at no more
/// than the cost of three votes.
#[test]
fn credibility_keeps_to_the_accepted_error() {
    let settings = ["population=40", "jobs.main.units=1000"];
    let cell = "f=0.2 accepted error=0.01 s=1.0";
    let result = small("t2-spot-checks.toml", cell, &settings);
    let (wrong, cost) = (mean(&result, "accepted_error_rate"), mean(&result, "replicas_per_unit"));
    assert!(wrong <= 0.01, "{wrong}");
    assert!((1.5..2.6).contains(&cost), "{cost}");
}
