//! A machine for QEMU, as data, and the command line made of it.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::boards::Board;
use crate::hazards::Watch;
use crate::options::{Hypervisor, Options};
use crate::{build, project};

/// Where dom0's kernel and initramfs are put on `virt`: clear of the hypervisor and of QEMU's device tree from 512 MiB of
/// RAM on, with room for a kernel of 64 MiB.
pub const KERNEL_ADDRESS: u32 = 0x5000_0000;
pub const INITRD_ADDRESS: u32 = 0x5400_0000;

const CONSOLE: &str = "console=dtuart dtuart=/pl011@9000000";

/// How the hypervisor is started.
#[derive(Clone, Debug)]
pub enum Start {
    /// By QEMU's own boot loader for Linux images, which gives it QEMU's device tree.
    Kernel,
    /// By the same, with this device tree, and the modules where that says they are.
    Tree(PathBuf),
    /// Not at all: dom0's kernel is started in its place.
    Bare,
    /// By a loader of ours, for what QEMU's would not do: these are all the files in memory, and CPU 0 starts at `entry`.
    Raw {
        files: Vec<(PathBuf, u64)>,
        entry: u32,
    },
    /// By a firmware in the flash that the board starts from; it finds everything else on the disks.
    Firmware(PathBuf),
    /// By the loaders on the SD card in the board's slot, where everything else is too.
    Card(PathBuf),
}

/// The bus a virtio disk is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Mmio,
    Pci,
}

/// Keeps or drops the writes to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    Kept,
    /// Kept, and seen by other machines that have the disk meanwhile.
    Shared,
    /// Lost when QEMU ends, so that several machines can have the disk at once.
    Lost,
}

/// The format of a disk's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    /// QEMU's own, which has the blocks that differ from another file.
    Qcow2,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A virtio disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    pub file: PathBuf,
    pub format: Format,
    pub bus: Bus,
    pub writes: Writes,
}

/// A cable between two machines' networks: each end is a socket in a file, whose packets go to the other's. None is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cable {
    pub here: PathBuf,
    pub there: PathBuf,
}

impl Cable {
    /// Returns the two ends of a cable, whose sockets are in `folder`.
    pub fn ends(folder: &Path) -> [Self; 2] {
        let end = |here: &str, there: &str| Self {
            here: folder.join(here),
            there: folder.join(there),
        };
        [end("left", "right"), end("right", "left")]
    }

    fn backend(&self, id: &str) -> String {
        format!(
            "dgram,id={id},local.type=unix,local.path={},remote.type=unix,remote.path={}",
            text(&self.here),
            text(&self.there)
        )
    }
}

/// The loader that puts dom0's initramfs into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdBy {
    /// QEMU's guest-loader, as a boot module.
    GuestLoader,
    /// QEMU's `-initrd`, which `/chosen/linux,initrd-start` tells.
    Option,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnReboot {
    Exit,
    Restart,
}

#[derive(Clone, Debug)]
pub struct Machine {
    /// None is `virt`.
    pub board: Option<&'static Board>,
    /// `-machine` as typed, instead of what `highmem` and `virtualization` say.
    pub typed: Option<&'static str>,
    /// `-cpu` on `virt`.
    pub processor: &'static str,
    pub cpus: u32,
    pub memory_mib: u32,
    pub highmem: bool,
    pub virtualization: bool,
    pub start: Start,
    /// A device tree in the place of QEMU's own.
    pub tree: Option<PathBuf>,
    /// Content of `virt`'s second flash.
    pub flash: Option<PathBuf>,
    pub hypervisor: PathBuf,
    pub append: String,
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    pub initrd_by: InitrdBy,
    pub dom0_append: String,
    /// Further files in memory, each with its address.
    pub files: Vec<(PathBuf, u32)>,
    pub disks: Vec<Disk>,
    pub network: bool,
    /// Leads to another machine's network, in the place of QEMU's own.
    pub cable: Option<Cable>,
    /// The host's port, on its loopback interface, that leads to ssh in the machine; with a network only.
    pub ssh_port: Option<u16>,
    /// A virtio balloon that is served within the write that notifies it (tests/guests/src/bench/device.rs).
    pub balloon: bool,
    pub on_reboot: OnReboot,
    pub gdb: bool,
    /// Virtual time counts instructions (bench.rs).
    pub counted: bool,
    /// A saved state, which the machine goes on from instead of booting.
    pub state: Option<PathBuf>,
    /// The checker for what QEMU does not model.
    pub hazards: Option<Watch>,
}

