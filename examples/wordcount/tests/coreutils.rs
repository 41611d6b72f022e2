//! The program as work units meet it, held against coreutils.
//!
//! `check.sh` is what a user runs to check the network's answer, so it is run here on all the
//! bytes that could make a difference.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn wordcount(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wordcount"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("the program starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// The table of `check.sh`.
fn coreutils(corpus: &Path) -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("check.sh");
    let ran = Command::new("bash").arg(script).arg(corpus).output().expect("bash starts");
    assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
    ran.stdout
}

/// The table of the program, when the corpus is one work unit.
fn mapped_and_reduced(corpus: &Path) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (tables, result) = (directory.path().join("tables"), directory.path().join("result"));
    let unit = tables.join("00000000");
    fs::create_dir_all(&unit).expect("created");
    fs::create_dir(&result).expect("created");
    for arguments in [
        ["map", "--input", text(corpus), "--output", text(&unit)],
        ["reduce", "--input", text(&tables), "--output", text(&result)],
    ] {
        let ran = wordcount(&arguments);
        assert!(ran.status.success() && ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
    }
    fs::read(result.join("words.tsv")).expect("the table")
}

/// Bytes that look random, and are the same in every run.
fn noise(n_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(n_bytes);
    while bytes.len() < n_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push((state >> 32) as u8);
    }
    bytes
}

fn write(corpus: &Path, name: &str, bytes: &[u8]) {
    let path = corpus.join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("created");
    fs::write(path, bytes).expect("written");
}

#[test]
fn coreutils_agree_on_every_kind_of_file() {
    let corpus = tempfile::tempdir().expect("a temporary directory");
    let corpus = corpus.path();
    let all_bytes: Vec<u8> = (0..=255).collect();
    let all_bytes_between: Vec<u8> = (0..=255).flat_map(|byte| [b'q', byte, b'Q']).collect();
    let long: Vec<u8> =
        (60..70).flat_map(|n| ["k".repeat(n), " ".into()].concat().into_bytes()).collect();
    for (name, bytes) in [
        ("no end of line", &b"first second"[..]),
        ("a/no end of line", b"second third"),
        ("a/empty", b""),
        ("a/crlf.txt", b"One\r\nTWO\r\n\r\nthree\r\n"),
        ("b/\u{fc}nicode \u{1f600}", "Gr\u{fc}\u{df}e, na\u{ef}ve \u{3a9}".as_bytes()),
        ("b/c/d/e/f/-n", b"a name like an option"),
        ("b/ space and \n line feed", b"a name with separators"),
        ("%p %s \\0", b"a name like a format"),
        ("quote'\"", b"quoted"),
        (".hidden/.file", b"hidden words"),
        ("all", &all_bytes),
        ("all between", &all_bytes_between),
        ("zeros", &[0; 5000]),
        ("separators first", b"\n\n -- x"),
        ("long words", &long),
        ("one word", &[b'W'; 300_000]),
        ("noise", &noise(300_000)),
    ] {
        write(corpus, name, bytes);
    }
    for n_file in 0..300 {
        write(corpus, &format!("many/{}/{n_file}", n_file % 7), format!("file{n_file}").as_bytes());
    }
    std::os::unix::fs::symlink("all", corpus.join("link to a file")).expect("linked");
    std::os::unix::fs::symlink("many", corpus.join("link to a directory")).expect("linked");

    let table = mapped_and_reduced(corpus);
    assert_eq!(table.escape_ascii().to_string(), coreutils(corpus).escape_ascii().to_string());
    for line in ["\n1\tfirst\n", "\n2\tsecond\n", "\n1\tthird\n", "\n1\tfile299\n"] {
        let found = table.windows(line.len()).any(|part| part == line.as_bytes());
        assert!(found, "{line:?} is in neither table");
    }
}

#[test]
fn coreutils_agree_that_nothing_is_nothing() {
    let corpus = tempfile::tempdir().expect("a temporary directory");
    assert!(coreutils(corpus.path()).is_empty());
    assert!(mapped_and_reduced(corpus.path()).is_empty());
    write(corpus.path(), "empty", b"");
    write(corpus.path(), "separators", b" \n\xff\0");
    assert!(coreutils(corpus.path()).is_empty());
    assert!(mapped_and_reduced(corpus.path()).is_empty());
}

#[test]
fn errors_have_exit_codes() {
    for arguments in [&["map", "--inputs", "x"][..], &[], &["count"]] {
        let ran = wordcount(arguments);
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains("usage: wordcount map"));
    }
    let ran = wordcount(&["map", "--input", "/does/not/exist"]);
    assert_eq!(ran.status.code(), Some(1));
    let message = String::from_utf8_lossy(&ran.stderr);
    let start = "wordcount: failed to count the words: cannot list /does/not/exist: ";
    assert!(message.starts_with(start), "{message}");
    let ran = wordcount(&["--help"]);
    assert!(ran.status.success() && ran.stdout.starts_with(b"usage: wordcount map"));
}
