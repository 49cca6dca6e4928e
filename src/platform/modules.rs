//! Boot modules in RAM, and the two command lines.
//!
//! Modules are nodes below `/chosen` as in Xen's booting.txt and QEMU's guest-loader. An initial RAM disk may also be
//! given by `linux,initrd-start` and `-end`, as U-Boot does for a kernel.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use armv7::addr::PhysAddr;
use dt::{Node, Reg, Tree};

use super::BootError;
use super::places::{self, Places, Sharing, Taken};
use super::ranges::PhysRange;

/// Compatibles of module nodes.
pub(crate) const MODULE: &[&str] = &["multiboot,module", "xen,multiboot-module"];
/// Compatibles of domains of Xen's dom0less boot.
pub(super) const DOMAIN: &[&str] = &["xen,domain"];
/// Maximum number of modules, dom0's and those of domains.
pub(super) const MAX_MODULES: usize = 32;
/// Maximum length of a command line in bytes; Linux has room for 1024.
const MAX_LINE: usize = 4096;
/// Maximum depth of a module node: `/chosen/x/module`.
const MAX_DEPTH: usize = 3;

/// Use of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModuleKind {
    /// A kernel.
    Kernel,
    /// An initial RAM disk.
    Ramdisk,
    /// A policy of the FLASK security module; not used.
    XsmPolicy,
    /// A part of a domain's device tree.
    DeviceTree,
    /// Another use.
    Other,
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Ramdisk => "ramdisk",
            Self::XsmPolicy => "xsm policy",
            Self::DeviceTree => "device tree",
            Self::Other => "unknown",
        })
    }
}

/// A boot module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Its use.
    pub kind: ModuleKind,
    /// Its exact place.
    pub range: PhysRange,
    /// Its command line.
    pub bootargs: Option<String>,
    /// Its node, for messages.
    pub path: String,
}

/// The command lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandLines {
    /// The hypervisor's.
    pub hypervisor: String,
    /// dom0's.
    pub dom0: String,
}

/// Reads the word at a machine address; `None` if there is no memory.
pub type ReadWord<'a> = &'a dyn Fn(PhysAddr) -> Option<u32>;

/// Finds all modules, in the tree's order.
pub(super) fn find(
    tree: &Tree<'_>,
    read: ReadWord<'_>,
    notes: &mut Vec<String>,
) -> Result<Vec<Module>, BootError> {
    let mut modules: Vec<Module> = Vec::new();
    let Some(chosen) = tree.find("/chosen") else {
        return Ok(modules);
    };
    // Modules of Xen's dom0less domains are not dom0's.
    let ours = chosen.subtree().skip(1).filter(|n| {
        n.is_compatible(MODULE)
            && n.ancestors().count() <= MAX_DEPTH + 1
            && n.parent().is_none_or(|p| !p.is_compatible(DOMAIN))
    });
    let mut guesses = Guesses::default();
    for node in ours {
        if modules.len() >= MAX_MODULES {
            notes.push(format!(
                "BOOT: more than {MAX_MODULES} modules, rest ignored"
            ));
            break;
        }
        let reg = reg_of(&node)?;
        let kind = known_kind(&node).unwrap_or_else(|| guesses.next(&reg, read));
        let path = node.path();
        if reg.size == 0 && kind != ModuleKind::Kernel {
            notes.push(format!("BOOT: {kind} module {path} is empty, ignored"));
            continue;
        }
        let is_single = matches!(kind, ModuleKind::Kernel | ModuleKind::Ramdisk);
        if is_single && let Some(first) = modules.iter().find(|m| m.kind == kind) {
            let first = &first.path;
            notes.push(format!(
                "BOOT: {kind} module {path} is not used, {first} is"
            ));
        }
        modules.push(Module {
            kind,
            range: PhysRange::new(reg.address, reg.size).ok_or_else(|| {
                let (address, size) = (reg.address, reg.size);
                BootError::Module(format!(
                    "{kind} module {path} at {address:#x} cannot have size {size:#x}"
                ))
            })?,
            bootargs: line_of(&node, "bootargs", notes),
            path: path.to_string(),
        });
    }
    modules.extend(ramdisk_of_kernel_protocol(&chosen, &modules, notes)?);
    Ok(modules)
}

/// Returns the use that a module's node declares.
pub(super) fn known_kind(node: &Node<'_>) -> Option<ModuleKind> {
    node.strings("compatible").find_map(|name| match name {
        "multiboot,kernel" | "xen,linux-zimage" => Some(ModuleKind::Kernel),
        "multiboot,ramdisk" | "xen,linux-initrd" => Some(ModuleKind::Ramdisk),
        "xen,xsm-policy" => Some(ModuleKind::XsmPolicy),
        "multiboot,device-tree" => Some(ModuleKind::DeviceTree),
        _ => None,
    })
}

/// Guesses the use of modules that do not declare it: the first is the kernel, a later one a policy if it begins like
/// one, and the first of the rest the RAM disk.
#[derive(Default)]
struct Guesses {
    kernel: bool,
    ramdisk: bool,
}

