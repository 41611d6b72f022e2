//! Worlds that fail are shrunk to what matters, and fail again from a file.

use crate::file::{Document, write};
use crate::minimise::{failure, minimise};
use crate::{Defect, Scenario};

/// The first drawn world in which a defect shows.
fn failing(defect: Defect) -> (Scenario, u64) {
    let worlds =
        (1..=20).map(|seed| (Scenario { defect: Some(defect), ..Scenario::fuzz(seed) }, seed));
    let mut failing = worlds.filter(|(world, seed)| failure(world, *seed).is_some());
    failing.next().expect("a defect that shows within 20 seeds")
}

#[test]
fn a_failing_world_shrinks_to_a_file_of_a_few_hosts_that_fails_the_same() {
    for defect in [Defect::LostDeadlines, Defect::QuorumOfOne, Defect::EarlyAnswers] {
        let (world, seed) = failing(defect);
        let smallest = minimise(&world, seed, &mut |_| ());
        assert!(smallest.hosts() < 10 && smallest.hosts() < world.hosts(), "{defect:?}");
        assert_eq!(failure(&smallest, seed), failure(&world, seed), "{defect:?}");

        let text = write(&smallest, "a regression").to_string();
        let table = toml::from_str(&text).expect("TOML");
        let document = Document::new("regression".into(), table).expect("a scenario");
        let cell = &document.cells().expect("a cell")[0];
        let again = document.model(cell).expect("a model").run(seed);
        let problems = crate::run(&smallest, seed).violations;
        assert!(!problems.is_empty(), "{defect:?}");
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let found: Vec<String> = again.problems.into_iter().map(|problem| problem.text).collect();
        assert_eq!(found, texts, "{defect:?}");
    }
}

#[test]
fn a_world_that_holds_is_left_alone() {
    let world = Scenario::calm(3, 5);
    assert_eq!(minimise(&world, 1, &mut |_| ()), world);
}
