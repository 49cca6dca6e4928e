//! `vm-fdt`'s writer, with what it refuses turned into notes where a boot can do without.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use vm_fdt::{Error, FdtWriter, FdtWriterNode};

use crate::platform::BootError;

pub(super) struct Writer {
    fdt: FdtWriter,
    notes: Vec<String>,
}

impl Writer {
    pub(super) fn new() -> Result<Self, BootError> {
        Ok(Self {
            fdt: FdtWriter::new().map_err(failed)?,
            notes: Vec::new(),
        })
    }

    /// Opens a node; `None` when its name is refused, and then nothing of it may be written.
    pub(super) fn begin(
        &mut self,
        name: &str,
        path: &str,
    ) -> Result<Option<FdtWriterNode>, BootError> {
        match self.fdt.begin_node(name) {
            Ok(node) => Ok(Some(node)),
            Err(Error::InvalidNodeName) => {
                self.notes
                    .push(format!("DOM0: {path} left out: its name is refused"));
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) fn end(&mut self, node: FdtWriterNode) -> Result<(), BootError> {
        self.fdt.end_node(node).map_err(failed)
    }

    /// Copies a property of the host's tree.
    pub(super) fn property(
        &mut self,
        path: &str,
        name: &str,
        value: &[u8],
    ) -> Result<(), BootError> {
        match self.fdt.property(name, value) {
            Err(Error::InvalidPropertyName) => {
                self.notes.push(format!(
                    "DOM0: property {name} of {path} left out: its name is refused"
                ));
                Ok(())
            }
            result => result.map_err(failed),
        }
    }

    pub(super) fn bytes(&mut self, name: &str, value: &[u8]) -> Result<(), BootError> {
        self.fdt.property(name, value).map_err(failed)
    }

    pub(super) fn string(&mut self, name: &str, value: &str) -> Result<(), BootError> {
        // A command line with a NUL in it would be refused; what follows the NUL nobody would read.
        let value = value.split('\0').next().unwrap_or("");
        self.fdt.property_string(name, value).map_err(failed)
    }

    pub(super) fn strings(&mut self, name: &str, values: &[&str]) -> Result<(), BootError> {
        let mut bytes = Vec::new();
        for value in values {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        }
        self.bytes(name, &bytes)
    }

    pub(super) fn cells(&mut self, name: &str, cells: &[u32]) -> Result<(), BootError> {
        self.fdt.property_array_u32(name, cells).map_err(failed)
    }

    pub(super) fn finish(self) -> Result<(Vec<u8>, Vec<String>), BootError> {
        Ok((self.fdt.finish().map_err(failed)?, self.notes))
    }
}

fn failed(error: Error) -> BootError {
    BootError::Dom0(format!("device tree: {error}"))
}
