//! The rule of what may be passed: narrower than Xen's, which leaves the safety of it to whoever writes the configuration.
//!
//! A device may be passed when the machine's tree marks it (`xen,passthrough`, which keeps it from dom0), and
//! * its pages hold nothing else: no RAM, nothing of the hypervisor's, no register of a device that is not marked;
//! * its interrupts are shared ones of the GIC, which no device uses that is not marked;
//! * it does no DMA, or `xen,force-assign-without-iommu` says that this is meant: addresses of a domain are not the machine's,
//!   so whatever it tells the device reads and writes somebody else's memory.
//!
//! A marked device for which that does not hold is not passed at all.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dt::Node;

use super::Refusal;
use crate::dom0::selection::{Fate, HostView, Selection, lines, regions};
use crate::error::Errno;
use crate::id::DomId;
use crate::platform::BootError;
use crate::platform::interrupt::Interrupt;
use crate::platform::partitions::{MARK, WORD};
use crate::platform::ranges::{self, PhysRange};
use crate::platform::tree::check_budget;

/// Properties of devices that do DMA, or have it done.
const OF_DMA: [&str; 4] = ["dmas", "iommus", "dma-coherent", "memory-region"];
/// Devices that move no data by themselves. All others may.
const WITHOUT_DMA: &[&str] = &[
    "arm,pl010",
    "arm,pl011",
    "arm,pl022",
    "arm,pl031",
    "arm,pl050",
    "arm,pl061",
    "arm,pl180",
    "arm,pl181",
    "arm,sbsa-uart",
    "arm,sp804",
    "arm,sp805",
    "arm,versatile-i2c",
    "ns16550",
    "ns16550a",
    "samsung,exynos4210-uart",
    "smsc,lan9115",
    "smsc,lan9118",
    "snps,dw-apb-gpio",
    "snps,dw-apb-timer",
    "snps,dw-apb-uart",
    "snps,dw-wdt",
    "snps,designware-i2c",
];

/// The verdict of the rule on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may be passed.
    Free,
    /// The machine's tree does not mark it.
    Unmarked,
    /// It is marked and may not be passed, for this reason.
    Withheld(String),
}

/// A device of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its node.
    pub path: String,
    /// The pages that its registers are in: whole pages.
    pub pages: Vec<PhysRange>,
    /// Its interrupts.
    pub lines: Vec<Interrupt>,
    /// The verdict of the rule.
    pub standing: Standing,
    /// It may do DMA.
    pub does_dma: bool,
    /// The machine's tree has the word for that.
    pub has_word: bool,
    /// The domain that has it.
    pub owner: Option<DomId>,
}

/// Something that a domain is to get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want<'a> {
    /// Whole pages.
    Pages(PhysRange),
    /// An interrupt, by INTID.
    Line(u32),
    /// The device of a node, by its path.
    Node(&'a str),
}

/// The outcome of a claim.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Claimed {
    /// Paths of devices that may do DMA and that the domain did not have before.
    pub with_dma: Vec<String>,
}

impl Want<'_> {
    fn is_of(&self, device: &Device) -> bool {
        match self {
            Self::Pages(range) => device.pages.iter().any(|pages| pages.overlaps(range)),
            Self::Line(intid) => device.lines.iter().any(|line| line.intid == *intid),
            Self::Node(path) => device.path == *path,
        }
    }
}

impl core::fmt::Display for Want<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Pages(range) => write!(f, "{range}"),
            Self::Line(intid) => write!(f, "interrupt {intid}"),
            Self::Node(path) => f.write_str(path),
        }
    }
}

/// All devices of a machine that marks some of them.
#[derive(Debug, Default)]
pub struct Catalogue {
    devices: Vec<Device>,
}

impl Catalogue {
    /// Returns that of a machine that marks none.
    pub const fn new() -> Self {
        Self {
            devices: Vec::new(),
        }
    }

