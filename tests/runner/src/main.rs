//! Krypton's build and test tool: `cargo xtask COMMAND`.
//!
//! | room | what it owns |
//! |---|---|
//! | `options` | the command line |
//! | `build` | cargo runs, images in `dist/`, the proof that a build is reproducible |
//! | `image` | file formats: ELF to flat binary, uImage |
//! | `symbols` | function names for the hypervisor's backtrace, put into the image |
//! | `identity` | what the image says of its build |
//! | `machine` | what is put into QEMU, as data, and the QEMU command line made of it |
//! | `boards` | QEMU's boards other than `virt`, and the tests on them |
//! | `typed` | QEMU's `virt` with the options people type |
//! | `session` | one running QEMU: its console, its monitor, its end |
//! | `snapshot` | a booted dom0, saved for the runs that follow |
//! | `transcript` | what the console said, and patterns on its lines |
//! | `guests`, `dom0`, `faults` | three kinds of QEMU tests |
//! | `partitions` | domains that the hypervisor starts itself, beside dom0 and without it |
//! | `two` | two machines, between which a domU moves |
//! | `bench` | what services cost, beside Debian's Xen; its report |
//! | `fuzz` | the targets of tests/fuzz under libFuzzer |
//! | `hazards` | runs under the checker for caches and TLBs; what it must notice |
//! | `leftovers` | a boot loader that leaves everything on |
//! | `disk` | a disk with a boot partition |
//! | `uboot` | the way through U-Boot: what it reads, made and tried |
//! | `uefi` | the way through UEFI firmware |
//! | `flash` | an SD card for a board that has U-Boot |
//! | `card` | that card in QEMU's board of its kind |
//! | `crash` | the hypervisor's own panic: names in its backtrace, then a reboot or none |
//! | `package` | the Debian packages, made and looked into |
//! | `debian` | a whole Debian as dom0, from a disk that U-Boot starts |
//! | `tree` | what a boot makes of a board's device tree, on the host |
//! | `lines` | how long the source is |
//! | `suite` | all tests in order |
//! | `lanes` | tests side by side, and the sum |

mod bench;
mod boards;
mod build;
mod card;
mod crash;
mod crossbar;
mod debian;
mod disk;
mod dom0;
mod elsewhere;
mod faults;
mod flash;
mod fuzz;
mod guests;
mod hazards;
mod identity;
mod image;
mod lanes;
mod leftovers;
mod lines;
mod load_address;
mod loaders;
mod machine;
mod options;
mod package;
mod partitions;
mod patience;
mod processors;
mod project;
mod ram;
mod refusals;
mod report;
mod session;
mod snapshot;
mod suite;
mod symbols;
mod transcript;
mod tree;
mod two;
mod typed;
mod uboot;
mod uboot_ways;
mod uefi;
mod words;

use std::process::ExitCode;

use options::Options;

/// A command's result; its error is shown to a person as it is.
type Result<T = ()> = std::result::Result<T, String>;

