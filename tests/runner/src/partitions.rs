//! Domains that the hypervisor starts itself: the trees that name them, and what becomes of them beside dom0 and without it.

use std::fs::metadata;
use std::path::{Path, PathBuf};

use crate::machine::{Machine, Start};
use crate::options::Options;
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, dom0, faults, guests, project};

/// Where the modules of domains are put on `virt`, clear of dom0's.
const DOMU_KERNEL: u32 = 0x5800_0000;
const DOMU_INITRD: u32 = 0x5c00_0000;
const DOMU_CLOCK: u32 = 0x5f00_0000;
const DOMU_KEYS: u32 = 0x5f10_0000;

/// The machine's real-time clock, which is marked for domUs.
pub const CLOCK: &str = "pl031@9010000 {";

/// The performance monitors, of whose interrupt QEMU's own tree does not tell.
const MONITORS: &str = "pmu { compatible = \"arm,cortex-a15-pmu\"; interrupts = <1 7 4>;";

/// Sets the clock's alarm, and waits for its interrupt.
pub const RING: &str = "echo +1 >/sys/class/rtc/rtc0/wakealarm; \
    until grep -E '[1-9][0-9]* .* rtc-pl031' /proc/interrupts; do sleep 1; done; echo alarms: $((6 - 5))\n";
/// Ctrl-A three times moves the input.
pub const SWITCH: &str = "\u{1}\u{1}\u{1}";

