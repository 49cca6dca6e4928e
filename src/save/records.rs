//! The records: their types, and the fields of those that are not lists of somebody else's registers.
//!
//! A list of fields is written once, as [`Fields::each`], and is both how they become words and how they come back.

use armv7::features::IDENTITY_WORDS;
use armv7::guest::{GuestContext, VcpuRegs};

use crate::id::MAX_VCPUS;
use crate::vgic::{PrivateWords, SharedWords};

/// First word of an image: "KSAV".
const MAGIC: u32 = 0x5641_534B;
/// The version of the records' meaning.
const VERSION: u32 = 2;

/// No frame.
pub const NOWHERE: u32 = u32::MAX;

/// The type of a record. 0 ends an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Type {
    /// [`Header`].
    Header = 1,
    /// General registers, cp15, other modes' registers; one for each vCPU, as all up to [`Type::Interrupts`].
    Cpu = 2,
    /// VFP and Advanced SIMD.
    Vfp = 3,
    /// [`VcpuState`].
    Vcpu = 4,
    /// Private interrupts.
    Interrupts = 5,
    /// Shared interrupts, one for each 32.
    Shared = 6,
    /// [`DomainState`].
    Domain = 7,
    /// Performance monitors, of domains that have them.
    Monitors = 8,
    /// Ports of event channels, two words each: only in images of domains that know nothing of being saved. The toolstack
    /// makes it.
    Ports = 9,
}

impl Type {
    /// Returns the type numbered `number`.
    pub const fn new(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Header,
            2 => Self::Cpu,
            3 => Self::Vfp,
            4 => Self::Vcpu,
            5 => Self::Interrupts,
            6 => Self::Shared,
            7 => Self::Domain,
            8 => Self::Monitors,
            9 => Self::Ports,
            _ => return None,
        })
    }

    /// Returns the words of its body; 0 for those that may have any number.
    pub const fn words(self) -> usize {
        match self {
            Self::Header => Header::WORDS,
            Self::Cpu => GuestContext::WORDS + VcpuRegs::CPU_WORDS,
            Self::Vfp => VcpuRegs::VFP_WORDS,
            Self::Vcpu => VcpuState::WORDS,
            Self::Interrupts => size_of::<PrivateWords>() / 4,
            Self::Shared => size_of::<SharedWords>() / 4,
            Self::Domain => DomainState::WORDS,
            Self::Monitors => VcpuRegs::MONITOR_WORDS,
            Self::Ports => 0,
        }
    }

    /// Returns how many records of it an image has at most.
    pub const fn instances(self, shape: &Shape) -> u32 {
        match self {
            Self::Header | Self::Domain | Self::Ports => 1,
            Self::Shared => shape.shared_banks,
            Self::Monitors if !shape.monitors => 0,
            _ => shape.vcpus,
        }
    }

    /// Those that every image has, in their order.
    pub const ALL: [Self; 8] = [
        Self::Header,
        Self::Domain,
        Self::Shared,
        Self::Cpu,
        Self::Vfp,
        Self::Vcpu,
        Self::Interrupts,
        Self::Monitors,
    ];
}

/// How many of what a domain has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// vCPUs, at most [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Banks of 32 shared interrupts.
    pub shared_banks: u32,
    /// It has performance monitors.
    pub monitors: bool,
}

/// Something that is a list of words.
pub trait Fields: Default {
    /// Words of it.
    const WORDS: usize;

    /// Shows each word, and takes what it is changed to.
    fn each(&mut self, show: &mut dyn FnMut(&mut u32));

    /// Returns the value that has these words.
    fn from_words(words: &[u32]) -> Self {
        let mut value = Self::default();
        let mut left = words.iter();
        value.each(&mut |word| *word = left.next().copied().unwrap_or(0));
        value
    }
}

fn each_half(value: &mut u64, show: &mut dyn FnMut(&mut u32)) {
    let (mut low, mut high) = (*value as u32, (*value >> 32) as u32);
    show(&mut low);
    show(&mut high);
    *value = u64::from(high) << 32 | u64::from(low);
}

fn each_flag(value: &mut bool, show: &mut dyn FnMut(&mut u32)) {
    let mut word = u32::from(*value);
    show(&mut word);
    *value = word != 0;
}

/// Faults of an image of another processor, by the words of `armv7::features::identity`.
const ANOTHER_PROCESSOR: [&str; IDENTITY_WORDS] = [
    "another processor by MIDR",
    "another processor by CTR",
    "another processor by CLIDR",
    "another processor by ID_PFR0",
    "another processor by ID_PFR1",
    "another processor by ID_MMFR0",
    "another processor by ID_MMFR1",
    "another processor by ID_MMFR2",
    "another processor by ID_MMFR3",
    "another processor by ID_ISAR0",
    "another processor by ID_ISAR1",
    "another processor by ID_ISAR2",
    "another processor by ID_ISAR3",
    "another processor by ID_ISAR4",
    "another processor by MVFR0",
];

