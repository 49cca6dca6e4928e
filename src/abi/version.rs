//! Version queries and features (xen/include/public/version.h, features.h).

use crate::abi::layout::Layout;
use crate::{abi_constants, abi_struct};

/// The ABI version that `XENVER_version` returns: 4.17.
pub const VERSION: u32 = (4 << 16) | 17;

abi_constants! {
    /// Major and minor number.
    OP_VERSION: u32 = 0, "XENVER_version";
    /// The rest of the version.
    OP_EXTRAVERSION: u32 = 1, "XENVER_extraversion";
    /// Compiler, builder and date.
    OP_COMPILE_INFO: u32 = 2, "XENVER_compile_info";
    /// Guest types.
    OP_CAPABILITIES: u32 = 3, "XENVER_capabilities";
    /// Source revision.
    OP_CHANGESET: u32 = 4, "XENVER_changeset";
    /// Start of the hypervisor's address space.
    OP_PLATFORM_PARAMETERS: u32 = 5, "XENVER_platform_parameters";
    /// Feature bits.
    OP_GET_FEATURES: u32 = 6, "XENVER_get_features";
    /// Bytes in a page.
    OP_PAGESIZE: u32 = 7, "XENVER_pagesize";
    /// The caller's UUID.
    OP_GUEST_HANDLE: u32 = 8, "XENVER_guest_handle";
    /// The hypervisor's command line.
    OP_COMMANDLINE: u32 = 9, "XENVER_commandline";
    /// Build id of the image.
    OP_BUILD_ID: u32 = 10, "XENVER_build_id";

    /// Bytes of the extra version.
    EXTRAVERSION_LEN: usize = 16, "XEN_EXTRAVERSION_LEN";
    /// Bytes of the capabilities.
    CAPABILITIES_LEN: usize = 1024, "XEN_CAPABILITIES_INFO_LEN";
    /// Bytes of the source revision.
    CHANGESET_LEN: usize = 64, "XEN_CHANGESET_INFO_LEN";
    /// Bytes of the command line.
    COMMANDLINE_LEN: usize = 1024, "sizeof(xen_commandline_t)";
    /// Bytes of a UUID.
    DOMAIN_HANDLE_LEN: usize = 16, "sizeof(xen_domain_handle_t)";

    /// Feature bit number.
    FEATURE_WRITABLE_PAGE_TABLES: u32 = 0, "XENFEAT_writable_page_tables";
    /// Feature bit number.
    FEATURE_AUTO_TRANSLATED_PHYSMAP: u32 = 2, "XENFEAT_auto_translated_physmap";
    /// Feature bit number: the caller can be the control domain.
    FEATURE_DOM0: u32 = 11, "XENFEAT_dom0";
    /// Feature bit number.
    FEATURE_MEMORY_OP_VNODE_SUPPORTED: u32 = 13, "XENFEAT_memory_op_vnode_supported";
    /// Feature bit number.
    FEATURE_ARM_SMCCC_SUPPORTED: u32 = 14, "XENFEAT_ARM_SMCCC_supported";
    /// Feature bit number: GFN and MFN differ.
    FEATURE_NOT_DIRECT_MAPPED: u32 = 16, "XENFEAT_not_direct_mapped";
    /// Feature bit number: GFN and MFN are equal.
    FEATURE_DIRECT_MAPPED: u32 = 17, "XENFEAT_direct_mapped";
    /// Words of feature bits.
    FEATURE_NR_SUBMAPS: u32 = 1, "XENFEAT_NR_SUBMAPS";
}

/// Feature bits of every domain.
pub const FEATURES_COMMON: u32 = 1 << FEATURE_WRITABLE_PAGE_TABLES
    | 1 << FEATURE_AUTO_TRANSLATED_PHYSMAP
    | 1 << FEATURE_MEMORY_OP_VNODE_SUPPORTED
    | 1 << FEATURE_ARM_SMCCC_SUPPORTED;
/// Feature bits of the control domain, whose memory is mapped 1:1.
pub const FEATURES_DOM0: u32 = FEATURES_COMMON | 1 << FEATURE_DOM0 | 1 << FEATURE_DIRECT_MAPPED;
/// Feature bits of all others.
pub const FEATURES_DOMU: u32 = FEATURES_COMMON | 1 << FEATURE_NOT_DIRECT_MAPPED;

abi_struct! {
    /// Result of `compile_info`: NUL-terminated strings.
    pub struct CompileInfo: "struct xen_compile_info", 144, align 1 {
        /// The compiler.
        0 "compiler" => compiler: [u8; 64],
        /// The user.
        64 "compile_by" => compile_by: [u8; 16],
        /// The host's domain.
        80 "compile_domain" => compile_domain: [u8; 32],
        /// The date.
        112 "compile_date" => compile_date: [u8; 32],
    }
}

abi_struct! {
    /// Result of `platform_parameters`.
    pub struct PlatformParameters: "struct xen_platform_parameters", 8, align 8 {
        /// Start of the hypervisor's address space.
        0 "virt_start" => virt_start: u64,
    }
}

abi_struct! {
    /// Argument of `get_features`.
    pub struct FeatureInfo: "struct xen_feature_info", 8, align 4 {
        /// In: which word.
        0 "submap_idx" => submap_idx: u32,
        /// Out: the bits.
        4 "submap" => submap: u32,
    }
}

abi_struct! {
    /// Head of `build_id`'s argument; the id follows.
    pub struct BuildId: "struct xen_build_id", 4, align 4 {
        /// In: bytes of room.
        0 "len" => len: u32,
    }
}

/// All structures of this file.
pub const LAYOUTS: &[Layout] = &[
    CompileInfo::LAYOUT,
    PlatformParameters::LAYOUT,
    FeatureInfo::LAYOUT,
    BuildId::LAYOUT,
];

#[cfg(test)]
mod tests {
    #[test]
    fn feature_words_are_those_of_debians_xen() {
        assert_eq!(super::FEATURES_DOM0, 0x0002_6805);
        assert_eq!(super::FEATURES_DOMU, 0x0001_6005);
    }
}
