//! Boots with one thing wrong each time: the console must name it, in one line, before the machine stops, or the boot must go
//! on all the same. One file because a row of the table is read with the edit that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::project::root;
use crate::session::{Echo, QEMU, ScratchFolder, Session};
use crate::{Result, boards, build, dom0};

/// A fault of the machine, and patterns on lines that must follow one another.
pub struct Fault {
    pub name: &'static str,
    wrong: Wrong,
    says: &'static [&'static str],
}

enum Wrong {
    /// With the machine or its command lines.
    Machine(fn(&mut Machine)),
    /// With the device tree's contents; edits its source.
    Source(fn(&str) -> Result<String>),
    /// With the device tree's bytes.
    Blob(fn(&mut Vec<u8>)),
    /// With both: one edits the source, the other what becomes of it.
    Both(fn(&str) -> Result<String>, fn(&mut [u8])),
    /// The boot loader names this place for the device tree, where none is; nor is there one elsewhere.
    NoTree { at: u32, virtualization: bool },
    /// The device tree is at the end of RAM, and says that it is longer than that.
    PastRam,
    /// Nothing says where the console of a board is. Its only UART is dom0's, which calls it so.
    Silent {
        board: &'static str,
        console: &'static str,
    },
}

/// The hypervisor has nothing left to do but to run dom0.
pub const BOOTED: &str = "Freed boot modules";
/// Where RAM ends on `virt` with 1 GiB.
pub const RAM_END: u32 = 0x8000_0000;
/// On `virt` there is nothing at all.
const NOWHERE: u32 = 0xf000_0000;

