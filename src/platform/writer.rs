//! Writes a device tree as a blob of version 17 (Devicetree Specification 0.4, chapter 5).
//!
//! It is never stricter than the reader, [`super::blob`]: a name is written as it is, however long, whatever it begins with.
//! What is written in the wrong order (a property behind a subnode) makes a blob that no reader takes.

use alloc::vec::Vec;

use super::blob::{BEGIN_NODE, END, END_NODE, HEADER, MAGIC, PROP, VERSION};

/// Names of properties that are looked up before they are written again: real trees have some hundred.
const MAX_SHARED_NAMES: usize = 4096;

/// A tree while it is written: nodes are begun and ended, a node's properties come before its subnodes.
#[derive(Default)]
pub struct Writer {
    reserved: Vec<u8>,
    structure: Vec<u8>,
    strings: Vec<u8>,
    /// Where in `strings` each name begins, sorted by name.
    names: Vec<u32>,
    /// Nodes that are begun and not ended.
    open: usize,
}

impl Writer {
    /// Begins a tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry to the memory reservation block.
    pub fn reserve(&mut self, address: u64, size: u64) {
        for number in [address, size] {
            self.reserved.extend(number.to_be_bytes());
        }
    }

    /// Begins a node below the one that is open; the root's name is empty.
    pub fn begin(&mut self, name: &str) {
        self.token(BEGIN_NODE);
        self.structure.extend(up_to_nul(name).bytes());
        self.structure.push(0);
        self.pad();
        self.open += 1;
    }

    /// Ends the node that was begun last.
    pub fn end(&mut self) {
        if self.open > 0 {
            self.token(END_NODE);
            self.open -= 1;
        }
    }

    /// Writes a property of the open node.
    pub fn property(&mut self, name: &str, value: &[u8]) {
        let name = self.name(up_to_nul(name));
        self.token(PROP);
        self.token(value.len() as u32);
        self.token(name);
        self.structure.extend(value);
        self.pad();
    }

    /// Writes a property that holds a string, of which a NUL would be the end.
    pub fn string(&mut self, name: &str, value: &str) {
        self.strings(name, &[up_to_nul(value)]);
    }

    /// Writes a property that holds a list of strings.
    pub fn strings(&mut self, name: &str, values: &[&str]) {
        let mut bytes = Vec::new();
        for value in values {
            bytes.extend(value.bytes());
            bytes.push(0);
        }
        self.property(name, &bytes);
    }

    /// Writes a property that holds cells.
    pub fn cells(&mut self, name: &str, cells: &[u32]) {
        let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        self.property(name, &bytes);
    }

    /// The blob; ends the nodes that are open.
    pub fn finish(mut self) -> Vec<u8> {
        while self.open > 0 {
            self.end();
        }
        self.token(END);
        self.reserve(0, 0);
        let structure = HEADER + self.reserved.len();
        let strings = structure + self.structure.len();
        let fields = [
            MAGIC as usize,
            strings + self.strings.len(),
            structure,
            strings,
            HEADER,
            VERSION as usize,
            // The oldest version that this one can be read as.
            16,
            // The boot CPU's `reg`, which nobody reads.
            0,
            self.strings.len(),
            self.structure.len(),
        ];
        let mut blob = Vec::with_capacity(strings + self.strings.len());
        blob.extend(
            fields
                .iter()
                .flat_map(|field| (*field as u32).to_be_bytes()),
        );
        for part in [&self.reserved, &self.structure, &self.strings] {
            blob.extend_from_slice(part);
        }
        blob
    }

    fn token(&mut self, token: u32) {
        self.structure.extend(token.to_be_bytes());
    }

    fn pad(&mut self) {
        let padded = self.structure.len().next_multiple_of(4);
        self.structure.resize(padded, 0);
    }

    /// Where in the strings block `name` is; puts it there if need be.
    fn name(&mut self, name: &str) -> u32 {
        let place = self
            .names
            .binary_search_by(|at| self.name_at(*at).cmp(name.as_bytes()));
        if let Some(known) = place.ok().and_then(|place| self.names.get(place)) {
            return *known;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.bytes());
        self.strings.push(0);
        // The limit keeps a tree of nothing but different names from moving this list for ever.
        if let Err(place) = place
            && self.names.len() < MAX_SHARED_NAMES
        {
            self.names.insert(place, at);
        }
        at
    }

