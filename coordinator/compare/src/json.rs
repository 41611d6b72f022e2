//! JSON: the same structure and texts, and numbers that are equal or close.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use crate::Tolerance;
use crate::files::Verdict;

/// The longest JSON document that is compared value by value, in bytes: it is held in memory
/// whole, twice, at several times its size.
pub const JSON_BYTES_MAX: u64 = 64 << 20;

/// Compares two documents.
pub(crate) fn compare_document(a: &Path, b: &Path, tolerance: &Tolerance) -> Verdict {
    match (read(a), read(b)) {
        (Some(a), Some(b)) => verdict(difference(&a, &b, tolerance), ""),
        (None, _) | (_, None) => Verdict::NotThatKind,
    }
}

fn read(path: &Path) -> Option<Value> {
    let fits = fs::metadata(path).ok()?.len() <= JSON_BYTES_MAX;
    fits.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok()).flatten()
}

/// Compares two files of one document a line.
pub(crate) fn compare_lines(a: &Path, b: &Path, tolerance: &Tolerance) -> Verdict {
    let (Ok(a), Ok(b)) = (File::open(a), File::open(b)) else { return Verdict::NotThatKind };
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    for line in 1.. {
        match (next(&mut a), next(&mut b)) {
            (Next::Value(a), Next::Value(b)) => {
                if let Some(place) = difference(&a, &b, tolerance) {
                    return verdict(Some(place), &format!("line {line}, "));
                }
            }
            (Next::End, Next::End) => break,
            (Next::Unreadable, _) | (_, Next::Unreadable) => return Verdict::NotThatKind,
            (Next::Value(_), Next::End) | (Next::End, Next::Value(_)) => {
                return Verdict::Differ(format!("line {line}, where one of them ends"));
            }
        }
    }
    Verdict::Match
}

enum Next {
    Value(Value),
    End,
    Unreadable,
}

fn next(reader: &mut impl BufRead) -> Next {
    let mut line = Vec::new();
    let mut bounded = reader.by_ref().take(JSON_BYTES_MAX);
    match bounded.read_until(b'\n', &mut line) {
        Ok(0) => Next::End,
        Ok(_) => serde_json::from_slice(&line).map_or(Next::Unreadable, Next::Value),
        Err(_) => Next::Unreadable,
    }
}

fn verdict(place: Option<String>, before: &str) -> Verdict {
    place.map_or(Verdict::Match, |place| {
        let place = if place.is_empty() { "its root".to_owned() } else { place };
        Verdict::Differ(format!("{before}{place}"))
    })
}

/// The first place at which two values differ, as a JSON pointer (RFC 6901). The order of keys
/// means nothing.
fn difference(a: &Value, b: &Value, tolerance: &Tolerance) -> Option<String> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let close = x == y
                || matches!((x.as_f64(), y.as_f64()), (Some(x), Some(y)) if tolerance.close(x, y));
            (!close).then(String::new)
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(index, (a, b))| {
                difference(a, b, tolerance).map(|rest| format!("/{index}{rest}"))
            })
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            a.iter().find_map(|(key, a)| {
                let place = match b.get(key) {
                    Some(b) => difference(a, b, tolerance),
                    None => Some(String::new()),
                };
                let escaped = || key.replace('~', "~0").replace('/', "~1");
                place.map(|rest| format!("/{}{rest}", escaped()))
            })
        }
        (a, b) => (a != b).then(String::new),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_difference_has_a_pointer() {
        let tolerance = Tolerance::new(1e-3, 0.0).expect("a tolerance");
        let differ = |a, b| difference(&a, &b, &tolerance);
        assert_eq!(differ(json!({"a": [1.0, "x"]}), json!({"a": [1.0001, "x"]})), None);
        assert_eq!(differ(json!({"a": 1, "b": 2}), json!({"b": 2.0, "a": 1.0})), None);
        assert_eq!(differ(json!({"a": [1, 2]}), json!({"a": [1, 3]})), Some("/a/1".into()));
        assert_eq!(differ(json!({"a/b": 1}), json!({"c": 1})), Some("/a~1b".into()));
        assert_eq!(differ(json!([1]), json!([1, 1])), Some(String::new()));
        assert_eq!(differ(json!("1"), json!(1)), Some(String::new()));
    }

    #[test]
    fn lines_are_compared_one_by_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("a file");
            path
        };
        let tolerance = Tolerance::new(1e-3, 0.0).expect("a tolerance");
        let a = write("a", "{\"x\":1}\n{\"x\":2}\n");
        let close = write("close", "{\"x\": 1.0005}\n{\"x\": 2}\n");
        let far = write("far", "{\"x\":1}\n{\"x\":3}\n");
        let short = write("short", "{\"x\":1}\n");
        let broken = write("broken", "{\"x\":1}\n{\n");
        assert_eq!(compare_lines(&a, &close, &tolerance), Verdict::Match);
        assert_eq!(compare_lines(&a, &far, &tolerance), Verdict::Differ("line 2, /x".into()));
        assert!(matches!(compare_lines(&a, &short, &tolerance), Verdict::Differ(_)));
        assert_eq!(compare_lines(&a, &broken, &tolerance), Verdict::NotThatKind);
    }
}