impl Machine {
    /// Returns the machine that the options describe, with Debian's dom0 in it. Builds the hypervisor.
    pub fn new(options: &Options) -> Result<Self> {
        let console = options.board.map_or(CONSOLE.into(), |board| {
            format!("console=dtuart dtuart={}", board.console)
        });
        Ok(Self {
            board: options.board,
            typed: None,
            processor: "cortex-a15",
            cpus: options.cpus,
            memory_mib: options.memory_mib,
            highmem: options.highmem,
            virtualization: true,
            start: Start::Kernel,
            tree: None,
            flash: None,
            hypervisor: hypervisor(&options.hypervisor)?,
            append: join(&[&console, "dom0_mem=512M", &options.append]),
            kernel: Some(project::dom0_kernel()?),
            initrd: Some(project::dom0_initrd()?),
            initrd_by: InitrdBy::GuestLoader,
            dom0_append: join(&[
                "console=hvc0 earlycon=xenboot cryptomgr.notests",
                &options.dom0_append,
            ]),
            files: Vec::new(),
            disks: Vec::new(),
            network: false,
            cable: None,
            ssh_port: None,
            balloon: false,
            on_reboot: OnReboot::Exit,
            gdb: options.gdb,
            counted: options.counted,
            state: None,
            hazards: options.hazards.then(|| Watch::new("early")).transpose()?,
        })
    }

    /// Returns the machine with its device tree in `folder`, if its board needs one.
    pub fn with_tree(&self, folder: &Path) -> Result<Self> {
        let mut machine = self.clone();
        if let (Some(board), Start::Kernel) = (self.board, &self.start) {
            machine.start = Start::Tree(board.write_tree(self, folder)?);
        }
        Ok(machine)
    }

    /// QEMU's command line, without the console.
    pub fn arguments(&self) -> Vec<String> {
        let mut line = Line::default();
        line.option("-machine", self.machine_option());
        match self.board {
            Some(board) => line.0.extend(board.more.iter().map(|&word| word.into())),
            None => line.option("-cpu", self.processor.into()),
        }
        line.option("-smp", self.cpus.to_string());
        line.option("-m", self.memory_mib.to_string());
        line.option("-display", "none".into());
        match &self.start {
            Start::Kernel => self.add_kernel(&mut line),
            Start::Tree(tree) => self.add_tree(&mut line, tree),
            Start::Bare => self.add_bare_kernel(&mut line),
            Start::Raw { files, entry } => add_raw(&mut line, files, *entry),
            Start::Card(card) => line.option(
                "-drive",
                format!("if=sd,format=raw,snapshot=on,file={}", text(card)),
            ),
            Start::Firmware(firmware) => line.option("-bios", firmware.to_string_lossy().into()),
        }
        if let Some(tree) = &self.tree {
            line.option("-dtb", tree.to_string_lossy().into());
        }
        if let Some(flash) = &self.flash {
            line.option(
                "-drive",
                format!(
                    "if=pflash,index=1,format=raw,snapshot=on,file={}",
                    text(flash)
                ),
            );
        }
        self.add_devices(&mut line);
        if self.on_reboot == OnReboot::Exit {
            line.0.push("-no-reboot".into());
        }
        if self.counted {
            line.option("-icount", "shift=0,sleep=off".into());
        }
        if self.gdb {
            line.0.extend(["-s".into(), "-S".into()]);
        }
        if let Some(state) = &self.state {
            line.option("-incoming", format!("file:{}", text(state)));
        }
        line.0
    }

    pub fn machine_option(&self) -> String {
        if let Some(board) = self.board {
            return board.machine.into();
        }
        if let Some(typed) = self.typed {
            return typed.into();
        }
        let virtualization = on_off(self.virtualization);
        match self.highmem {
            // QEMU's defaults, as most people type it.
            true => format!("virt,virtualization={virtualization}"),
            false => {
                format!("virt,gic-version=2,virtualization={virtualization},highmem=off")
            }
        }
    }

    fn add_kernel(&self, line: &mut Line) {
        line.option("-kernel", text(&self.hypervisor));
        line.option("-append", self.append.clone());
        if let Some(kernel) = &self.kernel {
            let bootargs = comma_safe(&self.dom0_append);
            line.option(
                "-device",
                format!(
                    "guest-loader,addr={KERNEL_ADDRESS:#x},kernel={},bootargs={bootargs}",
                    text(kernel)
                ),
            );
        }
        match (&self.initrd, self.initrd_by) {
            (Some(initrd), InitrdBy::GuestLoader) => line.option(
                "-device",
                format!(
                    "guest-loader,addr={INITRD_ADDRESS:#x},initrd={}",
                    text(initrd)
                ),
            ),
            (Some(initrd), InitrdBy::Option) => {
                line.option("-initrd", initrd.to_string_lossy().into());
            }
            (None, _) => {}
        }
    }

    fn add_tree(&self, line: &mut Line, tree: &Path) {
        line.option("-kernel", text(&self.hypervisor));
        line.option("-dtb", text(tree));
        for (file, address) in self.modules().chain(self.files.iter().cloned()) {
            add_file(line, &file, address.into());
        }
    }

    /// dom0's kernel and initramfs, as far as there are any, each with its address.
    pub fn modules(&self) -> impl Iterator<Item = (PathBuf, u32)> {
        let (kernel, initrd) = match self.board {
            Some(board) => (board.kernel, board.initrd),
            None => (KERNEL_ADDRESS, INITRD_ADDRESS),
        };
        [(&self.kernel, kernel), (&self.initrd, initrd)]
            .into_iter()
            .filter_map(|(file, address)| Some((file.clone()?, address)))
    }