    /// Applies the rule to all devices of a machine's tree. It is empty when none is marked.
    pub fn of(machine: &HostView<'_>) -> Result<Self, BootError> {
        let tree = machine.tree;
        if !tree.all().any(|node| node.has(MARK)) {
            return Ok(Self::new());
        }
        let selection = Selection::of(machine);
        let gic = tree.find(&machine.host.gic.path);
        let mut devices = Vec::new();
        for node in tree.all() {
            let mut pages: Vec<PhysRange> = regions(&node)
                .into_iter()
                .flatten()
                .map(|region| region.pages_outward())
                .collect();
            pages = ranges::merge(pages);
            let lines = gic.map(|gic| lines(&node, &gic)).unwrap_or_default();
            if pages.is_empty() && lines.is_empty() {
                continue;
            }
            let is_marked = node.ancestors().any(|node| node.has(MARK));
            devices.push(Device {
                path: node.path().to_string(),
                pages,
                lines,
                standing: match (is_marked, selection.fate(&node)) {
                    (false, _) => Standing::Unmarked,
                    (true, Fate::Disable) => Standing::Free,
                    (true, _) => Standing::Withheld("it is the hypervisor's".into()),
                },
                does_dma: does_dma(&node),
                has_word: node.ancestors().any(|node| node.has(WORD)),
                owner: None,
            });
        }
        let judge = Judge {
            kept: kept(machine),
            machine,
        };
        let reasons: Vec<Option<String>> = devices
            .iter()
            .map(|device| {
                let is_free = device.standing == Standing::Free;
                (is_free && tree.root().spend(devices.len()))
                    .then(|| judge.reason(device, &devices))
                    .flatten()
            })
            .collect();
        for (device, reason) in devices.iter_mut().zip(reasons) {
            if let Some(reason) = reason {
                device.standing = Standing::Withheld(reason);
            }
        }
        check_budget(tree)?;
        Ok(Self { devices })
    }

    /// Returns a line for each marked device that may not be passed.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.devices.iter().filter_map(|device| {
            let Standing::Withheld(why) = &device.standing else {
                return None;
            };
            Some(format!(
                "{MARK}: {} is passed to nobody: {why}",
                device.path
            ))
        })
    }

    /// Gives the domain the devices that `want` is of. `word` is true if the domain's description has [`WORD`].
    pub fn claim(
        &mut self,
        domain: DomId,
        want: &Want<'_>,
        word: bool,
    ) -> Result<Claimed, Refusal> {
        self.check(domain, want, word)?;
        let mut claimed = Claimed::default();
        for device in &mut self.devices {
            if !want.is_of(device) || device.owner.is_some() {
                continue;
            }
            device.owner = Some(domain);
            if device.does_dma {
                claimed.with_dma.push(device.path.clone());
            }
        }
        Ok(claimed)
    }

    fn check(&self, domain: DomId, want: &Want<'_>, word: bool) -> Result<(), Refusal> {
        let no = |error, why: String| Err(Refusal::new(error, format!("{want}: {why}")));
        if self.devices.is_empty() {
            let why = format!("no node of the machine's tree is marked {MARK}");
            return no(Errno::Perm, why);
        }
        let (mut is_known, mut covered) = (false, Vec::new());
        let devices = || self.devices.iter().filter(|device| want.is_of(device));
        for device in devices() {
            if let Standing::Withheld(why) = &device.standing {
                return no(Errno::Perm, format!("{}: {why}", device.path));
            }
        }
        for device in devices() {
            let path = &device.path;
            match (&device.standing, device.owner) {
                (Standing::Unmarked | Standing::Withheld(_), _) => {
                    return no(Errno::Perm, format!("{path} is not marked {MARK}"));
                }
                (Standing::Free, _) if device.does_dma && !device.has_word && !word => {
                    let why = format!("{path} may do DMA, and nothing says {WORD}");
                    return no(Errno::Perm, why);
                }
                (Standing::Free, Some(owner)) if owner != domain => {
                    return no(Errno::Busy, format!("{path} is {owner}'s"));
                }
                (Standing::Free, _) => {
                    is_known = true;
                    covered.extend(&device.pages);
                }
            }
        }
        let is_whole = match want {
            Want::Line(_) | Want::Node(_) => is_known,
            Want::Pages(range) => ranges::subtract(&[*range], &covered).is_empty(),
        };
        match is_whole {
            true => Ok(()),
            false => no(Errno::Perm, "no device has it, or not all of it".into()),
        }
    }

    /// Returns whether all pages of `range` are of devices that the domain has.
    pub fn has(&self, domain: DomId, range: &PhysRange) -> bool {
        let own = self.of_domain(domain).flat_map(|device| &device.pages);
        let own: Vec<PhysRange> = own.copied().collect();
        ranges::subtract(&[*range], &own).is_empty()
    }

    /// Returns an interrupt of a device that the domain has.
    pub fn line_of(&self, domain: DomId, intid: u32) -> Option<Interrupt> {
        let mut lines = self.of_domain(domain).flat_map(|device| &device.lines);
        lines.find(|line| line.intid == intid).copied()
    }

    /// Returns whether an interrupt is of a device that is marked for other domains than dom0.
    pub fn is_marked(&self, intid: u32) -> bool {
        let marked = |device: &&Device| device.standing != Standing::Unmarked;
        let mut lines = self
            .devices
            .iter()
            .filter(marked)
            .flat_map(|device| &device.lines);
        lines.any(|line| line.intid == intid)
    }

    /// Returns the devices that a domain has.
    pub fn of_domain(&self, domain: DomId) -> impl Iterator<Item = &Device> {
        let devices = self.devices.iter();
        devices.filter(move |device| device.owner == Some(domain))
    }

    /// Returns the device at a path.
    pub fn find(&self, path: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.path == path)
    }

    /// Takes all devices from a domain.
    pub fn forget(&mut self, domain: DomId) {
        for device in &mut self.devices {
            if device.owner == Some(domain) {
                device.owner = None;
            }
        }
    }
}

