//! The console's lines, and patterns on them.

/// Everything a console printed, and how far it has been searched.
#[derive(Default)]
pub struct Transcript {
    text: String,
    searched: usize,
}

impl Transcript {
    pub fn push(&mut self, bytes: &[u8]) {
        self.text.extend(
            String::from_utf8_lossy(bytes)
                .chars()
                .filter(|c| *c != '\r'),
        );
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the bytes up to the end of the line found last.
    pub fn searched(&self) -> usize {
        self.searched
    }

    /// Returns the first complete line not yet searched that matches one of `patterns`: the pattern's index and the line.
    pub fn find_line(&mut self, patterns: &[&str]) -> Option<(usize, String)> {
        while let Some(end) = self.text[self.searched..].find('\n') {
            let line = &self.text[self.searched..self.searched + end];
            self.searched += end + 1;
            if let Some(index) = patterns.iter().position(|pattern| matches(line, pattern)) {
                return Some((index, line.to_owned()));
            }
        }
        None
    }

    /// Returns whether the last line, not yet complete, matches `pattern`: a prompt has no end of line.
    pub fn is_at_prompt(&self, pattern: &str) -> bool {
        matches(self.text.rsplit('\n').next().unwrap_or_default(), pattern)
    }

    /// Returns the last `count` lines.
    pub fn tail(&self, count: usize) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// Returns whether the pieces of `pattern` between `*` occur in `line`, in their order.
pub fn matches(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('*').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::{Transcript, matches};

    #[test]
    fn a_pattern_is_pieces_in_order() {
        assert!(matches(
            "(XEN) done: 12 ok, 0 failed",
            "done: * ok, * failed"
        ));
        assert!(!matches("0 failed, done: 12 ok", "done: * ok, * failed"));
    }

    #[test]
    fn each_line_is_found_once_and_only_when_complete() {
        let mut transcript = Transcript::default();
        transcript.push(b"boot\r\ndom0 is u");
        assert_eq!(transcript.find_line(&["dom0 is"]), None);
        transcript.push(b"p\r\n");
        assert_eq!(
            transcript.find_line(&["panic", "dom0 is"]),
            Some((1, "dom0 is up".into()))
        );
        assert_eq!(transcript.find_line(&["dom0 is"]), None);
    }

    #[test]
    fn a_prompt_is_the_unfinished_last_line() {
        let mut transcript = Transcript::default();
        transcript.push(b"# no prompt\n");
        assert!(!transcript.is_at_prompt("# "));
        transcript.push(b"/ # ");
        assert!(transcript.is_at_prompt("# "));
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut transcript = Transcript::default();
        transcript.push(b"a\nb\nc");
        assert_eq!(transcript.tail(2), "b\nc");
    }
}
