//! Boots with one thing wrong each time: the console must name it, in one line, before the machine stops.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::project::root;
use crate::session::{Echo, QEMU, ScratchFolder, Session};
use crate::{Result, build};

/// What is wrong, and a pattern on the line that names it.
pub struct Fault {
    pub name: &'static str,
    wrong: Wrong,
    message: &'static str,
}

enum Wrong {
    /// With the machine or its command lines.
    Machine(fn(&mut Machine)),
    /// With the device tree's contents; edits its source.
    Source(fn(&str) -> Result<String>),
    /// With the device tree's bytes.
    Blob(fn(&mut Vec<u8>)),
    /// There is no device tree.
    NoTree,
}

pub static FAULTS: [Fault; 10] = [
    Fault {
        name: "no-hyp-mode",
        wrong: Wrong::Machine(|machine| machine.virtualization = false),
        message: "not in HYP mode*virtualization=on",
    },
    Fault {
        name: "no-device-tree",
        wrong: Wrong::NoTree,
        message: "no device tree",
    },
    Fault {
        name: "bad-tree-magic",
        wrong: Wrong::Blob(|blob| blob[0] = 0),
        message: "no device tree*0x",
    },
    Fault {
        name: "truncated-tree",
        wrong: Wrong::Blob(|blob| blob.truncate(blob.len() / 2)),
        message: "device tree corrupt: ",
    },
    Fault {
        name: "no-memory-node",
        wrong: Wrong::Source(without_memory),
        message: "RAM 0 MiB, need * MiB",
    },
    Fault {
        name: "too-little-ram",
        wrong: Wrong::Machine(|machine| machine.append += " dom0_mem=4096M"),
        message: "4096 MiB",
    },
    Fault {
        name: "no-kernel-module",
        wrong: Wrong::Machine(|machine| machine.kernel = None),
        message: "no dom0 kernel module (multiboot,kernel)",
    },
    Fault {
        name: "kernel-no-zimage",
        // A text is no kernel, and nothing that a kernel could be packed in.
        wrong: Wrong::Machine(|machine| machine.kernel = Some(root().join("Cargo.lock"))),
        message: "not an ARM zImage",
    },
    Fault {
        name: "overlapping-modules",
        wrong: Wrong::Source(with_overlap),
        message: "overlaps*0x50100000",
    },
    Fault {
        name: "unknown-uart",
        wrong: Wrong::Machine(|machine| machine.append += " dtuart=/pl031@9010000"),
        message: "UART: */pl031@9010000",
    },
];

/// A boot that fails says so soon; a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// Boots with `fault` and waits for its message.
pub fn test(fault: &Fault, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("fault")?;
    let mut machine = Machine::new(options)?;
    match fault.wrong {
        Wrong::Machine(change) => change(&mut machine),
        Wrong::Source(edit) => {
            let source = edit(&tree_source(&machine, folder.path())?)?;
            let blob = compile(&source, folder.path())?;
            machine.start = doctored_start(&machine, &blob, folder.path())?;
        }
        Wrong::Blob(damage) => {
            let source = tree_source(&machine, folder.path())?;
            let mut blob = compile(&source, folder.path())?;
            damage(&mut blob);
            machine.start = doctored_start(&machine, &blob, folder.path())?;
        }
        Wrong::NoTree => machine.start = doctored_start(&machine, &[], folder.path())?,
    }
    Session::start(&machine, echo)?
        .wait_for(&[fault.message], PATIENCE)
        .map(drop)
}

/// The device tree that QEMU would hand over, with the boot modules and command lines in it, as source.
fn tree_source(machine: &Machine, folder: &Path) -> Result<String> {
    let blob = folder.join("qemu.dtb");
    dump_tree(machine, &blob)?;
    let source = folder.join("qemu.dts");
    build::run(dtc("dtb", "dts").arg("-o").arg(&source).arg(&blob))?;
    fs::read_to_string(&source)
        .map_err(|error| format!("cannot read {}: {error}", source.display()))
}

