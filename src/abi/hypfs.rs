//! The hypervisor's file system (xen/include/public/hypfs.h).

use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

abi_constants! {
    /// The interface's version.
    VERSION: u32 = 1, "XEN_HYPFS_VERSION";
    /// Returns [`VERSION`].
    OP_GET_VERSION: u32 = 0, "XEN_HYPFS_OP_get_version";
    /// Reads an entry.
    OP_READ: u32 = 1, "XEN_HYPFS_OP_read";
    /// Writes an entry.
    OP_WRITE_CONTENTS: u32 = 2, "XEN_HYPFS_OP_write_contents";
    /// Longest path with its zero.
    MAX_PATH_LEN: u32 = 1024, "XEN_HYPFS_MAX_PATHLEN";
    /// Entry type: directory.
    TYPE_DIR: u8 = 0, "XEN_HYPFS_TYPE_DIR";
    /// Entry type: text.
    TYPE_STRING: u8 = 2, "XEN_HYPFS_TYPE_STRING";
    /// Entry type: unsigned number.
    TYPE_UINT: u8 = 3, "XEN_HYPFS_TYPE_UINT";
    /// Content as it is.
    ENC_PLAIN: u8 = 0, "XEN_HYPFS_ENC_PLAIN";
}

abi_struct! {
    /// The head of an entry, in front of its content.
    pub struct DirEntry: "struct xen_hypfs_direntry", 12, align 4 {
        /// `TYPE_*`.
        0 "type" => kind: u8,
        /// `ENC_*`.
        1 "encoding" => encoding: u8,
        2 "pad" => pad: u16,
        /// Bytes of content.
        4 "content_len" => content_len: u32,
        /// Most bytes that can be written.
        8 "max_write_len" => max_write_len: u32,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[DirEntry::LAYOUT];