    fn add_bare_kernel(&self, line: &mut Line) {
        for (option, file) in [("-kernel", &self.kernel), ("-initrd", &self.initrd)] {
            if let Some(file) = file {
                line.option(option, file.to_string_lossy().into());
            }
        }
        line.option("-append", self.dom0_append.clone());
    }

    fn add_devices(&self, line: &mut Line) {
        for (index, disk) in self.disks.iter().enumerate() {
            line.option(
                "-drive",
                format!(
                    "if=none,id=disk{index},format={},snapshot={}{},file={}",
                    disk.format.name(),
                    on_off(disk.writes == Writes::Lost),
                    match disk.writes {
                        // QEMU would refuse a second machine.
                        Writes::Shared => ",file.locking=off",
                        Writes::Kept | Writes::Lost => "",
                    },
                    text(&disk.file)
                ),
            );
            let device = match disk.bus {
                Bus::Mmio => "virtio-blk-device",
                Bus::Pci => "virtio-blk-pci",
            };
            line.option("-device", format!("{device},drive=disk{index}"));
        }
        if self.balloon {
            line.option("-global", "virtio-mmio.ioeventfd=off".into());
            line.option("-device", "virtio-balloon-device".into());
        }
        if self.network {
            let forward = self.ssh_port.map_or(String::new(), |port| {
                format!(",hostfwd=tcp:127.0.0.1:{port}-:22")
            });
            let user = match &self.cable {
                None => "net0",
                Some(cable) => {
                    line.option("-netdev", cable.backend("net0"));
                    // A saved state has that of the network that was there, which nothing is connected to now.
                    "unused"
                }
            };
            line.option("-netdev", format!("user,id={user}{forward}"));
            line.option("-device", "virtio-net-device,netdev=net0".into());
        } else {
            // The board's default is a PCI card.
            line.option("-nic", "none".into());
        }
    }
}

fn add_raw(line: &mut Line, files: &[(PathBuf, u64)], entry: u32) {
    for (file, address) in files {
        add_file(line, file, *address);
    }
    line.option("-device", format!("loader,cpu-num=0,addr={entry:#x}"));
}

fn add_file(line: &mut Line, file: &Path, address: u64) {
    line.option(
        "-device",
        format!("loader,force-raw=on,addr={address:#x},file={}", text(file)),
    );
}

fn hypervisor(which: &Hypervisor) -> Result<PathBuf> {
    match which {
        Hypervisor::Krypton => build::krypton(),
        Hypervisor::Measuring => build::measuring(),
        Hypervisor::DebianXen => project::debian_xen(),
        Hypervisor::Elf(elf) => build::flat_file(elf, &project::root().join("target/elf.flat")),
    }
}

fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn option(&mut self, name: &str, value: String) {
        self.0.extend([name.to_owned(), value]);
    }
}

fn text(path: &Path) -> String {
    comma_safe(&path.to_string_lossy())
}

/// QEMU ends a value at a comma, unless it is doubled.
fn comma_safe(value: &str) -> String {
    value.replace(',', ",,")
}

fn join(words: &[&str]) -> String {
    words
        .iter()
        .filter(|word| !word.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Bus, Disk, Format, InitrdBy, Machine, OnReboot, Start, Writes};

    fn machine() -> Machine {
        Machine {
            board: None,
            typed: None,
            processor: "cortex-a15",
            cpus: 2,
            memory_mib: 1024,
            highmem: false,
            virtualization: true,
            start: Start::Kernel,
            tree: None,
            flash: None,
            hypervisor: "krypton".into(),
            append: "console=dtuart".into(),
            kernel: Some("vm,linuz".into()),
            initrd: None,
            initrd_by: InitrdBy::GuestLoader,
            dom0_append: "console=hvc0 a=b,c".into(),
            files: Vec::new(),
            disks: vec![Disk {
                file: "d".into(),
                format: Format::Raw,
                bus: Bus::Pci,
                writes: Writes::Kept,
            }],
            network: false,
            cable: None,
            ssh_port: None,
            balloon: false,
            on_reboot: OnReboot::Exit,
            gdb: false,
            counted: false,
            state: None,
            hazards: None,
        }
    }

    #[test]
    fn commas_in_names_and_arguments_survive_qemu() {
        let line = machine().arguments().join("\n");
        assert!(
            line.contains("kernel=vm,,linuz,bootargs=console=hvc0 a=b,,c\n"),
            "{line}"
        );
    }

    #[test]
    fn a_raw_start_has_no_kernel_option() {
        let start = Start::Raw {
            files: vec![("krypton".into(), 0x4020_0000)],
            entry: 0x4020_0000,
        };
        let line = Machine { start, ..machine() }.arguments();
        assert!(
            !line.contains(&"-kernel".into())
                && line.contains(&"loader,cpu-num=0,addr=0x40200000".into())
        );
    }
}