/// Returns whether a device may read or write memory by itself: unless it is known that it does not.
fn does_dma(node: &Node<'_>) -> bool {
    !node.is_compatible(WITHOUT_DMA) || OF_DMA.iter().any(|name| node.has(name))
}

/// Returns the machine addresses that are passed to nobody whatever a node says, and whose they are.
fn kept(machine: &HostView<'_>) -> Vec<(PhysRange, &'static str)> {
    let host = machine.host;
    let ram = host.ram.iter().map(|range| (*range, "RAM"));
    let reserved = host.firmware_reserved.iter();
    let reserved = reserved.map(|range| (*range, "reserved memory"));
    let gic = host.gic.regions().map(|range| (range, "the GIC's"));
    let frames = host.gic.frames.iter();
    let frames = frames.map(|frame| (frame.reg, "the GIC's"));
    let console = machine.console.map(|uart| (uart.reg, "the console's"));
    let unnamed = host.board.unnamed.iter();
    let unnamed = unnamed
        .filter_map(|(base, size)| PhysRange::new(*base, *size))
        .map(|range| (range, "dom0's"));
    let all = ram.chain(reserved).chain(gic).chain(frames);
    let all = all.chain(console).chain(unnamed);
    all.map(|(range, owner)| (range.pages_outward(), owner))
        .collect()
}

struct Judge<'a> {
    machine: &'a HostView<'a>,
    kept: Vec<(PhysRange, &'static str)>,
}

impl Judge<'_> {
    /// Returns why a marked device may not be passed, if it may not.
    fn reason(&self, device: &Device, all: &[Device]) -> Option<String> {
        let others = || all.iter().filter(|d| d.standing == Standing::Unmarked);
        for pages in &device.pages {
            let mut kept = self.kept.iter();
            if let Some((range, owner)) = kept.find(|(range, _)| range.overlaps(pages)) {
                return Some(format!("its registers are in {range}, which is {owner}"));
            }
            let shares = |other: &&Device| other.pages.iter().any(|range| range.overlaps(pages));
            if let Some(other) = others().find(shares) {
                let path = &other.path;
                return Some(format!("{pages} is {path}'s too, which is not marked"));
            }
        }
        let gic_lines = self.machine.gic_lines;
        let frames = &self.machine.host.gic.frames;
        let console = self.machine.console.and_then(|uart| uart.interrupt);
        for line in &device.lines {
            let shares = |other: &&Device| other.lines.iter().any(|l| l.intid == line.intid);
            let is_message = frames.iter().any(|frame| {
                let first_and_count = frame.interrupts;
                first_and_count.is_some_and(|(first, count)| {
                    (first..first.saturating_add(count)).contains(&line.intid)
                })
            });
            if line.is_private() {
                return Some(format!("interrupt {line} is private to each CPU"));
            } else if line.intid >= gic_lines {
                return Some(format!(
                    "interrupt {line} is beyond the GIC's {gic_lines} lines"
                ));
            } else if console.is_some_and(|own| own.intid == line.intid) {
                return Some(format!("interrupt {line} is the console's"));
            } else if is_message {
                return Some(format!("interrupt {line} is a message's, which dom0 has"));
            } else if let Some(other) = others().find(shares) {
                let path = &other.path;
                return Some(format!(
                    "interrupt {line} is {path}'s too, which is not marked"
                ));
            }
        }
        None
    }
}
