//! The tail of what a program printed: bounded, and safe to show on a terminal.
//!
//! A program may print without end; only the last [`LOG_TAIL_BYTES_MAX`] bytes are kept, and
//! they are escaped, because the person who reads them did not write the program.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use dockercomp_protocol::limits::LOG_TAIL_BYTES_MAX;

/// Keeps the last bytes written to it. Clones share one buffer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<u8>>>);

impl Tail {
    /// Adds bytes at the end, and forgets what no longer fits at the front.
    pub(crate) fn push(&self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES_MAX)..];
        // A panic cannot happen while the lock is held, and the bytes would still be bytes.
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let excess = (buffer.len() + kept.len()).saturating_sub(LOG_TAIL_BYTES_MAX);
        buffer.drain(..excess);
        buffer.extend(kept);
    }

    /// The tail as text of at most [`LOG_TAIL_BYTES_MAX`] bytes.
    pub(crate) fn render(&self) -> String {
        let bytes: Vec<u8> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        escape(&String::from_utf8_lossy(&bytes))
    }
}

/// Text that cannot steer a terminal, cut at its front to [`LOG_TAIL_BYTES_MAX`] bytes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && c != '\n' && c != '\t') || is_direction_mark(c) {
            write!(escaped, "{}", c.escape_unicode()).expect("writing to a String cannot fail");
        } else {
            escaped.push(c);
        }
    }
    let mut cut = escaped.len().saturating_sub(LOG_TAIL_BYTES_MAX);
    while !escaped.is_char_boundary(cut) {
        cut += 1;
    }
    escaped.split_off(cut)
}

/// Marks that reorder the text around them, and so make a line read as another one.
const fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let tail = Tail::default();
        for n in 0..10_000 {
            tail.push(format!("line {n}\n").as_bytes());
        }
        let text = tail.render();
        assert!(text.len() <= LOG_TAIL_BYTES_MAX);
        assert!(text.ends_with("line 9998\nline 9999\n"), "{text}");

        tail.push(&vec![b'x'; LOG_TAIL_BYTES_MAX * 3]);
        assert_eq!(tail.render(), "x".repeat(LOG_TAIL_BYTES_MAX));
    }

    #[test]
    fn escapes_what_could_steer_a_terminal() {
        let tail = Tail::default();
        tail.push(b"a\x1b[31mb\tc\r\nd\x00 \xff");
        tail.push("\u{202e}".as_bytes());
        assert_eq!(tail.render(), "a\\u{1b}[31mb\tc\\u{d}\nd\\u{0} \u{fffd}\\u{202e}");
    }

    /// Escaping makes text longer; the bound holds for what is reported.
    #[test]
    fn stays_bounded_after_escaping() {
        let tail = Tail::default();
        tail.push(&[0; LOG_TAIL_BYTES_MAX]);
        assert!(tail.render().len() <= LOG_TAIL_BYTES_MAX);
        tail.push(&[0xff; LOG_TAIL_BYTES_MAX]);
        assert!(tail.render().len() <= LOG_TAIL_BYTES_MAX);
    }
}