pub static FAULTS: [Fault; 31] = [
    Fault {
        name: "no-hyp-mode",
        wrong: Wrong::Machine(|machine| machine.virtualization = false),
        says: &["not in HYP mode*virtualization=on"],
    },
    Fault {
        name: "no-device-tree",
        wrong: Wrong::NoTree {
            at: 0,
            virtualization: true,
        },
        says: &["no device tree"],
    },
    Fault {
        name: "device-tree-nowhere",
        wrong: Wrong::NoTree {
            at: NOWHERE,
            virtualization: true,
        },
        says: &["no device tree"],
    },
    Fault {
        name: "device-tree-nowhere-no-hyp-mode",
        wrong: Wrong::NoTree {
            at: NOWHERE,
            virtualization: false,
        },
        says: &["no device tree"],
    },
    Fault {
        name: "bad-tree-magic",
        wrong: Wrong::Blob(|blob| blob[0] = 0),
        says: &["no device tree*0x"],
    },
    Fault {
        name: "truncated-tree",
        wrong: Wrong::Blob(|blob| blob.truncate(blob.len() / 2)),
        says: &["device tree corrupt: "],
    },
    Fault {
        name: "tree-past-the-end-of-ram",
        wrong: Wrong::PastRam,
        says: &["device tree corrupt: totalsize 0x100000"],
    },
    Fault {
        name: "big-tree-with-a-nop",
        wrong: Wrong::Both(with_blob, put_nop),
        says: &[BOOTED],
    },
    Fault {
        name: "tree-of-16000-nodes",
        wrong: Wrong::Source(with_many_nodes),
        says: &[BOOTED],
    },
    Fault {
        name: "no-memory-node",
        wrong: Wrong::Source(without_memory),
        says: &["RAM 0 MiB, need * MiB"],
    },
    Fault {
        name: "ram-bank-far-away",
        wrong: Wrong::Source(|source| {
            in_root(
                source,
                "memory@8000000000 { device_type = \"memory\"; reg = <0x80 0 0 0x40000000>; };",
            )
        }),
        says: &[
            "RAM bank 0x8000000000-0x8040000000 ignored: too far from the rest",
            BOOTED,
        ],
    },
    Fault {
        name: "reservations-without-ranges",
        wrong: Wrong::Source(|source| {
            in_root(
                source,
                "reserved-memory { fw@4c000000 { reg = <0 0x4c000000 0 0x100000>; }; };",
            )
        }),
        says: &[
            "/reserved-memory/fw@4c000000 is reserved, although*no ranges",
            BOOTED,
        ],
    },
    Fault {
        name: "timer-interrupts-by-name",
        wrong: Wrong::Source(with_named_timer),
        says: &[dom0::UP],
    },
    Fault {
        name: "uart-in-the-page-of-the-console",
        wrong: Wrong::Source(|source| {
            in_root(
                source,
                "serial@9000800 { compatible = \"ns16550a\"; reg = <0 0x9000800 0 0x100>; interrupts = <0 20 4>; \
                 clock-frequency = <24000000>; reg-shift = <2>; };",
            )
        }),
        says: &[
            "/serial@9000800 disabled: its registers are in*which is the console's",
            dom0::UP,
        ],
    },
    Fault {
        name: "empty-line-of-the-kernel-module",
        wrong: Wrong::Source(with_empty_line),
        says: &[dom0::UP],
    },
    Fault {
        name: "dom0-mem-with-a-tail",
        wrong: Wrong::Machine(|machine| {
            machine.memory_mib = 2048;
            machine.append += " dom0_mem=768M,max=768M";
        }),
        says: &["max=768M", "/786432K available"],
    },
    // Whatever of it is below the kernel, Linux would not use.
    Fault {
        name: "dom0-mem-of-nearly-all",
        wrong: Wrong::Machine(|machine| {
            machine.memory_mib = 2048;
            machine.append += " dom0_mem=1900M";
        }),
        says: &["/1945600K available"],
    },
    Fault {
        name: "too-little-ram",
        wrong: Wrong::Machine(|machine| machine.append += " dom0_mem=4096M"),
        says: &["4096 MiB"],
    },
    Fault {
        name: "no-kernel-module",
        wrong: Wrong::Machine(|machine| machine.kernel = None),
        says: &["no dom0 kernel module (multiboot,kernel)"],
    },
    Fault {
        name: "no-kernel-module-without-a-log",
        wrong: Wrong::Machine(|machine| {
            machine.kernel = None;
            machine.append += " loglvl=none";
        }),
        says: &["no dom0 kernel module (multiboot,kernel)"],
    },
    Fault {
        name: "kernel-no-zimage",
        // A text is no kernel, and nothing that a kernel could be packed in.
        wrong: Wrong::Machine(|machine| machine.kernel = Some(root().join("Cargo.lock"))),
        says: &["not an ARM zImage"],
    },
    Fault {
        name: "overlapping-modules",
        wrong: Wrong::Source(|source| with_ramdisk_at(source, 0x5010_0000, None)),
        says: &["overlaps*0x50100000"],
    },
    Fault {
        name: "ramdisk-beyond-ram",
        wrong: Wrong::Source(|source| with_ramdisk_at(source, 0x7fff_0000, Some(0x2_0000))),
        says: &["ramdisk module * at 0x7fff0000-0x80010000 is not in RAM"],
    },
    Fault {
        name: "ramdisk-at-the-end-of-ram",
        wrong: Wrong::Source(|source| with_ramdisk_at(source, 0x7ff0_0000, Some(0x10_0000))),
        says: &[BOOTED],
    },
    Fault {
        name: "empty-ramdisk",
        wrong: Wrong::Source(|source| with_ramdisk_at(source, 0x5400_0000, Some(0))),
        says: &["ramdisk module * is empty, ignored", BOOTED],
    },
    Fault {
        name: "policy-among-unnamed-modules",
        wrong: Wrong::Source(with_policy),
        says: &[
            "MODULE[0]: 0000000050000000 - * kernel",
            "MODULE[1]: 0000000058000000 - * xsm policy",
            "MODULE[2]: 0000000054000000 - * ramdisk",
            BOOTED,
        ],
    },
    Fault {
        name: "unknown-uart",
        wrong: Wrong::Machine(|machine| machine.append += " dtuart=/pl031@9010000"),
        says: &[
            "UART: */pl031@9010000*the console is /pl011@9000000",
            BOOTED,
        ],
    },
    Fault {
        name: "no-uart-named",
        wrong: Wrong::Source(without_stdout),
        says: &["UART: no dtuart=*the console is /pl011@9000000", BOOTED],
    },
    Fault {
        name: "no-uart-named-of-two",
        wrong: Wrong::Source(|source| {
            let two = "serial@a100000 { compatible = \"ns16550a\"; reg = <0 0xa100000 0 0x100>; };";
            in_root(&without_stdout(source)?, two)
        }),
        says: &[
            "UART: no dtuart=*there are /pl011@9000000, /serial@a100000; the console is at 0x9000000",
            BOOTED,
        ],
    },
    Fault {
        name: "no-console-that-we-know",
        wrong: Wrong::Silent {
            board: "imx7",
            console: "ttymxc0",
        },
        says: &[dom0::UP],
    },
    Fault {
        name: "no-console-that-we-know-on-an-imx6ul",
        wrong: Wrong::Silent {
            board: "imx6ul",
            console: "ttymxc0",
        },
        says: &[dom0::UP],
    },
];

