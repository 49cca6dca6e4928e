//! Making an image.

use alloc::vec::Vec;

use super::DESCRIPTOR_WORDS;
use super::records::{Fields, Shape, Type};

/// Makes the records of an image, one after another.
pub struct Writer {
    words: Vec<u32>,
    /// Words that there is memory for.
    room: usize,
}

impl Writer {
    /// Returns the words of an image.
    pub fn words_of(shape: &Shape) -> usize {
        let records = Type::ALL
            .iter()
            .map(|kind| kind.instances(shape) as usize * (DESCRIPTOR_WORDS + kind.words()));
        records.sum::<usize>() + DESCRIPTOR_WORDS
    }

    /// Returns a writer for an image of this shape; `None` without memory.
    pub fn new(shape: &Shape) -> Option<Self> {
        let room = Self::words_of(shape);
        let mut words = Vec::new();
        words.try_reserve_exact(room).ok()?;
        Some(Self { words, room })
    }

    fn push(&mut self, word: u32) {
        if self.words.len() < self.room {
            self.words.push(word);
        }
    }

    /// Writes a record, whose words `fill` shows.
    pub fn record(
        &mut self,
        kind: Type,
        instance: u32,
        fill: impl FnOnce(&mut dyn FnMut(&mut u32)),
    ) {
        self.push(kind as u32 | instance << 16);
        self.push(4 * kind.words() as u32);
        fill(&mut |word| self.push(*word));
    }

    /// Writes a record that is a list of fields.
    pub fn fields(&mut self, kind: Type, instance: u32, fields: &mut impl Fields) {
        self.record(kind, instance, |show| fields.each(show));
    }

    /// Ends the image and returns it.
    pub fn finish(mut self) -> Vec<u32> {
        self.push(0);
        self.push(0);
        self.words
    }
}