/// The machine and the domain that an image is of. An image goes only where all of it is equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    magic: u32,
    version: u32,
    /// Ticks per second of the counters.
    pub frequency: u32,
    /// vCPUs.
    pub vcpus: u32,
    /// Banks of 32 shared interrupts.
    pub shared_banks: u32,
    /// It has performance monitors.
    pub monitors: bool,
    /// The processor (`armv7::features::identity`).
    pub identity: [u32; IDENTITY_WORDS],
}

impl Header {
    /// Returns the header of a domain of this shape, on a machine with this counter and processor.
    pub const fn new(shape: Shape, frequency: u32, identity: [u32; IDENTITY_WORDS]) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            frequency,
            vcpus: shape.vcpus,
            shared_banks: shape.shared_banks,
            monitors: shape.monitors,
            identity,
        }
    }

    /// Returns in which respect `self`, which came from elsewhere, is not for here.
    pub fn difference(&self, here: &Self) -> Option<&'static str> {
        let of_processor = (self.identity.iter().zip(&here.identity))
            .zip(ANOTHER_PROCESSOR)
            .map(|((theirs, ours), what)| (theirs != ours, what));
        [
            (self.magic != here.magic, "no image of a domain"),
            (self.version != here.version, "another version of images"),
        ]
        .into_iter()
        .chain(of_processor)
        .chain([
            (
                self.frequency != here.frequency,
                "another frequency of the counter",
            ),
            (self.vcpus != here.vcpus, "another number of vCPUs"),
            (
                self.shared_banks != here.shared_banks,
                "another number of shared interrupts",
            ),
            (
                self.monitors != here.monitors,
                "performance monitors on one side only",
            ),
        ])
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

impl Fields for Header {
    const WORDS: usize = 6 + IDENTITY_WORDS;

    fn each(&mut self, show: &mut dyn FnMut(&mut u32)) {
        show(&mut self.magic);
        show(&mut self.version);
        show(&mut self.frequency);
        show(&mut self.vcpus);
        show(&mut self.shared_banks);
        each_flag(&mut self.monitors, show);
        self.identity.iter_mut().for_each(show);
    }
}

/// The state that a domain has once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DomainState {
    /// Its virtual counter.
    pub counter: u64,
    /// The time of day then, in nanoseconds since 1970.
    pub time: u64,
    /// Frame of its shared_info, or [`NOWHERE`].
    pub shared_info: u32,
    /// The distributor is on.
    pub forwarding: bool,
    /// Runstate copies carry an update flag (vm_assist).
    pub runstate_flag: bool,
    /// It uses the FIFO ABI of event channels, which no record holds, as the two below.
    pub fifo: bool,
    /// It has set a watchdog.
    pub watchdog: bool,
    /// It has mapped grants of others.
    pub maps_grants: bool,
}

impl Fields for DomainState {
    const WORDS: usize = 10;

    fn each(&mut self, show: &mut dyn FnMut(&mut u32)) {
        each_half(&mut self.counter, show);
        each_half(&mut self.time, show);
        show(&mut self.shared_info);
        each_flag(&mut self.forwarding, show);
        each_flag(&mut self.runstate_flag, show);
        each_flag(&mut self.fifo, show);
        each_flag(&mut self.watchdog, show);
        each_flag(&mut self.maps_grants, show);
    }
}

/// A place in a guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its frame, or [`NOWHERE`].
    pub gfn: u32,
    /// Offset in it.
    pub offset: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            gfn: NOWHERE,
            offset: 0,
        }
    }
}

/// Where a vCPU's run-state times are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunStatePlace {
    /// Their beginning.
    pub first: Place,
    /// The frame that they reach into, or [`NOWHERE`].
    pub second: u32,
}

/// The state of a vCPU that is in no register of its guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VcpuState {
    /// It is up.
    pub online: bool,
    /// It has an asynchronous abort to take.
    pub async_abort: bool,
    /// CNTV_CTL.
    pub virtual_control: u32,
    /// CNTV_CVAL.
    pub virtual_compare: u64,
    /// CNTP_CTL.
    pub physical_control: u32,
    /// CNTP_CVAL less the physical counter.
    pub physical_distance: u64,
    /// GICH_VMCR.
    pub vmcr: u32,
    /// GICH_APR.
    pub apr: u32,
    /// Its `vcpu_info`.
    pub info: Place,
    /// Its run-state times.
    pub runstate: RunStatePlace,
}

impl Fields for VcpuState {
    const WORDS: usize = 15;

    fn each(&mut self, show: &mut dyn FnMut(&mut u32)) {
        each_flag(&mut self.online, show);
        each_flag(&mut self.async_abort, show);
        show(&mut self.virtual_control);
        each_half(&mut self.virtual_compare, show);
        show(&mut self.physical_control);
        each_half(&mut self.physical_distance, show);
        show(&mut self.vmcr);
        show(&mut self.apr);
        show(&mut self.info.gfn);
        show(&mut self.info.offset);
        show(&mut self.runstate.first.gfn);
        show(&mut self.runstate.first.offset);
        show(&mut self.runstate.second);
    }
}

/// A kind of records has at most so many instances.
const _: () = assert!(MAX_VCPUS as u32 <= 8);