impl Guesses {
    /// First word of a binary policy of SELinux and FLASK (xen/xsm/flask/ss/policydb.h).
    const POLICY_MAGIC: u32 = 0xf97c_ff8c;

    fn next(&mut self, reg: &Reg, read: ReadWord<'_>) -> ModuleKind {
        if !core::mem::replace(&mut self.kernel, true) {
            return ModuleKind::Kernel;
        }
        let start = PhysAddr::new(reg.address).filter(|_| reg.size >= 4);
        if start.and_then(read) == Some(Self::POLICY_MAGIC) {
            return ModuleKind::XsmPolicy;
        }
        match core::mem::replace(&mut self.ramdisk, true) {
            false => ModuleKind::Ramdisk,
            true => ModuleKind::Other,
        }
    }
}

/// Reads `reg` with the parent's cell counts. guest-loader uses the root's, as its `/chosen` has none.
pub(super) fn reg_of(node: &Node<'_>) -> Result<Reg, BootError> {
    let cells = |name| {
        let mut above = node.ancestors().skip(1);
        above.find_map(|n| n.cell_count(name))
    };
    let (address, size) = (cells("#address-cells"), cells("#size-cells"));
    let (address, size) = (address.unwrap_or(2), size.unwrap_or(1));
    let reg = node.reg_of_cells(address, size).next();
    reg.ok_or_else(|| BootError::Module(format!("module {} has no usable reg", node.path())))
}

fn ramdisk_of_kernel_protocol(
    chosen: &Node<'_>,
    modules: &[Module],
    notes: &mut Vec<String>,
) -> Result<Option<Module>, BootError> {
    let ends = (
        chosen.number("linux,initrd-start"),
        chosen.number("linux,initrd-end"),
    );
    let (start, end) = match ends {
        (Some(start), Some(end)) if start != end => (start, end),
        _ => return Ok(None),
    };
    let range = PhysRange::from_ends(start, end)
        .ok_or_else(|| BootError::Module(format!("linux,initrd-start {start:#x} end {end:#x}")))?;
    if let Some(other) = modules.iter().find(|m| m.kind == ModuleKind::Ramdisk) {
        if other.range != range {
            notes.push(format!(
                "BOOT: linux,initrd at {range} ignored, {} is the ramdisk",
                other.path
            ));
        }
        return Ok(None);
    }
    Ok(Some(Module {
        kind: ModuleKind::Ramdisk,
        range,
        bootargs: None,
        path: String::from("/chosen/linux,initrd-start"),
    }))
}

/// Refuses modules that overlap each other or other contents of RAM, or that are not in RAM.
pub(super) fn check_places(
    modules: &[Module],
    ram: &[PhysRange],
    others: &Places<'_>,
) -> Result<(), BootError> {
    let mut before = Vec::new();
    for module in modules {
        let taken = Taken {
            path: &module.path,
            property: "",
            range: module.range,
            sharing: Sharing::None,
        };
        let added = places::add(taken, ram, others, &mut before);
        added.map_err(|why| BootError::Module(format!("{} module {why}", module.kind)))?;
    }
    Ok(())
}

/// Reads a command line, up to [`MAX_LINE`] bytes.
pub(super) fn line_of(node: &Node<'_>, name: &str, notes: &mut Vec<String>) -> Option<String> {
    let text = node.string(name)?;
    let (line, rest) = text.split_at_checked(text.floor_char_boundary(MAX_LINE))?;
    if !rest.is_empty() {
        let (path, size) = (node.path(), text.len());
        notes.push(format!(
            "BOOT: {name} of {path} has {size} bytes, {MAX_LINE} are used"
        ));
    }
    Some(line.to_string())
}

/// Selects the two command lines as Xen 4.17 does.
pub(super) fn command_lines(
    tree: &Tree<'_>,
    modules: &[Module],
    notes: &mut Vec<String>,
) -> CommandLines {
    let chosen = tree.find("/chosen");
    let mut line = |name| line_of(&chosen?, name, notes);
    let (bootargs, own, dom0) = (
        line("bootargs"),
        line("xen,xen-bootargs"),
        line("xen,dom0-bootargs"),
    );
    let kernel = modules.iter().find(|m| m.kind == ModuleKind::Kernel);
    // An empty one, as from an unset variable of a boot loader's script, counts as missing.
    let of_kernel = kernel
        .and_then(|kernel| kernel.bootargs.clone())
        .filter(|line| !line.is_empty());
    let plain_is_ours = own.is_none() && (of_kernel.is_some() || dom0.is_some());
    let dom0 = of_kernel.or(dom0);
    match plain_is_ours {
        true => CommandLines {
            hypervisor: bootargs.unwrap_or_default(),
            dom0: dom0.unwrap_or_default(),
        },
        false => CommandLines {
            hypervisor: own.unwrap_or_default(),
            dom0: dom0.or(bootargs).unwrap_or_default(),
        },
    }
}
