//! The lines that dom0 and the domain with the input have begun and not ended.
//!
//! Their text appears as it is written, so a line of somebody else's may have to be printed in the middle of theirs. The line on
//! the screen is ended then, and when its domain goes on, it is begun again from its start: every line is whole somewhere.

use arrayvec::ArrayVec;

use crate::id::DomId;

/// Bytes of a line that can be printed again. A longer one goes on without its end.
const MOST: usize = 512;

/// The visible part of a line: no escape sequence, and nothing that was erased or written over.
struct Text {
    bytes: ArrayVec<u8, MOST>,
    sequence: Sequence,
    /// The cursor has gone back to the start of the line.
    returned: bool,
}

/// The place in an escape sequence (ECMA-48).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sequence {
    No,
    /// Behind ESC.
    Begun,
    /// Behind ESC and `[`, before the letter that ends it.
    Inside,
}

impl Text {
    const fn new() -> Self {
        Self {
            bytes: ArrayVec::new_const(),
            sequence: Sequence::No,
            returned: false,
        }
    }

    fn add(&mut self, byte: u8) {
        self.sequence = match (self.sequence, byte) {
            (_, 0x1b) => Sequence::Begun,
            (Sequence::Begun, b'[') => Sequence::Inside,
            (Sequence::Inside, b' '..=b'?') => Sequence::Inside,
            (Sequence::Begun | Sequence::Inside, _) => Sequence::No,
            (Sequence::No, byte) => {
                self.show(byte);
                Sequence::No
            }
        };
    }

    fn show(&mut self, byte: u8) {
        match byte {
            b'\n' => self.clear(),
            b'\r' => self.returned = true,
            0x08 => self.bytes.truncate(self.bytes.len().saturating_sub(1)),
            b'\t' | b' '..=b'~' | 0x80.. => {
                if core::mem::take(&mut self.returned) {
                    self.bytes.clear();
                }
                if !self.bytes.is_full() {
                    self.bytes.push(byte);
                }
            }
            _ => {}
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.returned = false;
    }
}

/// The line on the screen, and the lines that are not ended.
pub(super) struct OpenLines {
    /// The domain whose line the cursor is in.
    current: Option<DomId>,
    dom0: Text,
    /// The line of the last other domain that had the input.
    other: Text,
    other_domain: Option<DomId>,
}

impl OpenLines {
    /// No line.
    pub const fn new() -> Self {
        Self {
            current: None,
            dom0: Text::new(),
            other: Text::new(),
            other_domain: None,
        }
    }

    /// Ends the line that the cursor is in; true if there was one.
    pub fn interrupt(&mut self) -> bool {
        self.current.take().is_some()
    }

    /// Returns whether the cursor is in the line of somebody else than `domain`.
    pub fn is_in_another(&self, domain: DomId) -> bool {
        self.current.is_some_and(|current| current != domain)
    }

    /// Returns whether the cursor is in a line that is not ended.
    pub fn is_in_any(&self) -> bool {
        self.current.is_some()
    }

    /// Returns what `domain` has written of a line that is not ended.
    pub fn begun(&mut self, domain: DomId) -> ArrayVec<u8, MOST> {
        self.text(domain).bytes.clone()
    }

    /// Notes what `domain` has written.
    pub fn wrote(&mut self, domain: DomId, data: &[u8]) {
        let Some(last) = data.last() else { return };
        let text = self.text(domain);
        for byte in data {
            text.add(*byte);
        }
        self.current = (*last != b'\n').then_some(domain);
    }

    fn text(&mut self, domain: DomId) -> &mut Text {
        if domain == DomId::DOM0 {
            return &mut self.dom0;
        }
        if self.other_domain != Some(domain) {
            self.other_domain = Some(domain);
            self.other = Text::new();
        }
        &mut self.other
    }
}

#[cfg(test)]
mod tests {
    use super::{DomId, MOST, OpenLines};

    const ONE: DomId = DomId(1);

    /// Returns what is printed again after these bytes and an interruption.
    fn again(written: &[u8]) -> Vec<u8> {
        let mut lines = OpenLines::new();
        lines.wrote(ONE, written);
        lines.interrupt();
        lines.begun(ONE).to_vec()
    }

    #[test]
    fn what_was_visible_is_printed_again() {
        assert_eq!(again(b"ended\nbegun"), b"begun");
        assert_eq!(again(b"ended\r\n"), b"");
        assert_eq!(again(b"10%\r20%"), b"20%");
        assert_eq!(again(b"at the end\r"), b"at the end");
        assert_eq!(again(b"typo\x08\x08ed"), b"tyed");
        assert_eq!(again(b"\x1b[6n\x1b[1;31mred\x1b[0m\x07"), b"red");
        assert_eq!(again(&[b'x'; MOST + 9]), [b'x'; MOST]);
    }

    #[test]
    fn a_line_that_nobody_interrupts_is_not_begun_again() {
        let mut lines = OpenLines::new();
        assert!(!lines.interrupt());
        lines.wrote(ONE, b"begun");
        assert!(lines.is_in_any() && !lines.is_in_another(ONE));
        assert!(lines.is_in_another(DomId::DOM0));
    }

    #[test]
    fn dom0_and_another_domain_have_a_line_each() {
        let mut lines = OpenLines::new();
        lines.wrote(ONE, b"one");
        assert!(lines.interrupt());
        lines.wrote(DomId::DOM0, b"zero");
        assert!(lines.interrupt());
        assert_eq!(lines.begun(ONE).as_slice(), b"one");
        assert_eq!(lines.begun(DomId::DOM0).as_slice(), b"zero");
        // The input has moved on: the line of the one before is over.
        assert!(lines.begun(DomId(2)).is_empty() && lines.begun(ONE).is_empty());
    }
}
