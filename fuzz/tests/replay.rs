//! The corpus of each target is given to it: nothing panics, and each target accepts some of
//! its own, for a corpus of nothing but rubbish would test only the first check.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dockercomp_fuzz::{TARGETS, run};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect()
}

#[test]
fn each_corpus_holds() {
    for (name, target) in TARGETS {
        let entries = fs::read_dir(folder("corpus").join(name)).expect("a corpus");
        let inputs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        let accepted = inputs.iter().filter(|path| target(&fs::read(path).expect("a file")));
        assert!(accepted.count() > 0, "{name}: nothing in the corpus is a valid value");
    }
}

#[test]
fn each_target_has_a_program_and_a_corpus_and_nothing_is_left_over() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("fuzz_targets")), targets);
    assert_eq!(names(&folder("corpus")), targets);
}

/// Every input of every corpus, cut short and with each of its first bytes changed.
#[test]
fn nothing_panics_near_the_corpus() {
    for (name, _) in TARGETS {
        for entry in fs::read_dir(folder("corpus").join(name)).expect("a corpus") {
            let whole = fs::read(entry.expect("an entry").path()).expect("a file");
            for cut in 0..whole.len().min(64) {
                run(name, &whole[..cut]);
                let mut changed = whole.clone();
                changed[cut] ^= 0x11;
                run(name, &changed);
            }
        }
    }
}
