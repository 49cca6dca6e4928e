//! Sample trees for tests, from the sources in `tests/dts`.
//!
//! A compiler for the part of the device tree source language that those use: nodes, labels, strings, cells, `&label`
//! references. `dtc` reads them too, but need not be there.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use dt::{Blob, Tree, Writer};

pub(crate) const VIRT: &str = include_str!("../../tests/dts/virt.dts");
pub(crate) const VEXPRESS: &str = include_str!("../../tests/dts/vexpress.dts");
pub(crate) const ARNDALE: &str = include_str!("../../tests/dts/arndale.dts");

/// Makes the blob of a source text.
pub(crate) fn compile(source: &str) -> Vec<u8> {
    let mut parser = Parser::new(source);
    // No word of the source becomes longer than this.
    let mut out = vec![0; 8 * source.len() + 4096];
    let mut writer = Writer::new(&mut out, source.len() + 1024);
    parser.reserved(&mut writer);
    parser.node("", &mut writer);
    let length = writer.finish().unwrap();
    out.truncate(length);
    out
}

/// Reads a blob, for as long as the tests run.
pub(crate) fn tree(blob: &[u8]) -> &'static Tree<'static> {
    let blob = Blob::check(blob.to_vec().leak()).unwrap();
    let entries = super::tree::entries(&blob).unwrap();
    let tree = super::tree::read(blob, entries.leak()).unwrap();
    vec![tree].leak().first().unwrap()
}

/// Makes the blob of a source text after textual replacements, each of which must be possible.
pub(crate) fn compile_with(source: &str, changes: &[(&str, &str)]) -> Vec<u8> {
    let mut text = source.to_string();
    for (from, to) in changes {
        assert!(text.contains(from), "no {from:?} in the sample");
        text = text.replace(from, to);
    }
    compile(&text)
}

struct Parser {
    tokens: Vec<String>,
    at: usize,
    labels: BTreeMap<String, u32>,
}

impl Parser {
    fn new(source: &str) -> Self {
        let mut tokens: Vec<String> = Vec::new();
        for (index, part) in source.split('"').enumerate() {
            if index % 2 == 1 {
                tokens.push(alloc::format!("\"{part}"));
                continue;
            }
            let lines = part.lines().map(|l| l.split("//").next().unwrap());
            for word in lines.flat_map(|l| l.split_ascii_whitespace()) {
                let mut word = word;
                while let Some(at) = word.find(['<', '>', '{', '}', ';', '=']) {
                    // A lone comma between two values needs no token.
                    if at > 0 && &word[..at] != "," {
                        tokens.push(word[..at].to_string());
                    }
                    tokens.push(word[at..=at].to_string());
                    word = &word[at + 1..];
                }
                if !word.is_empty() && word != "," {
                    tokens.push(word.to_string());
                }
            }
        }
        let labelled = tokens.iter().filter_map(|t| t.strip_suffix(':'));
        let labels = labelled
            .zip(1u32..)
            .map(|(l, n)| (l.to_string(), n))
            .collect();
        Self {
            tokens,
            at: 0,
            labels,
        }
    }

    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens[self.at - 1].clone()
    }

    /// Skips `/dts-v1/;`, reads `/memreserve/` lines, and stops behind the root's `/`.
    fn reserved(&mut self, writer: &mut Writer<'_>) {
        loop {
            match self.next().as_str() {
                "/" => return,
                "/memreserve/" => {
                    let (address, size) = (self.next(), self.next());
                    writer.reserve(number(&address), number(&size));
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, name: &str, writer: &mut Writer<'_>) {
        assert_eq!(self.next(), "{", "after {name}");
        writer.begin(name);
        let mut label = None;
        loop {
            let word = self.next();
            if let Some(l) = word.strip_suffix(':') {
                label = Some(self.labels[l]);
                continue;
            }
            if word == "}" {
                break;
            }
            match self.tokens[self.at].as_str() {
                "{" => {
                    self.begin_with_phandle(&word, label.take(), writer);
                }
                "=" => {
                    self.at += 1;
                    let value = self.value();
                    writer.property(&word, &value);
                }
                _ => {
                    assert_eq!(self.next(), ";", "after {word}");
                    writer.property(&word, &[]);
                }
            }
        }
        assert_eq!(self.next(), ";", "after {name}");
        writer.end();
    }

    /// A label's phandle must be written before the node's subnodes, so it is put at the front of the tokens.
    fn begin_with_phandle(&mut self, name: &str, label: Option<u32>, writer: &mut Writer<'_>) {
        if let Some(phandle) = label {
            let words = ["phandle", "=", "<", &phandle.to_string(), ">", ";"];
            let at = self.at + 1;
            self.tokens
                .splice(at..at, words.into_iter().map(ToString::to_string));
        }
        self.node(name, writer);
    }

    fn value(&mut self) -> Vec<u8> {
        let mut value = Vec::new();
        loop {
            let word = self.next();
            match word.as_str() {
                ";" => return value,
                "<" => loop {
                    let cell = self.next();
                    if cell == ">" {
                        break;
                    }
                    let cell = match cell.strip_prefix('&') {
                        Some(label) => self.labels[label],
                        None => u32::try_from(number(&cell)).unwrap(),
                    };
                    value.extend(cell.to_be_bytes());
                },
                word if word.starts_with('"') => {
                    value.extend(word[1..].bytes());
                    value.push(0);
                }
                word => panic!("{word:?} as a value"),
            }
        }
    }
}

fn number(word: &str) -> u64 {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => word.parse().unwrap(),
    }
}