/// Two Debian domains and three that cannot be made, without dom0: both reach their shells, one by the way of the machine's
/// clock that it owns, the input walks from one to the other, no line is cut into another, and the machine stays on when both
/// have ended.
pub fn without_dom0(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("partitions")?;
    let mut machine = Machine::new(options)?;
    machine.kernel = None;
    machine.initrd = None;
    let source = project::root().join("tests/domu/rtc.dts");
    let source = std::fs::read_to_string(&source).map_err(|error| format!("rtc.dts: {error}"))?;
    let clock_tree = faults::compile(&source, &folder.path().join("clock"))?;
    let not_marked = source
        .replace("9010000", "9030000")
        .replace("pl031", "pl061");
    let keys_tree = faults::compile(&not_marked, &folder.path().join("keys"))?;
    let clock = module("device-tree", &clock_tree, DOMU_CLOCK)?;
    let keys = module("device-tree", &keys_tree, DOMU_KEYS)?;
    let domains = [
        debian(
            "domU0",
            &format!("memory = <0 0x20000>; cpus = <1>; {clock}"),
        )?,
        String::from("nothing { compatible = \"xen,domain\"; cpus = <1>; };"),
        debian("domU2", "memory = <0 0x20000>; cpus = <2>;")?,
        debian("large", "memory = <0 0x4000000>; cpus = <1>;")?,
        debian("keys", &format!("memory = <0 0x8000>; cpus = <1>; {keys}"))?,
    ];
    let mut files = debian_files()?.to_vec();
    files.extend([(clock_tree, DOMU_CLOCK), (keys_tree, DOMU_KEYS)]);
    with_domains(&mut machine, &files, &domains.concat(), folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    for line in [
        "Xen dom0less mode detected",
        "LOADING DOMAIN 1 (/chosen/domU0): 1 vCPUs, 128 MiB",
        "BOOT: /chosen/nothing is not started: memory: missing",
        "LOADING DOMAIN 3 (/chosen/domU2): 2 vCPUs, 128 MiB",
        "BOOT: /chosen/large is not started: memory: 65536 MiB",
        "BOOT: /chosen/keys is not started: /passthrough/rtc@4010000*/pl061@9030000 is not marked xen,passthrough",
        "Serial input to DOM1",
        "Freed boot modules; starting d1, d3",
    ] {
        session.expect(line, options.timeout)?;
    }
    let up = ["(XEN) DOM3: domU is up: 2 CPUs", "domU is up: 1 CPUs"];
    let (first, _) = session.expect_any(&up, options.timeout)?;
    session.expect(up[1 - first], options.timeout)?;
    session.type_text("\necho $((6 * 7)) is the answer\n")?;
    session.expect("42 is the answer", options.timeout)?;
    session.type_text(RING)?;
    session.expect("alarms: 1", options.timeout)?;
    session.type_text(SWITCH)?;
    session.expect("Serial input to DOM3", options.timeout)?;
    session.type_text("\necho $((6 * 8)) is another; poweroff -f\n")?;
    session.expect("48 is another", options.timeout)?;
    session.expect("Serial input to DOM1", options.timeout)?;
    session.expect("d3 has ended: Poweroff", options.timeout)?;
    session.type_text("\npoweroff -f\n")?;
    session.expect("d1 has ended: Poweroff", options.timeout)?;
    session.expect(
        "No domain runs any more; the machine stays on",
        options.timeout,
    )?;
    no_line_is_cut(session.transcript())?;
    // The hypervisor has the input now: `y` audits memory, `R` restarts.
    session.type_text("y")?;
    session.expect("audit: every reference", options.timeout)?;
    session.type_text("R")?;
    session.expect_end(options.timeout).map(drop)
}

/// Every line of the second domain is whole: it begins with the hypervisor's mark, which is nowhere else.
fn no_line_is_cut(transcript: &str) -> Result {
    let cut = |line: &&str| line.rfind("(XEN) ").is_some_and(|at| at != 0);
    match transcript.lines().find(cut) {
        None => Ok(()),
        Some(line) => Err(format!("a line begins within another: {line}")),
    }
}

/// dom0 with one domain, which Debian's `init-dom0less` introduces: the script `partitions` of tests/dom0.
pub fn beside_dom0(options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("partitions")?;
    let mut machine = Machine::new(options)?;
    let inside = "memory = <0 0x20000>; cpus = <1>; xen,enhanced = \"enabled\";";
    // xl makes domUs of what is on it.
    machine.disks = dom0::measuring_disks()?;
    let domains = debian("domU0", inside)?
        + "no-cpus { compatible = \"xen,domain\"; memory = <0 0x20000>; };";
    with_domains(&mut machine, &debian_files()?, &domains, folder.path())?;
    let says = [
        "LOADING DOMAIN 1 (/chosen/domU0): 1 vCPUs, 128 MiB",
        "BOOT: /chosen/no-cpus is not started: cpus: missing",
        "Serial input to DOM0",
        "Freed boot modules; starting d0, d1",
    ];
    let mut session = Session::start(&machine, echo)?;
    for line in says.iter().chain(&[dom0::UP]) {
        session.expect(line, options.timeout)?;
    }
    // The prompt may have been followed by a line of the domain's.
    session.type_text("\nexec run-test partitions\n")?;
    dom0::passes(&mut session, "partitions", options)
}

/// A bare-metal guest of tests/guests as the only domain; types what it asks for.
pub fn runs_typist(kernel: &Path, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("partitions")?;
    let mut machine = Machine::new(options)?;
    alone(&mut machine, kernel, "cpus = <1>;", folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    let typed = session.expect("type 0", options.timeout)?;
    let text = typed.rsplit(' ').next().unwrap_or_default();
    session.type_text(text)?;
    let sum = session.expect("done: * ok, * failed", options.timeout)?;
    guests::judge(session.transcript(), &sum)
}

/// A bare-metal guest of tests/guests as the only domain, of two vCPUs with performance monitors on one CPU. QEMU's tree does
/// not tell of their interrupt.
pub fn runs_monitors(kernel: &Path, options: &Options, echo: Echo) -> Result {
    let folder = ScratchFolder::new("partitions")?;
    let mut machine = Machine::new(options)?;
    machine.cpus = 1;
    alone(&mut machine, kernel, "cpus = <2>; vpmu;", folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    let sum = session.expect("done: * ok, * failed", options.timeout)?;
    guests::judge(session.transcript(), &sum)
}

/// Makes a bare-metal guest the only domain, with `inside` in its node.
fn alone(machine: &mut Machine, kernel: &Path, inside: &str, folder: &Path) -> Result {
    machine.kernel = None;
    machine.initrd = None;
    let common = "memory = <0 0x10000>; vpl011; xen,enhanced = \"no-xenstore\";";
    let kernel_node = module("kernel", kernel, DOMU_KERNEL)?;
    let node = format!(
        "domU0 {{ compatible = \"xen,domain\"; {CELLS} {common} {inside} {kernel_node} }};"
    );
    let files = [(kernel.to_owned(), DOMU_KERNEL)];
    with_domains(machine, &files, &node, folder)
}

/// A bare-metal guest of tests/guests as two domains that have RAM of their own choice, share memory and are connected, each
/// on a CPU of its own, and as some that cannot be made.
pub fn runs_two_guests(kernel: &Path, options: &Options, echo: Echo) -> Result {
    const FIRST: &str = "xen,static-mem = <0 0x70000000 0 0x4000000>; direct-map; \
        vcpu0 { compatible = \"xen,vcpu\"; id = <0>; hard-affinity = \"0\"; }; \
        end1: end { compatible = \"xen,evtchn-v1\"; xen,evtchn = <10 &end2>; };";
    const SECOND: &str = "xen,static-mem = <0 0x74000000 0 0x2000000 0 0x78000000 0 0x2000000>; domain-cpupool = <&pool>; \
        end2: end { compatible = \"xen,evtchn-v1\"; xen,evtchn = <12 &end1>; };";
    const SHARED: &str = "memory { compatible = \"xen,domain-shared-memory-v1\"; xen,shm-id = \"both\"; \
        xen,shared-mem = <0 0x7c000000 0 0xb0000000 0 0x2000>; };";
    let folder = ScratchFolder::new("partitions")?;
    let mut machine = Machine::new(options)?;
    machine.kernel = None;
    machine.initrd = None;
    machine.cpus = 2;
    let kernel_node = module("kernel", kernel, DOMU_KERNEL)?;
    let domain = |name: &str, role: &str, inside: &str| {
        let kernel = kernel_node.replace("console=ttyAMA0", role);
        format!(
            "{name} {{ compatible = \"xen,domain\"; {CELLS} memory = <0 0x10000>; cpus = <1>; \
             xen,enhanced = \"no-xenstore\"; {inside} {kernel} }};"
        )
    };
    let nodes = [
        "pool: pool { compatible = \"xen,cpupool\"; cpupool-cpus = <&cpu1>; cpupool-sched = \"null\"; };".to_owned(),
        domain("first", "role=first", &format!("vpl011; {FIRST} {SHARED}")),
        // Silent, so that no line of the first is begun twice.
        domain("second", "role=second", &format!("{SECOND} {SHARED}")),
        // In the hypervisor's own memory, on another pool's CPU, and with the first's RAM.
        domain("image", "", "xen,static-mem = <0 0x40000000 0 0x4000000>;"),
        domain(
            "elsewhere",
            "",
            "vcpu0 { compatible = \"xen,vcpu\"; id = <0>; hard-affinity = \"1\"; };",
        ),
        domain("thief", "", "xen,static-mem = <0 0x70000000 0 0x4000000>;"),
    ];
    let files = [(kernel.to_owned(), DOMU_KERNEL)];
    with_domains(&mut machine, &files, &nodes.concat(), folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    for line in [
        "Pool 1: CPUs 0x2 (/chosen/pool)",
        "BOOT: /chosen/image is not started: /chosen/image: xen,static-mem at 0x40000000-0x44000000 overlaps",
        "BOOT: /chosen/elsewhere is not started: hard-affinity: no CPU of vCPU 0 is in its pool",
        "BOOT: /chosen/thief is not started: * overlaps /chosen/first: xen,static-mem",
        "Freed boot modules; starting d1, d2",
    ] {
        session.expect(line, options.timeout)?;
    }
    let sum = session.expect("done: * ok, * failed", options.timeout)?;
    guests::judge(session.transcript(), &sum)?;
    // The second domain runs on; memory that both share outlives the first.
    session.expect("d1 has ended: Poweroff", options.timeout)?;
    session.type_text(SWITCH)?;
    session.type_text("y")?;
    session.expect("audit: every reference", options.timeout)?;
    session.type_text("R")?;
    session.expect_end(options.timeout).map(drop)
}

/// A bare-metal guest of tests/guests as two domains that are connected, the first of which is started again when it ends by
/// a restart or a crash: each of its lives begins as the first one. Others that may be started again go on before it.
pub fn runs_again(kernel: &Path, options: &Options, echo: Echo) -> Result {
    const SHARED: &str = "memory { compatible = \"xen,domain-shared-memory-v1\"; xen,shm-id = \"both\"; \
        xen,shared-mem = <0 0x7c000000 0 0xb0000000 0 0x2000>; };";
    let folder = ScratchFolder::new("partitions")?;
    let mut machine = Machine::new(options)?;
    machine.kernel = None;
    machine.initrd = None;
    machine.cpus = 2;
    let kernel_node = module("kernel", kernel, DOMU_KERNEL)?;
    let domain = |name: &str, role: &str, inside: &str| {
        let kernel = kernel_node.replace("console=ttyAMA0", role);
        format!(
            "{name} {{ compatible = \"xen,domain\"; {CELLS} memory = <0 0x10000>; \
             xen,enhanced = \"no-xenstore\"; {inside} {SHARED} {kernel} }};"
        )
    };
    let idle = ["idle1", "idle2", "idle3", "idle4", "idle5"].map(|name| {
        domain(
            name,
            "role=idle",
            "cpus = <1>; krypton,restart-on = \"crash\";",
        )
    });
    let nodes = [
        idle.concat(),
        domain(
            "first",
            "role=first",
            "cpus = <2>; vpl011; krypton,restart-on = \"reboot\", \"crash\"; \
             end1: end { compatible = \"xen,evtchn-v1\"; xen,evtchn = <10 &end2>; };",
        ),
        domain(
            "second",
            "role=second",
            "cpus = <1>; end2: end { compatible = \"xen,evtchn-v1\"; xen,evtchn = <12 &end1>; };",
        ),
        domain("never", "", "cpus = <1>; krypton,restart-on = \"always\";"),
    ];
    let files = [(kernel.to_owned(), DOMU_KERNEL)];
    with_domains(&mut machine, &files, &nodes.concat(), folder.path())?;
    let mut session = Session::start(&machine, echo)?;
    for line in [
        "BOOT: /chosen/never is not started: krypton,restart-on: \"always\" is not known",
        "KiB of boot modules stay for restarts",
        "Serial input to DOM6",
        "Freed boot modules; starting d1, d2, d3, d4, d5, d6, d7",
        "guest: restart",
        "d6 has ended: Reboot",
        "d6 is started again in 1 s",
        "Serial input to DOM6",
        "guest: restart",
        "d6 has ended: Crash",
        "d6 is started again in 2 s",
        "guest: restart",
    ] {
        session.expect(line, options.timeout)?;
    }
    let sum = session.expect("done: * ok, * failed", options.timeout)?;
    let transcript = session.transcript();
    if transcript.contains("FAIL ") {
        return Err(transcript.to_owned());
    }
    let last = transcript.rfind("guest: ").unwrap_or(0);
    guests::judge(&transcript[last..], &sum)?;
    session.expect("Serial input to Xen", options.timeout)?;
    session.expect("d6 has ended: Poweroff", options.timeout)?;
    session.type_text("y")?;
    session.expect("audit: every reference", options.timeout)?;
    session.type_text("R")?;
    session.expect_end(options.timeout).map(drop)
}

const CELLS: &str = "#address-cells = <2>; #size-cells = <2>;";

/// Returns the node of a Debian domain with a UART.
fn debian(name: &str, inside: &str) -> Result<String> {
    let [(kernel, _), (initrd, _)] = debian_files()?;
    let kernel = module("kernel", &kernel, DOMU_KERNEL)?;
    let initrd = module("ramdisk", &initrd, DOMU_INITRD)?;
    Ok(format!(
        "{name} {{ compatible = \"xen,domain\"; {CELLS} vpl011; {inside} {kernel} {initrd} }};"
    ))
}

fn debian_files() -> Result<[(PathBuf, u32); 2]> {
    Ok([
        (project::dom0_kernel()?, DOMU_KERNEL),
        (project::guests_initrd()?, DOMU_INITRD),
    ])
}

fn module(kind: &str, file: &Path, address: u32) -> Result<String> {
    let size = metadata(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let size = size.len();
    Ok(format!(
        "module@{address:x} {{ compatible = \"multiboot,{kind}\", \"multiboot,module\"; \
         reg = <0 {address:#x} 0 {size:#x}>; bootargs = \"console=ttyAMA0\"; }};"
    ))
}

/// Puts domains into the machine: their nodes into QEMU's own tree, and their modules into memory.
fn with_domains(
    machine: &mut Machine,
    files: &[(PathBuf, u32)],
    nodes: &str,
    folder: &Path,
) -> Result {
    let source = faults::tree_source(machine, folder)?;
    let line = match &machine.kernel {
        // The line that QEMU was given is the hypervisor's only where dom0 has one of its own.
        None => format!("xen,xen-bootargs = \"{}\"; ", machine.append),
        Some(_) => String::new(),
    };
    let (before, after) = source
        .split_once("chosen {")
        .ok_or("QEMU's device tree has no /chosen")?;
    // Properties come before nodes, and there may be nodes already.
    let (properties, after) = match after.find("module@").or_else(|| after.find("};")) {
        Some(end) => after.split_at(end),
        None => return Err("/chosen does not end".into()),
    };
    let source = format!("{before}chosen {{{properties}{line}{nodes} {after}");
    let source = source.replace(CLOCK, &format!("{CLOCK} xen,passthrough;"));
    let source = source.replace("cpu@1 {", "cpu1: cpu@1 {");
    let source = source.replace("pmu {", MONITORS);
    let blob = faults::compile(&source, &folder.join("domains"))?;
    machine.files.extend(files.iter().cloned());
    machine.start = Start::Tree(blob);
    Ok(())
}