    fn name_at(&self, at: u32) -> &[u8] {
        let rest = self.strings.get(at as usize..).unwrap_or(&[]);
        rest.split(|byte| *byte == 0).next().unwrap_or(&[])
    }
}

fn up_to_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::{MAX_SHARED_NAMES, Writer};
    use crate::platform::blob::Blob;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use std::io::Write;
    use std::process::{Command, Stdio};

    const LONG_NODE: &str = "regulator-with-a-very-long-node-name-of-over-31-letters@0";
    const LONG_PROPERTY: &str = "samsung,exynos-sataphy-i2c-phandle";

    fn sample() -> Vec<u8> {
        let mut writer = Writer::new();
        writer.reserve(0x4000_0000, 0x1000);
        writer.begin("");
        writer.string("model", "a\0b");
        writer.strings("compatible", &["x,y"]);
        writer.begin(LONG_NODE);
        writer.cells(LONG_PROPERTY, &[1, 0xffff_ffff]);
        writer.property("odd", &[1, 2, 3]);
        writer.end();
        writer.begin("1w@0");
        writer.property("odd", &[]);
        writer.begin("_");
        writer.finish()
    }

    /// What dtc reads in a blob; `None` where there is no dtc.
    fn source_by_dtc(blob: &[u8]) -> Option<String> {
        let mut dtc = Command::new("dtc")
            .args(["-q", "-I", "dtb", "-O", "dts", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        dtc.stdin.take().unwrap().write_all(blob).unwrap();
        let output = dtc.wait_with_output().unwrap();
        assert!(output.status.success());
        Some(String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn a_blob_has_all_that_was_written_in_its_order() {
        let blob = sample();
        let checked = Blob::check(&blob).unwrap();
        assert_eq!(checked.reserved(), [(0x4000_0000, 0x1000)]);
        let fdt = fdt::Fdt::new(&blob).unwrap();
        let nodes: Vec<&str> = fdt.all_nodes().map(|node| node.name).collect();
        assert_eq!(nodes, ["/", LONG_NODE, "1w@0", "_"]);
        let root = fdt.find_node("/").unwrap();
        assert_eq!(root.property("model").unwrap().value, b"a\0");
        assert_eq!(root.property("compatible").unwrap().value, b"x,y\0");
        let node = fdt.all_nodes().nth(1).unwrap();
        let value = node.property(LONG_PROPERTY).unwrap().value;
        assert_eq!(value, [0, 0, 0, 1, 255, 255, 255, 255]);
        assert_eq!(node.property("odd").unwrap().value, [1, 2, 3]);
    }

    #[test]
    fn dtc_reads_what_is_written() {
        let Some(source) = source_by_dtc(&sample()) else {
            return;
        };
        let words: Vec<&str> = source.split_ascii_whitespace().collect();
        let expected = format!(
            "/dts-v1/; /memreserve/ 0x0000000040000000 0x0000000000001000; / {{ model = \"a\"; \
             compatible = \"x,y\"; {LONG_NODE} {{ {LONG_PROPERTY} = <0x01 0xffffffff>; \
             odd = [01 02 03]; }}; 1w@0 {{ odd; _ {{ }}; }}; }};"
        );
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_name_is_kept_once() {
        let size = |names: usize, times: usize| {
            let mut writer = Writer::new();
            writer.begin("");
            for n in 0..names * times {
                writer.property(&format!("p{:05}", n % names), &[]);
            }
            let blob = writer.finish();
            Blob::check(&blob).unwrap();
            blob.len()
        };
        let entry = 12;
        let shared = MAX_SHARED_NAMES;
        assert_eq!(size(shared, 2) - size(shared, 1), shared * entry);
        // What is beyond the limit is written again, and read all the same.
        let beyond = size(shared + 1, 2) - size(shared + 1, 1);
        assert_eq!(beyond, (shared + 1) * entry + "p00000\0".len());
    }

    #[test]
    fn an_end_too_many_changes_nothing() {
        let mut writer = Writer::new();
        writer.begin("");
        writer.end();
        writer.end();
        Blob::check(&writer.finish()).unwrap();
    }
}