const HELP: &str = "\
cargo xtask COMMAND [OPTION...]

  image              build dist/krypton (flat), dist/krypton.elf, dist/krypton.uImage
  uboot [BOARD]      build dist/krypton.uImage, dist/krypton.itb and dist/boot.scr for a board (a wrong name lists all)
  flash BOARD DEST   make an SD card, or a file with what is on one, for a board that has U-Boot; --nor: what is in its NOR flash
  deb                make dist/krypton-hypervisor_VERSION_armhf.deb, and one with its symbols
  debian             start the whole Debian of target/debian/disk.img by U-Boot, with ssh on port 2222 of this machine
  run                boot to dom0's shell on this terminal; without a terminal, stop once the shell is there
  demo               play a domU's life, each step explained; ends by itself
  boot               boot until dom0 is up, or until a test in dom0 has finished (--test)
  guest [NAME...]    run bare-metal test guests in dom0's place (all, if none is named)
  mutants [WORD...]  hide each clean, TLB invalidate and barrier from the checker for caches and TLBs; it must report that
  faults [NAME...]   boot with one thing wrong each time; the console must name it
  fuzz [TARGET...]   give the targets of tests/fuzz inputs by libFuzzer (all, if none is named; --seconds for each: 60)
  test [FILTER...]   everything: host tests, guests, dom0, faults, reproducible build
  soak [FILTER...]   what takes hours: domUs without end, load on them, load on dom0
  bench [PART...]    Krypton and Debian's Xen side by side, into docs/performance.md (all of micro scale macro hardware
                     latency, or those named; report: from what is stored)
  bench-check        Krypton's services against the stored figures
  profile ROW...     which functions the instructions of a row of `bench` are in
  tree FILE [MEM]    what a boot makes of a board's device tree; MEM: RAM if the file says none (1G, 0x40000000:1G)
  tree               writes docs/boards/README.md: the same for all of Debian's trees
  report FILE LOG [MEM]  one file to send: a form, the same, the console's log, the tree's source
  lines [FOLDER]     lines of code, comments and tests by room, of this checkout or another
  reproducible       build HEAD in two folders and compare the bytes
  elf FILE           boot this ELF file like `run` (cargo's runner for the target)

  --xen              Debian's own Xen 4.17 instead of Krypton
  --smp N            CPUs (2)
  --mem N            RAM in MiB (1024)
  --board NAME       another board than QEMU's virt (midway, orangepi-pc, vexpress-a15, ...)
  --highmem on|off   PCI above 4 GiB (off: QEMU truncates fault addresses there)
  --test NAME        a script of tests/dom0
  --seconds N        how long the tests `stress` and `load` put load on CPUs
  --count N          how many domUs the test `cycles` makes, and `load` kills
  --timeout S        seconds until a boot is given up, or a test of which nothing comes (300)
  --append WORDS     more words for the hypervisor's command line
  --dom0-append WORDS  more words for dom0's command line
  --load ADDRESS     load address in the uImage (0x41000000)
  --latency          a build that measures the times with interrupts masked, and tells the longest when dom0 powers off
  --hazards          watched by the checker for caches, TLBs and barriers (docs/hazards.md)
  --counted          virtual time counts instructions: a tick is 16 of them
  --out FILE         where `tree` writes dom0's tree
  --nor              `flash` makes what is in NOR flash (vexpress)
  --loaders FOLDER   `flash` puts the board's own loaders of this folder on the card that it makes in a file
  --jobs N           cores that tests keep busy at once (all)
  --order reverse|N  another order of the tests: the last first, or any, the same for the same N
  --keep             `fuzz` takes the fewest inputs that reach all that was reached into tests/fuzz/corpus
  --fresh            boot dom0, instead of going on from its snapshot
  --gdb              wait for a debugger on port 1234
";

fn main() -> ExitCode {
    match command(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn command(mut arguments: impl Iterator<Item = String>) -> Result<ExitCode> {
    let name = arguments.next().unwrap_or_else(|| "help".into());
    let options = Options::parse(arguments)?;
    match name.as_str() {
        "image" => build::image(&options)?,
        "uboot" => uboot::make(&options)?,
        "flash" => flash::flash(&options)?,
        "deb" => package::make(&options)?,
        "debian" => debian::run(&options)?,
        "run" => dom0::run(&options)?,
        "demo" => dom0::demo(&options)?,
        "boot" => dom0::boot(&options)?,
        "elf" => dom0::run(&options.with_elf_operand()?)?,
        "guest" => return lanes::run(suite::guests()?, &options),
        "mutants" => return hazards::mutants::run(&options),
        "faults" => return lanes::run(suite::faults(), &options),
        "fuzz" => fuzz::run(&options)?,
        "lines" => lines::show(&options)?,
        "tree" => return tree::show(&options),
        "report" => report::write(&options)?,
        "test" => return suite::everything(&options),
        "soak" => return suite::soak(&options),
        "bench" => bench::measure(&options)?,
        "bench-check" => bench::check(&options, session::Echo::Hide)?,
        "profile" => bench::profile(&options, session::Echo::Hide)?,
        "reproducible" => build::reproducible()?,
        "help" | "--help" | "-h" => print!("{HELP}"),
        other => return Err(format!("no command \"{other}\"; see `cargo xtask help`")),
    }
    Ok(ExitCode::SUCCESS)
}
