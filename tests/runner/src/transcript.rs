//! What the console said, and patterns on its lines.

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

    /// The first line not yet searched that matches one of `patterns`: the pattern's index and the line.
    /// The last line may be incomplete: a prompt has no end of line.
    pub fn find(&mut self, patterns: &[&str]) -> Option<(usize, String)> {
        while self.searched < self.text.len() {
            let rest = &self.text[self.searched..];
            let (line, step) = match rest.find('\n') {
                Some(end) => (&rest[..end], Some(end + 1)),
                None => (rest, None),
            };
            if let Some(index) = patterns.iter().position(|pattern| matches(line, pattern)) {
                let found = (index, line.to_owned());
                self.searched += step.unwrap_or(line.len());
                return Some(found);
            }
            self.searched += step?;
        }
        None
    }

    /// The last `count` lines.
    pub fn tail(&self, count: usize) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// Whether the pieces of `pattern` between `*` occur in `line`, in their order.
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
    fn each_line_is_found_once_even_when_it_arrives_in_parts() {
        let mut transcript = Transcript::default();
        transcript.push(b"boot\r\ndom0 i");
        assert_eq!(transcript.find(&["dom0 is up"]), None);
        transcript.push(b"s up\r\n/ # ");
        assert_eq!(
            transcript.find(&["panic", "dom0 is up"]),
            Some((1, "dom0 is up".into()))
        );
        assert_eq!(transcript.find(&["dom0 is up"]), None);
        assert_eq!(transcript.find(&["# "]), Some((0, "/ # ".into())));
        assert_eq!(transcript.find(&["# "]), None);
    }

    #[test]
    fn the_tail_is_the_last_lines() {
        let mut transcript = Transcript::default();
        transcript.push(b"a\nb\nc");
        assert_eq!(transcript.tail(2), "b\nc");
    }
}