/// Writes the device tree that QEMU would hand over to `blob`, the same each time.
pub fn dump_tree(machine: &Machine, blob: &Path) -> Result {
    let mut arguments = machine.arguments();
    let option = arguments
        .iter_mut()
        .find(|word| **word == machine.machine_option())
        .ok_or("no machine option")?;
    *option += &format!(",dtb-randomness=off,dumpdtb={}", blob.display());
    build::run(
        Command::new(QEMU)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
}

fn compile(source: &str, folder: &Path) -> Result<Vec<u8>> {
    let (input, output) = (folder.join("doctored.dts"), folder.join("doctored.dtb"));
    build::write(&input, source.as_bytes())?;
    build::run(dtc("dts", "dtb").arg("-o").arg(&output).arg(&input))?;
    build::read(&output)
}

/// The compiler of device trees, from one of its formats to another.
pub fn dtc(from: &str, to: &str) -> Command {
    let mut command = Command::new("dtc");
    // Its complaints about QEMU's own tree would only hide ours.
    command.args(["-q", "-q", "-I", from, "-O", to]);
    command
}

/// Where a loader of ours finds what it starts, and is itself.
pub struct Places {
    pub loader: u32,
    pub hypervisor: u32,
    pub tree: u32,
}

/// On `virt`, clear of the machine's modules.
pub const ON_VIRT: Places = Places {
    loader: 0x4020_0000,
    hypervisor: 0x4040_0000,
    tree: 0x4800_0000,
};

/// QEMU's boot loader would refuse or repair a doctored tree, so put everything into memory without it.
/// An empty `blob` stands for no tree: r2 is 0.
pub fn doctored_start(machine: &Machine, blob: &[u8], folder: &Path) -> Result<Start> {
    let tree = if blob.is_empty() { 0 } else { ON_VIRT.tree };
    raw_start(machine, &ON_VIRT, blob, &loader(tree), folder)
}

/// Everything of the machine in memory, the tree at its address if there is one, and `loader` to start it.
pub fn raw_start(
    machine: &Machine,
    places: &Places,
    blob: &[u8],
    loader: &[u8],
    folder: &Path,
) -> Result<Start> {
    let mut files = vec![(machine.hypervisor.clone(), places.hypervisor)];
    files.extend(machine.modules());
    let mut add = |name: &str, bytes: &[u8], address| -> Result {
        let path: PathBuf = folder.join(name);
        build::write(&path, bytes)?;
        files.push((path, address));
        Ok(())
    };
    if !blob.is_empty() {
        add("tree", blob, places.tree)?;
    }
    add("loader", loader, places.loader)?;
    Ok(Start::Raw {
        files,
        entry: places.loader,
    })
}

/// The smallest boot loader: r0 = 0, r1 = no machine number, r2 = the tree, and go. QEMU leaves a tree of its own at the
/// beginning of RAM; it loses its magic, so that nobody finds it by searching.
fn loader(tree: u32) -> Vec<u8> {
    let code: [u32; 8] = [
        0xe3a0_3101, // mov r3, #0x40000000
        0xe3a0_0000, // mov r0, #0
        0xe583_0000, // str r0, [r3]
        0xe3e0_1000, // mvn r1, #0
        0xe59f_2000, // ldr r2, [pc, #0]
        0xe59f_f000, // ldr pc, [pc, #0]
        tree,
        ON_VIRT.hypervisor,
    ];
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn without_memory(source: &str) -> Result<String> {
    let (start, end) = node(source, "memory@")?;
    Ok([&source[..start], &source[end..]].concat())
}

/// Moves the ramdisk's description into the middle of the kernel.
fn with_overlap(source: &str) -> Result<String> {
    let (start, end) = node(source, "module@0x54000000")?;
    let moved = source[start..end].replace("<0x00 0x54000000", "<0x00 0x50100000");
    if moved == source[start..end] {
        return Err("QEMU describes a boot module in a new way".into());
    }
    Ok([&source[..start], &moved, &source[end..]].concat())
}

/// Where the node whose name begins with `name` starts and ends; it has no children.
fn node(source: &str, name: &str) -> Result<(usize, usize)> {
    let start = source
        .find(name)
        .ok_or_else(|| format!("QEMU's device tree has no node {name}"))?;
    let length = source[start..].find("};").ok_or("a node does not end")? + 2;
    Ok((start, start + length))
}

#[cfg(test)]
mod tests {
    use super::{loader, with_overlap, without_memory};

    const SOURCE: &str = "/ {\n memory@40000000 {\n reg = <1>;\n };\n chosen {\n module@0x54000000 {\n reg = <0x00 0x54000000 0x00 0x10>;\n };\n };\n};";

    #[test]
    fn doctoring_changes_one_node() {
        assert!(!without_memory(SOURCE).unwrap().contains("reg = <1>"));
        assert!(without_memory(SOURCE).unwrap().contains("chosen"));
        assert!(
            with_overlap(SOURCE)
                .unwrap()
                .contains("<0x00 0x50100000 0x00 0x10>")
        );
        assert!(with_overlap("/ {};").is_err());
    }

    #[test]
    fn the_loader_ends_with_the_tree_and_the_entry() {
        let bytes = loader(0x4800_0000);
        assert_eq!(bytes[24..], [0, 0, 0, 0x48, 0, 0, 0x40, 0x40]);
    }
}
