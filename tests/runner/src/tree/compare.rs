//! dom0's device tree beside the board's, node by node: equal but for what is written here.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use dt::{Node, PHANDLE, Tree};
use krypton::dom0::devices::DevicePlan;
use krypton::platform::host_dt::{HostInfo, UartInfo};
use krypton::platform::interrupt::{self, Route};
use krypton::platform::ranges::{self, PhysRange};
use krypton::platform::translate;

use super::loader::is_memory;
use crate::Result;

/// Nodes that dom0 does not get: compatible, the boards (by how a compatible of the root begins), and whose they are.
const HIDDEN: &[(&str, &str, &str)] = &[
    ("arm,cortex-a7-pmu", "", "performance monitors"),
    ("arm,cortex-a12-pmu", "", "performance monitors"),
    ("arm,cortex-a15-pmu", "", "performance monitors"),
    ("arm,cortex-a17-pmu", "", "performance monitors"),
    ("arm,armv7-timer", "", "the hypervisor's timer"),
    ("arm,armv7-timer-mem", "", "the hypervisor's timer"),
    ("arm,psci", "", "firmware, called by way of the hypervisor"),
    (
        "arm,psci-0.2",
        "",
        "firmware, called by way of the hypervisor",
    ),
    (
        "arm,psci-1.0",
        "",
        "firmware, called by way of the hypervisor",
    ),
    ("xen,xen", "", "another hypervisor's"),
    ("xen,domain", "", "a domain that is not started"),
    ("multiboot,module", "", "a boot module"),
    ("xen,multiboot-module", "", "a boot module"),
    ("arm,cci-400", "arm,vexpress", "the coherent interconnect"),
    ("arm,cci-400-pmu", "arm,vexpress", "performance monitors"),
    (
        "arm,hdlcd",
        "arm,vexpress",
        "made useless by the interconnect",
    ),
    ("arm,vexpress-reset", "arm,vexpress", "ends the machine"),
    ("arm,vexpress-reboot", "arm,vexpress", "ends the machine"),
    ("arm,vexpress-shutdown", "arm,vexpress", "ends the machine"),
    (
        "samsung,exynos4210-mct",
        "samsung,exynos5",
        "makes the counter count",
    ),
    ("samsung,secure-firmware", "samsung,exynos5", "starts CPUs"),
    ("syscon-poweroff", "samsung,exynos5", "ends the machine"),
    ("syscon-reboot", "samsung,exynos5", "ends the machine"),
];

/// Properties of `/chosen` that are written anew or are the hypervisor's.
const CHOSEN: &[&str] = &[
    "bootargs",
    "xen,xen-bootargs",
    "xen,dom0-bootargs",
    "stdout-path",
    "linux,stdout-path",
    "linux,initrd-start",
    "linux,initrd-end",
    "linux,uefi-",
];

/// Returns why dom0 does not get a node; `None` where it does.
pub fn kept_from_dom0(
    node: &Node<'_>,
    host: &HostInfo,
    console: Option<&str>,
) -> Option<&'static str> {
    let path = node.path().to_string();
    let is_of = |boards: &str| host.compatible.iter().any(|name| name.starts_with(boards));
    let by_name = HIDDEN
        .iter()
        .find(|(name, boards, _)| node.is_compatible(&[*name]) && is_of(boards));
    match path.as_str() {
        _ if console == Some(path.as_str()) => Some("the hypervisor's console"),
        _ if path == host.timer.path || path == host.gic.path => None,
        _ => by_name.map(|(_, _, whose)| *whose),
    }
}

/// The board that dom0's tree is compared with.
pub struct Board<'a> {
    pub tree: &'a Tree<'a>,
    pub host: &'a HostInfo,
    pub console: Option<&'a UartInfo>,
    pub devices: &'a DevicePlan,
}

impl Board<'_> {
    fn console_path(&self) -> Option<&str> {
        self.console.map(|uart| uart.path.as_str())
    }
}

/// Returns all that differs and must not, a line each.
pub fn differences(board: &Board<'_>, dom0: &Tree<'_>) -> Vec<String> {
    let mut found = Vec::new();
    nodes(&board.tree.root(), &dom0.root(), board, &mut found);
    for node in dom0.all() {
        let path = node.path().to_string();
        let is_ours = rebuilt(&path)
            || is_memory(&node)
            || path.starts_with("/chosen")
            || path == board.host.timer.path;
        if !is_ours && board.tree.find(&path).is_none() {
            found.push(format!("{path} is not the board's"));
        }
    }
    phandles(board.tree, dom0, &mut found);
    resources(board, dom0, &mut found);
    found
}

fn rebuilt(path: &str) -> bool {
    let first = path.split('/').nth(1);
    matches!(first, Some("cpus" | "psci" | "hypervisor"))
}

