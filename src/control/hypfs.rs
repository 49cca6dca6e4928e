//! hypfs_op (42): the hypervisor's file system, a small read-only tree.

use alloc::vec::Vec;

use armv7::addr::GuestVa;
use zerocopy::IntoBytes;

use super::authorize;
use crate::abi::hypfs::{self as abi, DirEntry};
use crate::call::guest_ptr::{copy_in, copy_out, write};
use crate::call::{Args, Caller, Outcome, Reply};
use crate::error::Errno;
use crate::identity;

/// An entry of the tree.
enum Node {
    /// A directory.
    Dir(&'static [(&'static str, Node)]),
    /// A text.
    Text(fn() -> &'static str),
    /// A number.
    Number(u32),
}

const ROOT: Node = Node::Dir(&[
    (
        "buildinfo",
        Node::Dir(&[
            ("changeset", Node::Text(|| identity::CHANGESET)),
            (
                "compileinfo",
                Node::Dir(&[
                    ("compile_by", Node::Text(|| identity::COMPILED_BY)),
                    ("compile_date", Node::Text(|| identity::COMPILED_AT)),
                    ("compile_domain", Node::Text(|| identity::COMPILED_ON)),
                    ("compiler", Node::Text(|| identity::COMPILER)),
                ]),
            ),
            (
                "version",
                Node::Dir(&[
                    ("extra", Node::Text(|| identity::EXTRA_VERSION)),
                    ("major", Node::Number(4)),
                    ("minor", Node::Number(17)),
                ]),
            ),
        ]),
    ),
    ("params", Node::Dir(&[])),
]);

/// Handles a hypfs operation.
pub fn call(caller: &Caller<'_>, args: &Args) -> Outcome {
    authorize(caller)?;
    let [op, path, path_len, buffer, buffer_len] = args.0;
    if op == abi::OP_GET_VERSION {
        return match [path, path_len, buffer, buffer_len] {
            [0, 0, 0, 0] => Ok(Reply::Value(abi::VERSION)),
            _ => Err(Errno::Inval),
        };
    }
    let mut bytes = [0; abi::MAX_PATH_LEN as usize];
    let bytes = bytes.get_mut(..path_len as usize).ok_or(Errno::Inval)?;
    copy_in(caller.domain, GuestVa(path), bytes)?;
    let node = find(&ROOT, bytes)?;
    match op {
        abi::OP_READ => {
            let content = node.content();
            if (buffer_len as usize) < size_of::<DirEntry>() {
                return Err(Errno::Inval);
            }
            write(caller.domain, GuestVa(buffer), &content.entry)?;
            if (buffer_len as usize) - size_of::<DirEntry>() < content.bytes.len() {
                return Err(Errno::NoBufs);
            }
            let to = GuestVa(buffer)
                .checked_add(size_of::<DirEntry>() as u32)
                .ok_or(Errno::Fault)?;
            copy_out(caller.domain, to, &content.bytes)?;
            Ok(Reply::OK)
        }
        // No entry can be written.
        abi::OP_WRITE_CONTENTS => Err(Errno::Acces),
        _ => Err(Errno::OpNotSupp),
    }
}

/// Returns the entry that a zero-terminated path names.
fn find<'a>(root: &'a Node, path: &[u8]) -> Result<&'a Node, Errno> {
    let (&0, path) = path.split_last().ok_or(Errno::Inval)? else {
        return Err(Errno::Inval);
    };
    if path.contains(&0) {
        return Err(Errno::Inval);
    }
    let path = core::str::from_utf8(path).map_err(|_| Errno::NoEnt)?;
    let path = path.strip_prefix('/').ok_or(Errno::Inval)?;
    let mut node = root;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let Node::Dir(entries) = node else {
            return Err(Errno::NoEnt);
        };
        node = entries
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, node)| node)
            .ok_or(Errno::NoEnt)?;
    }
    Ok(node)
}

/// The content of an entry, as it is read.
struct Content {
    entry: DirEntry,
    bytes: Vec<u8>,
}

impl Node {
    fn content(&self) -> Content {
        let (kind, bytes) = match self {
            Self::Dir(entries) => (abi::TYPE_DIR, list(entries)),
            Self::Text(text) => {
                let mut bytes = text().as_bytes().to_vec();
                bytes.push(0);
                (abi::TYPE_STRING, bytes)
            }
            Self::Number(number) => (abi::TYPE_UINT, number.as_bytes().to_vec()),
        };
        let entry = DirEntry {
            kind,
            encoding: abi::ENC_PLAIN,
            pad: 0,
            content_len: bytes.len() as u32,
            max_write_len: 0,
        };
        Content { entry, bytes }
    }
}

/// Returns a directory's content: for each entry its header, the offset of the next one (u16) and a zero-terminated name,
/// padded to four bytes.
fn list(entries: &[(&str, Node)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (name, node)) in entries.iter().enumerate() {
        let len = (size_of::<DirEntry>() + 2 + name.len() + 1).next_multiple_of(4);
        let next = if index + 1 == entries.len() {
            0
        } else {
            len as u16
        };
        let start = bytes.len();
        bytes.extend_from_slice(node.content().entry.as_bytes());
        bytes.extend_from_slice(&next.to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(start + len, 0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Node, ROOT, find};
    use crate::abi::hypfs as abi;
    use crate::error::Errno;

    #[test]
    fn paths_are_absolute_and_end_with_zero() {
        assert!(matches!(find(&ROOT, b"/\0"), Ok(Node::Dir(_))));
        assert!(matches!(
            find(&ROOT, b"/buildinfo/version/major\0"),
            Ok(Node::Number(4))
        ));
        for (path, error) in [
            (&b"/"[..], Errno::Inval),
            (b"", Errno::Inval),
            (b"buildinfo\0", Errno::Inval),
            (b"/\0\0", Errno::Inval),
            (b"/none\0", Errno::NoEnt),
            (b"/buildinfo/changeset/x\0", Errno::NoEnt),
            (b"/\xFF\0", Errno::NoEnt),
        ] {
            assert_eq!(find(&ROOT, path).err(), Some(error));
        }
    }

    #[test]
    fn a_directory_leads_from_entry_to_entry() {
        let content = ROOT.content();
        assert_eq!(content.entry.kind, abi::TYPE_DIR);
        let next = u16::from_le_bytes([content.bytes[12], content.bytes[13]]) as usize;
        assert_eq!(&content.bytes[14..24], b"buildinfo\0");
        assert_eq!(next % 4, 0);
        assert_eq!(&content.bytes[next + 14..next + 21], b"params\0");
        assert_eq!(content.bytes[next + 12..next + 14], [0, 0]);
    }
}
