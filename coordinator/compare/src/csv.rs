//! Tables of text: the same rows, and fields that are equal or close.

use std::path::Path;

use crate::Tolerance;
use crate::files::Verdict;

/// Compares two tables whose fields are separated by `delimiter`. Rows may differ in length
/// from each other, but not between the tables.
pub(crate) fn compare(a: &Path, b: &Path, delimiter: u8, tolerance: &Tolerance) -> Verdict {
    let open = |path| {
        csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_path(path)
    };
    let (Ok(mut a), Ok(mut b)) = (open(a), open(b)) else { return Verdict::NotThatKind };
    let (mut row_a, mut row_b) = (csv::ByteRecord::new(), csv::ByteRecord::new());
    for row in 1.. {
        match (a.read_byte_record(&mut row_a), b.read_byte_record(&mut row_b)) {
            (Ok(true), Ok(true)) => {}
            (Ok(false), Ok(false)) => break,
            (Ok(_), Ok(_)) => return Verdict::Differ(format!("row {row}, where one of them ends")),
            (Err(_), _) | (_, Err(_)) => return Verdict::NotThatKind,
        }
        if row_a.len() != row_b.len() {
            return Verdict::Differ(format!("row {row}, which has more fields in one of them"));
        }
        let unlike = row_a.iter().zip(&row_b).position(|(a, b)| !close(a, b, tolerance));
        if let Some(field) = unlike {
            return Verdict::Differ(format!("row {row}, field {}", field + 1));
        }
    }
    Verdict::Match
}

/// Two fields are close if they are equal texts, or numbers within the tolerance.
fn close(a: &[u8], b: &[u8], tolerance: &Tolerance) -> bool {
    a == b || matches!((number(a), number(b)), (Some(a), Some(b)) if tolerance.close(a, b))
}

/// The number that a field holds, in any notation that Rust reads: `1`, `-1.5e-3`, `inf`, `NaN`.
fn number(field: &[u8]) -> Option<f64> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(a: &str, b: &str) -> Verdict {
        let folder = tempfile::tempdir().expect("a folder");
        let [a, b] = [("a", a), ("b", b)].map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        });
        compare(&a, &b, b',', &Tolerance::new(1e-3, 0.0).expect("a tolerance"))
    }

    #[test]
    fn numbers_may_be_close_and_texts_must_be_equal() {
        assert_eq!(verdict("name,1.0\n", "name,1.0001\n"), Verdict::Match);
        assert_eq!(verdict("\"a,b\", 2\n", "\"a,b\",2.000\n"), Verdict::Match);
        assert_eq!(verdict("nan,inf\n", "NaN,inf\n"), Verdict::Match);
        assert_eq!(verdict("name,1\n", "nome,1\n"), Verdict::Differ("row 1, field 1".into()));
        assert_eq!(verdict("1\n2\n", "1\n3\n"), Verdict::Differ("row 2, field 1".into()));
    }

    #[test]
    fn shape_counts() {
        assert!(matches!(verdict("1,2\n", "1\n"), Verdict::Differ(_)));
        assert!(matches!(verdict("1\n1\n", "1\n"), Verdict::Differ(_)));
    }
}