/// Compares a node that both have, and what is below.
fn nodes(ours: &Node<'_>, theirs: &Node<'_>, board: &Board<'_>, found: &mut Vec<String>) {
    properties(ours, theirs, board, found);
    if ours.path() == board.host.gic.path.as_str() {
        return;
    }
    let mut candidates: Vec<_> = theirs.children().collect();
    for child in ours.children() {
        let path = child.path().to_string();
        if rebuilt(&path) || is_memory(&child) {
            continue;
        }
        let at = candidates.iter().position(|n| n.name() == child.name());
        let twin = at.map(|at| candidates.remove(at));
        let hidden = kept_from_dom0(&child, board.host, board.console_path());
        match (twin, hidden) {
            (Some(twin), Some(whose)) => {
                let below_disabled = theirs.ancestors().any(|n| !n.is_enabled());
                if !below_disabled && (twin.is_enabled() || twin.has("compatible")) {
                    found.push(format!("{path} ({whose}) is shown to dom0"));
                }
            }
            (None, Some(_)) => {}
            (None, None) => found.push(format!("{path} is lost")),
            (Some(twin), None) => nodes(&child, &twin, board, found),
        }
    }
}

fn properties(ours: &Node<'_>, theirs: &Node<'_>, board: &Board<'_>, found: &mut Vec<String>) {
    let path = ours.path().to_string();
    let (is_gic, is_timer) = (path == board.host.gic.path, path == board.host.timer.path);
    let written_anew = |name: &str| match path.as_str() {
        "/chosen" => CHOSEN.iter().any(|known| name.starts_with(known)),
        "/aliases" => ours
            .string(name)
            .and_then(|path| board.tree.find(path))
            .is_some_and(|target| {
                target
                    .ancestors()
                    .any(|n| kept_from_dom0(&n, board.host, board.console_path()).is_some())
            }),
        _ if is_gic => matches!(
            name,
            "reg"
                | "interrupts"
                | "interrupt-names"
                | "interrupt-parent"
                | "clocks"
                | "clock-names"
                | "power-domains"
        ),
        _ if is_timer => !PHANDLE.contains(&name),
        _ => name == "xen,passthrough",
    };
    for (name, value) in ours.properties() {
        let same = theirs.property(name) == Some(value);
        if same || written_anew(name) {
            continue;
        }
        if name != "status" {
            found.push(format!("{name} of {path} differs"));
        }
    }
    let more = theirs.properties().filter(|(name, _)| !ours.has(name));
    for (name, _) in more.filter(|(name, _)| *name != "status" && !written_anew(name)) {
        found.push(format!("{name} of {path} is not the board's"));
    }
    // A node is disabled only if a line says so.
    let said = |note: &String| note.starts_with(&format!("DOM0: {path} disabled: "));
    if ours.string("status") != theirs.string("status") && !is_timer {
        let disabled = theirs.string("status") == Some("disabled");
        let off = ours.ancestors().any(|n| !n.is_enabled());
        if !(disabled && (off || board.devices.notes.iter().any(said))) {
            found.push(format!("status of {path} differs"));
        }
    }
}

/// Every phandle leads somewhere.
fn phandles(ours: &Tree<'_>, theirs: &Tree<'_>, found: &mut Vec<String>) {
    for node in ours.all().filter(|node| !is_memory(node)) {
        if let Some(phandle) = node.phandle()
            && theirs.by_phandle(phandle).is_none()
        {
            found.push(format!("the phandle of {} leads nowhere", node.path()));
        }
    }
}

/// Every enabled node has its registers mapped and its interrupts routed.
fn resources(board: &Board<'_>, dom0: &Tree<'_>, found: &mut Vec<String>) {
    let mut mapped = board.devices.mmio.clone();
    mapped.extend(&board.devices.reserved_ram);
    let mapped = ranges::merge(mapped);
    // The window of a bus that the console is behind is mapped but for the console's page.
    let around = board.console.map(|uart| {
        let page = uart.reg.pages_outward();
        ranges::merge(mapped.iter().copied().chain([page]).collect())
    });
    let gic = dom0.find(&board.host.gic.path);
    let devices = dom0.all().filter(|node| {
        let path = node.path().to_string();
        let ours = rebuilt(&path) || path == board.host.gic.path || path == board.host.timer.path;
        !ours && !is_memory(node) && node.ancestors().all(|n| n.is_enabled())
    });
    for node in devices {
        let path = node.path().to_string();
        for region in translate::reg_ranges(&node).flatten() {
            let pages: PhysRange = region.pages_outward();
            let is_bus = board
                .console
                .is_some_and(|uart| uart.path.starts_with(&format!("{path}/")));
            let mapped = around.as_ref().filter(|_| is_bus).unwrap_or(&mapped);
            if !mapped.iter().any(|range| range.contains(&pages)) {
                found.push(format!("{path} is enabled and {region} not mapped"));
            }
        }
        let Some(gic) = &gic else { continue };
        for route in interrupt::routes(&node, gic) {
            if let Route::Gic(line) = route {
                let routed = board.devices.interrupts.iter();
                if !routed.map(|line| line.intid).any(|id| id == line.intid) {
                    found.push(format!("{path} is enabled and interrupt {line} not routed"));
                }
            }
        }
    }
}

/// Returns what `dtc` finds odd in a blob.
pub fn warnings(blob: &[u8]) -> Result<BTreeSet<String>> {
    let failed = |error: std::io::Error| format!("dtc: {error}");
    let mut dtc = Command::new("dtc")
        .args(["-I", "dtb", "-O", "dtb", "-o", "/dev/null", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut input = dtc.stdin.take().ok_or("dtc has no input")?;
    input.write_all(blob).map_err(failed)?;
    drop(input);
    let output = dtc.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("dtc refuses the tree: {text}"));
    }
    Ok(text.lines().map(str::to_owned).collect())
}