/// A boot that fails says so soon; a loaded machine may be slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// Boots with `fault` and waits for its message.
pub fn test(fault: &Fault, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("fault")?;
    let folder = folder.path();
    let mut machine = Machine::new(options)?;
    match fault.wrong {
        Wrong::Machine(change) => change(&mut machine),
        Wrong::Source(edit) => doctor(&mut machine, edit, |_| (), folder)?,
        Wrong::Blob(damage) => doctor(&mut machine, |source| Ok(source.into()), damage, folder)?,
        Wrong::Both(edit, damage) => doctor(&mut machine, edit, |blob| damage(blob), folder)?,
        Wrong::NoTree { at, virtualization } => {
            machine.virtualization = virtualization;
            machine.start = raw_start(&machine, &ON_VIRT, &[], &loader(at), folder)?;
        }
        Wrong::PastRam => {
            const SAID: u32 = 0x10_0000;
            let mut blob = doctored(&tree_source(&machine, folder)?, folder)?;
            blob[4..8].copy_from_slice(&SAID.to_be_bytes());
            let tree = RAM_END - (blob.len() as u32).next_multiple_of(0x1000);
            let places = Places { tree, ..ON_VIRT };
            machine.start = raw_start(&machine, &places, &blob, &loader(tree), folder)?;
        }
        Wrong::Silent { board, console } => {
            machine = silent(board, console, options, folder)?;
        }
    }
    // Linux is in no hurry.
    let patience = PATIENCE.max(options.timeout * dom0::LONGEST_CHECK);
    let mut session = Session::start(&machine, echo)?;
    for line in fault.says {
        session.expect(line, patience)?;
    }
    Ok(())
}

/// Has the machine start with a device tree that is edited as source and then as a blob.
fn doctor(
    machine: &mut Machine,
    edit: impl Fn(&str) -> Result<String>,
    damage: impl Fn(&mut Vec<u8>),
    folder: &Path,
) -> Result {
    let mut blob = doctored(&edit(&tree_source(machine, folder)?)?, folder)?;
    damage(&mut blob);
    machine.start = doctored_start(machine, &blob, folder)?;
    Ok(())
}

/// Returns a board whose tree and command line name no console; dom0 has the UART for its own.
fn silent(board: &str, console: &str, options: &Options, folder: &Path) -> Result<Machine> {
    let board = boards::find(board)?;
    let options = Options {
        board: Some(board),
        cpus: 1,
        ..options.clone()
    };
    let mut machine = Machine::new(&options)?;
    machine.append = "dom0_mem=512M".into();
    machine.dom0_append = format!("console={console}");
    dom0::give_watchdogs_patience(&mut machine);
    let tree = board.write_tree(&machine, folder)?;
    build::run(
        Command::new("fdtput")
            .arg("-d")
            .arg(&tree)
            .args(["/chosen", "stdout-path"]),
    )?;
    machine.start = Start::Tree(tree);
    Ok(machine)
}

