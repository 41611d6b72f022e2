//! A work unit that counts slowly, saves each step, and goes on from the last one.
//!
//! ```text
//! /checkpoint/count.txt ──begin there──► step, pause, save ──► … ──► /output/count.txt
//! ```
//!
//! The output depends on every step, and not on how often the program was interrupted.
//!
//! # Saving
//!
//! A checkpoint is written under another name, synced, and renamed: whoever is interrupted at any
//! instant finds the old one or the new one whole. One that makes no sense is not there.
//!
//! # Exit codes
//!
//! 0 for success, 1 if output or checkpoint cannot be written, 2 if the command line is wrong.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
usage: count SEED:STEPS:MILLISECONDS [--tell] [--into DIR] [--checkpoint DIR]

  takes so many steps, pauses for so many milliseconds after each, then writes count.txt

  --tell             also writes from.txt: the step from which it went on, 0 if from none;
                     so two outputs differ if one was interrupted
  --into DIR         /output unless given; it must exist
  --checkpoint DIR   /checkpoint unless given; it must exist";

fn main() -> ExitCode {
    let task = match parse(std::env::args_os().skip(1)) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("count: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match count(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("count: {error}");
            ExitCode::from(1)
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Task {
    seed: u64,
    steps: u64,
    pause: Duration,
    tell: bool,
    into: PathBuf,
    checkpoint: PathBuf,
}

/// How far the count is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    seed: u64,
    step: u64,
    value: u64,
}

/// Why a count came to nothing.
#[derive(Debug, thiserror::Error)]
enum CountError {
    #[error("cannot save step {step} in {}: {source}", folder.display())]
    Save { step: u64, folder: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

fn count(task: &Task) -> Result<(), CountError> {
    let mut count = match load(&task.checkpoint, task) {
        Some(count) => {
            eprintln!("count: goes on after step {}", count.step);
            count
        }
        None => {
            eprintln!("count: begins");
            Count::new(task.seed)
        }
    };
    let from = count.step;
    while count.step < task.steps {
        count.advance();
        std::thread::sleep(task.pause);
        save(&task.checkpoint, &count).map_err(|source| CountError::Save {
            step: count.step,
            folder: task.checkpoint.clone(),
            source,
        })?;
    }
    let Count { seed, step, value } = count;
    write(&task.into, "count.txt", &format!("seed {seed}, {step} steps, {value:016x}\n"))?;
    if task.tell {
        write(&task.into, "from.txt", &format!("{from}\n"))?;
    }
    Ok(())
}

impl Count {
    const fn new(seed: u64) -> Self {
        Self { seed, step: 0, value: seed }
    }

    /// Takes a step; the constants are Knuth's for MMIX.
    const fn advance(&mut self) {
        self.step += 1;
        self.value = self
            .value
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
    }

    fn render(&self) -> String {
        format!("{} {} {:016x}\n", self.seed, self.step, self.value)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (seed, step) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let value = words.next().filter(|word| word.len() == 16)?;
        let value = u64::from_str_radix(value, 16).ok()?;
        words.next().is_none().then_some(Self { seed, step, value })
    }
}

/// What an earlier attempt at this task has saved.
fn load(folder: &Path, task: &Task) -> Option<Count> {
    let text = fs::read_to_string(folder.join(SAVED)).ok()?;
    Count::parse(&text).filter(|count| count.seed == task.seed && count.step <= task.steps)
}

/// Saves the count: whole, or not at all.
fn save(folder: &Path, count: &Count) -> io::Result<()> {
    let new = folder.join(UNFINISHED);
    let mut file = File::create(&new)?;
    file.write_all(count.render().as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(new, folder.join(SAVED))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), CountError> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|source| CountError::Write { path, source })
}

/// Why a command line makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum UsageError {
    #[error("what to count is missing")]
    NoTask,
    #[error("{text:?} is not SEED:STEPS:MILLISECONDS")]
    Task { text: String },
    #[error("{option} needs a directory")]
    Directory { option: String },
    #[error("there is no option {option:?}")]
    Option { option: String },
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Task, UsageError> {
    let text = arguments.next().ok_or(UsageError::NoTask)?.to_string_lossy().into_owned();
    let Some([seed, steps, millis]) = numbers(&text) else {
        return Err(UsageError::Task { text });
    };
    let mut task = Task {
        seed,
        steps,
        pause: Duration::from_millis(millis),
        tell: false,
        into: PathBuf::from("/output"),
        checkpoint: PathBuf::from("/checkpoint"),
    };
    while let Some(option) = arguments.next() {
        let option = option.to_string_lossy().into_owned();
        let directory = match option.as_str() {
            "--tell" => {
                task.tell = true;
                continue;
            }
            "--into" => &mut task.into,
            "--checkpoint" => &mut task.checkpoint,
            _ => return Err(UsageError::Option { option }),
        };
        *directory = arguments.next().ok_or(UsageError::Directory { option })?.into();
    }
    Ok(task)
}

fn numbers(text: &str) -> Option<[u64; 3]> {
    let numbers: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
    numbers.ok()?.try_into().ok()
}

/// The checkpoint.
const SAVED: &str = "count.txt";
/// A checkpoint that is being written.
const UNFINISHED: &str = "count.new";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn task(into: &str, checkpoint: &str) -> Task {
        Task {
            seed: 7,
            steps: 9,
            pause: Duration::from_millis(150),
            tell: false,
            into: into.into(),
            checkpoint: checkpoint.into(),
        }
    }

    #[test]
    fn a_command_line_is_read() {
        let expected = task("/output", "/checkpoint");
        assert_eq!(parsed("7:9:150"), Ok(expected.clone()));
        assert_eq!(parsed("7:9:150 --tell"), Ok(Task { tell: true, ..expected }));
        assert_eq!(parsed("7:9:150 --checkpoint there --into here"), Ok(task("here", "there")));
        assert_eq!(parsed(""), Err(UsageError::NoTask));
        for wrong in ["7:9", "7:9:", "7:9:150:1", "x:9:150", "7:-9:150"] {
            assert_eq!(parsed(wrong), Err(UsageError::Task { text: wrong.into() }));
        }
        let option = "--into".to_owned();
        assert_eq!(parsed("7:9:150 --into"), Err(UsageError::Directory { option }));
        let option = "here".to_owned();
        assert_eq!(parsed("7:9:150 here"), Err(UsageError::Option { option }));
    }

    #[test]
    fn what_was_saved_is_loaded_and_anything_else_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let task = task("/output", "/checkpoint");
        assert_eq!(load(folder.path(), &task), None);
        let mut count = Count::new(7);
        for _ in 0..9 {
            count.advance();
            save(folder.path(), &count).expect("it is saved");
            assert_eq!(load(folder.path(), &task), Some(count));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert_eq!(load(folder.path(), &Task { seed: 8, ..task.clone() }), None, "another's");
        assert_eq!(load(folder.path(), &Task { steps: 8, ..task.clone() }), None, "too far");
        let whole = count.render();
        for end in 0..whole.len() {
            fs::write(folder.path().join(SAVED), &whole[..end]).expect("a file");
            assert_eq!(load(folder.path(), &task), None, "{end} bytes");
        }
    }
}
