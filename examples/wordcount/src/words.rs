//! What a word is, and how bytes become words.
//!
//! A word is a run of ASCII letters and digits that is as long as possible. Capital letters
//! count as small ones. Every other byte separates words, and so does the end of a file: the
//! bytes of UTF-8 beyond ASCII are separators like spaces, and binary files are files like any
//! other. Of a word of more than [`WORD_BYTES_MAX`] bytes only the first of them count, so
//! that a gigabyte without a separator needs no gigabyte of memory.
//!
//! # Shape
//!
//! ```text
//! bytes of a file, in pieces ──feed──► a word whenever one ends
//! end of the file ────────────finish─► the last word
//! ```

/// Number of bytes of a word that count.
pub(crate) const WORD_BYTES_MAX: usize = 64;

/// What each byte is in a word: itself, the small letter for a capital one, or 0 if it
/// separates words.
const IN_WORD: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Finds the words of one file, which may come in pieces of any size.
#[derive(Debug)]
pub(crate) struct Words {
    word: [u8; WORD_BYTES_MAX],
    length: usize,
}

impl Words {
    /// The beginning of a file.
    pub(crate) fn new() -> Self {
        Self { word: [0; WORD_BYTES_MAX], length: 0 }
    }

    /// Takes the next bytes of the file, and gives every word that ends in them.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(&[u8])) {
        for &byte in bytes {
            let byte = IN_WORD[usize::from(byte)];
            if byte == 0 {
                self.end_word(&mut found);
            } else if self.length < WORD_BYTES_MAX {
                self.word[self.length] = byte;
                self.length += 1;
            }
        }
    }

    /// The end of the file, which ends a word.
    pub(crate) fn finish(mut self, mut found: impl FnMut(&[u8])) {
        self.end_word(&mut found);
    }

    fn end_word(&mut self, found: &mut impl FnMut(&[u8])) {
        if self.length > 0 {
            found(&self.word[..self.length]);
            self.length = 0;
        }
    }
}

/// Whether [`Words`] can give this word: anything else in a table is an error.
pub(crate) fn is_word(bytes: &[u8]) -> bool {
    let whole = |&byte: &u8| byte != 0 && IN_WORD[usize::from(byte)] == byte;
    (1..=WORD_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let mut found = Vec::new();
        let mut keep = |word: &[u8]| {
            assert!(is_word(word), "{word:?}");
            found.push(String::from_utf8_lossy(word).into_owned());
        };
        let mut words = Words::new();
        for piece in pieces {
            words.feed(piece, &mut keep);
        }
        words.finish(&mut keep);
        found
    }

    fn words(bytes: &[u8]) -> Vec<String> {
        words_of_pieces(std::iter::once(bytes))
    }

    #[test]
    fn letters_and_digits_make_words() {
        assert_eq!(words(b"It's 2 o'clock -- HTML5!"), ["it", "s", "2", "o", "clock", "html5"]);
        assert_eq!(words(b"one\r\ntwo\r\n\r\nthree"), ["one", "two", "three"]);
        assert_eq!(words(b"snake_case.x\0y\x7fz"), ["snake", "case", "x", "y", "z"]);
        assert_eq!(words("na\u{ef}ve \u{3a9}mega".as_bytes()), ["na", "ve", "mega"]);
        assert_eq!(words(b"@[`{/:AZaz09"), ["azaz09"]);
    }

    #[test]
    fn nothing_has_no_words() {
        assert!(words(b"").is_empty());
        assert!(words(b" \r\n\t\0\xff\xfe").is_empty());
    }

    #[test]
    fn of_long_words_only_the_beginning_counts() {
        let text = [&[b'A'; 64][..], b" ", &[b'b'; 65], b" ", &[b'c'; 200_000]].concat();
        assert_eq!(words(&text), ["a".repeat(64), "b".repeat(64), "c".repeat(64)]);
    }

    #[test]
    fn pieces_of_any_size_give_the_same_words() {
        let text = b"The quick  brown\r\nfox -- jumps over 13 lazy d\xc3\xb6gs_";
        for size in 1..text.len() {
            assert_eq!(words_of_pieces(text.chunks(size)), words(text), "pieces of {size}");
        }
    }

    #[test]
    fn only_words_are_words() {
        for no_word in [&b""[..], b"A", b"a b", b"\0", b"\xc3", &[b'a'; 65]] {
            assert!(!is_word(no_word), "{no_word:?}");
        }
    }
}