/// Returns the device tree that QEMU would hand over, with the boot modules and command lines in it, as source.
pub fn tree_source(machine: &Machine, folder: &Path) -> Result<String> {
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

/// Makes a device tree's blob from its source, in two files of this name with their endings, and returns the blob's.
pub fn compile(source: &str, name: &Path) -> Result<PathBuf> {
    let (text, blob) = (name.with_extension("dts"), name.with_extension("dtb"));
    build::write(&text, source.as_bytes())?;
    build::run(dtc("dts", "dtb").arg("-o").args([&blob, &text]))?;
    Ok(blob)
}

pub fn doctored(source: &str, folder: &Path) -> Result<Vec<u8>> {
    build::read(&compile(source, &folder.join("doctored"))?)
}

/// Returns the compiler of device trees, from one of its formats to another.
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

/// Starts the machine with a tree that QEMU's boot loader would refuse or repair: everything is put into memory without it.
pub fn doctored_start(machine: &Machine, blob: &[u8], folder: &Path) -> Result<Start> {
    raw_start(machine, &ON_VIRT, blob, &loader(ON_VIRT.tree), folder)
}

/// Everything of the machine in memory, the tree at its address if there is one, and `loader` to start it.
pub fn raw_start(
    machine: &Machine,
    places: &Places,
    blob: &[u8],
    loader: &[u8],
    folder: &Path,
) -> Result<Start> {
    raw_start_with(machine, places, machine.modules(), blob, loader, folder)
}

/// The same with the modules at places of their own.
pub fn raw_start_with(
    machine: &Machine,
    places: &Places,
    modules: impl Iterator<Item = (PathBuf, impl Into<u64>)>,
    blob: &[u8],
    loader: &[u8],
    folder: &Path,
) -> Result<Start> {
    let mut files = vec![(machine.hypervisor.clone(), places.hypervisor.into())];
    files.extend(modules.map(|(file, address)| (file, address.into())));
    let mut add = |name: &str, bytes: &[u8], address: u32| -> Result {
        let path: PathBuf = folder.join(name);
        build::write(&path, bytes)?;
        files.push((path, address.into()));
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

/// Returns the smallest boot loader: r0 = 0, r1 = no machine number, r2 = the tree, and go. QEMU leaves a tree of its own at
/// the beginning of RAM; it loses its magic, so that nobody finds it by searching. At [`POLICY`] a policy begins.
pub fn loader(tree: u32) -> Vec<u8> {
    let code: [u32; 12] = [
        0xe3a0_3101, // mov r3, #0x40000000
        0xe3a0_0000, // mov r0, #0
        0xe583_0000, // str r0, [r3]
        0xe3a0_3316, // mov r3, #0x58000000
        0xe59f_200c, // ldr r2, [pc, #12]
        0xe583_2000, // str r2, [r3]
        0xe3e0_1000, // mvn r1, #0
        0xe59f_2004, // ldr r2, [pc, #4]
        0xe59f_f004, // ldr pc, [pc, #4]
        POLICY_MAGIC,
        tree,
        ON_VIRT.hypervisor,
    ];
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Where the loader puts the beginning of a policy for the security module, and that (Xen's booting.txt).
const POLICY: u32 = 0x5800_0000;
const POLICY_MAGIC: u32 = 0xf97c_ff8c;

/// A value that stands for a property to be overwritten with NOP tokens.
const TO_NOP: u32 = 0x4b4b_4b4b;

/// Adds 160 KB that nobody reads, and a property for [`put_nop`].
fn with_blob(source: &str) -> Result<String> {
    let data = "5a".repeat(160_000);
    in_root(
        source,
        &format!("panel {{ data = [{data}]; gone = <{TO_NOP:#x}>; }};"),
    )
}

/// Overwrites a property as a boot loader does that deletes it.
fn put_nop(blob: &mut [u8]) {
    const HEADER: usize = 12;
    let value = TO_NOP.to_be_bytes();
    if let Some(at) = blob.windows(value.len()).position(|w| w == value) {
        for token in blob[at - HEADER..at + value.len()].chunks_mut(4) {
            token.copy_from_slice(&4u32.to_be_bytes());
        }
    }
}

/// Adds 16,000 nodes; the compiler cannot do with that many in one.
fn with_many_nodes(source: &str) -> Result<String> {
    let hundred: String = (0..100).map(|n| format!("n{n} {{ }};")).collect();
    let nodes: String = (0..160)
        .map(|n| format!("n{n} {{ {hundred} }};\n"))
        .collect();
    in_root(source, &nodes)
}

/// Adds nodes below the root.
pub fn in_root(source: &str, nodes: &str) -> Result<String> {
    let end = source.rfind("};").ok_or("QEMU's device tree has no end")?;
    Ok([&source[..end], nodes, &source[end..]].concat())
}

fn without_stdout(source: &str) -> Result<String> {
    let edited = source
        .replace("stdout-path", "other-path")
        .replace("dtuart=", "x=");
    match edited == source {
        true => Err("QEMU's device tree names no console".into()),
        false => Ok(edited),
    }
}

/// Puts a policy between kernel and RAM disk, none of which says what it is.
fn with_policy(source: &str) -> Result<String> {
    let mut modules = String::new();
    let mut rest = source.to_owned();
    for name in ["module@0x50000000", "module@0x54000000"] {
        let (start, end) = node(&rest, name)?;
        modules += &rest[start..end];
        rest.replace_range(start..end, "");
        if name == "module@0x50000000" {
            modules += &format!(
                "module@58000000 {{ compatible = \"multiboot,module\"; reg = <0 {POLICY:#x} 0 0x1000>; }};"
            );
        }
    }
    let modules = modules
        .replace("multiboot,kernel", "multiboot,first")
        .replace("multiboot,ramdisk", "multiboot,third");
    let (_, end) = node(&rest, "chosen {")?;
    rest.insert_str(end - "};".len(), &modules);
    Ok(rest)
}

/// Names the timer's interrupts, and has them in another order than the usual one.
fn with_named_timer(source: &str) -> Result<String> {
    const PROPERTY: &str = "interrupts = <";
    let (start, end) = node(source, "timer {")?;
    let (before, rest) = source[start..end]
        .split_once(PROPERTY)
        .ok_or("QEMU's timer has no interrupts")?;
    let (cells, after) = rest.split_once('>').ok_or("a property does not end")?;
    let cells: Vec<&str> = cells.split_whitespace().collect();
    let lines: Vec<String> = cells.chunks(3).map(|line| line.join(" ")).collect();
    let [secure, physical, virtual_one, hypervisor] = lines.as_slice() else {
        return Err("QEMU describes the timer in a new way".into());
    };
    let lines = [virtual_one, hypervisor, secure, physical].map(String::as_str);
    let names = "interrupt-names = \"virt\", \"hyp-phys\", \"sec-phys\", \"phys\";";
    let timer = format!("{before}{names} {PROPERTY}{}>{after}", lines.join(" "));
    Ok([&source[..start], &timer, &source[end..]].concat())
}

/// Moves the line of the kernel's module to where the hypervisor's was, and leaves an empty one there.
fn with_empty_line(source: &str) -> Result<String> {
    const PROPERTY: &str = "bootargs = \"";
    let (start, end) = node(source, "module@0x50000000")?;
    let module = &source[start..end];
    let line = module
        .split_once(PROPERTY)
        .and_then(|(_, rest)| rest.split_once('"'));
    let (line, _) = line.ok_or("the kernel's module has no line")?;
    let emptied = module.replace(line, "");
    let rest = [&source[..start], &emptied, &source[end..]].concat();
    let (before, after) = rest
        .split_once(&format!("\n\t\t{PROPERTY}"))
        .ok_or("/chosen has no line")?;
    let (_, after) = after.split_once('"').ok_or("a property does not end")?;
    Ok(format!("{before}\n\t\t{PROPERTY}{line}\"{after}"))
}

fn without_memory(source: &str) -> Result<String> {
    let (start, end) = node(source, "memory@")?;
    Ok([&source[..start], &source[end..]].concat())
}

/// Describes the RAM disk at another address, and with another size if one is given.
fn with_ramdisk_at(source: &str, address: u32, size: Option<u32>) -> Result<String> {
    let (start, end) = node(source, "module@0x54000000")?;
    let old = &source[start..end];
    let (before, reg) = old
        .split_once("<0x00 0x54000000 0x00 ")
        .ok_or("QEMU describes a boot module in a new way")?;
    let (old_size, after) = reg.split_once('>').ok_or("a reg does not end")?;
    let size = size.map_or(old_size.to_owned(), |size| format!("{size:#x}"));
    let moved = format!("{before}<0x00 {address:#x} 0x00 {size}>{after}");
    Ok([&source[..start], &moved, &source[end..]].concat())
}

/// Returns where the node whose name begins with `name` starts and ends; it has no children.
pub fn node(source: &str, name: &str) -> Result<(usize, usize)> {
    let start = source
        .find(name)
        .ok_or_else(|| format!("QEMU's device tree has no node {name}"))?;
    let length = source[start..].find("};").ok_or("a node does not end")? + 2;
    Ok((start, start + length))
}

#[cfg(test)]
mod tests {
    use super::{
        POLICY_MAGIC, TO_NOP, in_root, loader, put_nop, with_policy, with_ramdisk_at,
        without_memory,
    };

    const SOURCE: &str = "/ {\n memory@40000000 {\n reg = <1>;\n };\n chosen {\n module@0x54000000 {\n compatible = \"multiboot,ramdisk\";\n reg = <0x00 0x54000000 0x00 0x10>;\n };\n module@0x50000000 {\n };\n };\n};";

    #[test]
    fn doctoring_changes_one_node() {
        assert!(!without_memory(SOURCE).unwrap().contains("reg = <1>"));
        assert!(without_memory(SOURCE).unwrap().contains("chosen"));
        let moved = |size| with_ramdisk_at(SOURCE, 0x5010_0000, size).unwrap();
        assert!(moved(None).contains("<0x00 0x50100000 0x00 0x10>"));
        assert!(moved(Some(0)).contains("<0x00 0x50100000 0x00 0x0>"));
        assert!(with_ramdisk_at("/ {};", 0, None).is_err());
        assert_eq!(
            in_root("/ { a { }; };", "b { };").unwrap(),
            "/ { a { }; b { };};"
        );
    }

    #[test]
    fn a_policy_comes_between_modules_that_do_not_say_what_they_are() {
        let edited = with_policy(SOURCE).unwrap();
        let at = |word| edited.find(word).unwrap();
        assert!(at("module@0x50000000") < at("module@58000000"));
        assert!(at("module@58000000") < at("module@0x54000000"));
        assert!(at("module@0x54000000") < at("};\n};"));
        assert!(!edited.contains("multiboot,ramdisk"));
    }

    #[test]
    fn a_deleted_property_becomes_nop_tokens() {
        let words = [1, 3, 4, 0, TO_NOP, 2];
        let mut blob: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        put_nop(&mut blob);
        let expected = [1u32, 4, 4, 4, 4, 2].map(u32::to_be_bytes).concat();
        assert_eq!(blob, expected);
    }

    #[test]
    fn the_loader_ends_with_the_policy_the_tree_and_the_entry() {
        let bytes = loader(0x4800_0000);
        let words = [POLICY_MAGIC, 0x4800_0000, 0x4040_0000].map(u32::to_le_bytes);
        assert_eq!(bytes[36..], words.concat());
    }
}
