//! The hypervisor's command line: Xen 4.17's option names, typed.
//!
//! [`Options::parse`] never fails. What it does not know, does not honour or cannot read it reports as a [`Note`], which
//! the boot code prints as one line each (`CMDLINE: ...`); the option then keeps its default. Of a value whose end cannot be
//! read (`dom0_mem=768M,max=768M`) the beginning counts. Tutorials put x86 options on ARM command lines, and a typing
//! mistake must not cost a boot.
//!
//! Syntax: options are separated by blanks; a value may hold blanks when it stands in double quotes; a later option
//! overrides an earlier one. A size without unit counts KiB, as in Xen.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

mod value;

#[cfg(test)]
mod tests;

use value::{boolean, bootscrub, console, number, orders, size, threshold, timestamps, vcpu_range};

/// Most vCPUs that a GICv2 domain can have (IHI 0048B 3.2: 8 CPU interfaces).
pub const MAX_VCPUS: u32 = 8;
/// The memory of dom0 without `dom0_mem`, as in Xen 4.17.
pub const DEFAULT_DOM0_MEM: u64 = 512 << 20;

/// How chatty one of the two logs is; the order is from silent to chatty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Nothing.
    None,
    /// Errors only.
    Error,
    /// Also warnings.
    Warning,
    /// Also information.
    Info,
    /// Everything.
    Debug,
}

/// A log threshold: always printed up to `always`, printed with a rate limit up to `limited`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// Printed without limit up to here.
    pub always: Level,
    /// Printed, but rate-limited, up to here.
    pub limited: Level,
}

/// The stamp before a line on the console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timestamps {
    /// Nothing.
    None,
    /// Seconds.microseconds since boot.
    Boot,
    /// The raw counter.
    Raw,
    /// Date and time.
    Date,
    /// Date and time with milliseconds.
    DateMs,
}

/// The effect of a guest's WFI and WFE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vwfi {
    /// They trap, and the vCPU blocks.
    Trap,
    /// They run on the processor.
    Native,
}

/// The effect of an asynchronous abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serrors {
    /// Each goes to the guest whose vCPU was loaded when it arose; one that no guest can have caused stops the machine.
    Diverse,
    /// Each goes to the guest that runs when it is taken: without waiting for late ones when a vCPU is taken off.
    Forward,
    /// Each stops the machine.
    Panic,
}

/// The access-control module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Xsm {
    /// Only the built-in rights.
    Dummy,
    /// Guests may not talk to one another (Debian's default).
    Silo,
}

/// When the memory that is free at boot is scrubbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bootscrub {
    /// By idle CPUs, and whatever is left when a domain gets it (the default).
    Idle,
    /// Before the first domain is made.
    Boot,
}

/// Where the console is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Console {
    /// On the UART of the device tree.
    Dtuart,
    /// Nowhere; only the ring is kept.
    None,
}

/// Largest allocation order by caller: guest, direct-mapped dom0 with devices, control, hardware domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemopMaxOrder {
    /// An ordinary guest.
    pub guest: u8,
    /// The control domain.
    pub control: u8,
    /// The hardware domain.
    pub hardware: u8,
    /// A guest with a passed-through device.
    pub device: u8,
}

/// The options that Krypton honours, with Xen's defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each field is named after its option
pub struct Options {
    /// Bytes of RAM for dom0; `None` when not given (use [`DEFAULT_DOM0_MEM`] and warn).
    pub dom0_mem: Option<u64>,
    /// Lower and upper bound of dom0's vCPUs; the boot code clamps the number of CPUs to it.
    pub dom0_max_vcpus: Option<(u32, u32)>,
    pub dom0_vcpus_pin: bool,
    pub console: Console,
    /// Path or alias with optional `:options`; without it `/chosen/stdout-path` decides.
    pub dtuart: Option<String>,
    /// The letter that, with Ctrl, switches the console's input; 0 switches the feature off.
    pub conswitch: u8,
    /// True if input stays with the hypervisor after boot (`conswitch=ax`).
    pub conswitch_stay: bool,
    pub console_timestamps: Timestamps,
    pub console_to_ring: bool,
    pub conring_size: u32,
    pub loglvl: Threshold,
    pub guest_loglvl: Threshold,
    pub noreboot: bool,
    pub sync_console: bool,
    pub maxcpus: Option<u32>,
    pub sched_ratelimit_us: u32,
    pub gnttab_max_frames: u32,
    pub gnttab_max_maptrack_frames: u32,
    pub memop_max_order: MemopMaxOrder,
    pub bootscrub: Bootscrub,
    pub vwfi: Vwfi,
    pub serrors: Serrors,
    pub xsm: Xsm,
    pub ext_regions: bool,
    /// Lines of the stack, eight words each, that a panic shows.
    pub debug_stack_lines: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dom0_mem: None,
            dom0_max_vcpus: None,
            dom0_vcpus_pin: false,
            console: Console::Dtuart,
            dtuart: None,
            conswitch: b'a',
            conswitch_stay: false,
            console_timestamps: Timestamps::None,
            console_to_ring: false,
            conring_size: 16 << 10,
            loglvl: Threshold {
                always: Level::Warning,
                limited: Level::Warning,
            },
            guest_loglvl: Threshold {
                always: Level::None,
                limited: Level::Warning,
            },
            noreboot: false,
            sync_console: false,
            maxcpus: None,
            sched_ratelimit_us: 1000,
            gnttab_max_frames: 64,
            gnttab_max_maptrack_frames: 1024,
            memop_max_order: MemopMaxOrder {
                guest: 9,
                control: 18,
                hardware: 10,
                device: 10,
            },
            bootscrub: Bootscrub::Idle,
            vwfi: Vwfi::Trap,
            serrors: Serrors::Diverse,
            xsm: Xsm::Silo,
            ext_regions: true,
            debug_stack_lines: 20,
        }
    }
}

/// Something the boot log should say about one option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// No such option.
    Unknown(String),
    /// Xen knows the option; it changes nothing here.
    NoEffect(String),
    /// The value cannot be used; the option keeps what it had.
    BadValue(String),
    /// The value is used up to a tail that is not understood.
    Tail {
        /// The whole option.
        option: String,
        /// Its end.
        tail: String,
    },
}

impl Note {
    /// Returns whether the line is a warning rather than information.
    pub const fn is_warning(&self) -> bool {
        matches!(self, Self::BadValue(_) | Self::Tail { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "CMDLINE: ignored option \"{option}\""),
            Self::NoEffect(option) => {
                write!(f, "CMDLINE: option \"{option}\" has no effect here")
            }
            Self::BadValue(option) => {
                write!(
                    f,
                    "CMDLINE: option \"{option}\" has a value that cannot be used"
                )
            }
            Self::Tail { option, tail } => {
                write!(
                    f,
                    "CMDLINE: \"{tail}\" at the end of option \"{option}\" is not understood"
                )
            }
        }
    }
}

/// How one option was taken.
enum Verdict {
    Taken,
    Bad,
    NoEffect,
    Unknown,
}

impl Options {
    /// Returns the options in `line`, and what to say about those that were not taken.
    pub fn parse(line: &str) -> (Self, Vec<Note>) {
        let mut options = Self::default();
        let mut notes = Vec::new();
        for word in value::words(line) {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.trim_matches('"'))),
                None => (word, None),
            };
            match options.take(name, value) {
                Verdict::Taken => {}
                Verdict::Bad => {
                    let tail = value.and_then(|value| options.take_beginning(name, value));
                    let option = word.to_string();
                    notes.push(match tail {
                        Some(tail) => Note::Tail {
                            option,
                            tail: tail.to_string(),
                        },
                        None => Note::BadValue(option),
                    });
                }
                Verdict::NoEffect => notes.push(Note::NoEffect(word.to_string())),
                Verdict::Unknown => notes.push(Note::Unknown(word.to_string())),
            }
        }
        (options, notes)
    }

    /// Returns the number of vCPUs for dom0 on a machine with `cpus` CPUs.
    pub fn dom0_vcpus(&self, cpus: u32) -> u32 {
        let (low, high) = self.dom0_max_vcpus.unwrap_or((1, u32::MAX));
        let low = low.clamp(1, MAX_VCPUS);
        cpus.clamp(low, high.clamp(low, MAX_VCPUS))
    }

    /// Takes the longest beginning of a value that is understood, as Xen does, and returns the tail.
    fn take_beginning<'a>(&mut self, name: &str, value: &'a str) -> Option<&'a str> {
        value::beginnings(value).find_map(|(beginning, tail)| {
            matches!(self.take(name, Some(beginning)), Verdict::Taken).then_some(tail)
        })
    }

    fn take(&mut self, name: &str, value: Option<&str>) -> Verdict {
        let text = value.unwrap_or("");
        let taken = match name {
            "dom0_mem" => self.take_dom0_mem(text),
            "dom0_max_vcpus" => put(&mut self.dom0_max_vcpus, vcpu_range(text).map(Some)),
            "console" => put(&mut self.console, console(text)),
            "dtuart" if !text.is_empty() => put(&mut self.dtuart, Some(Some(text.to_string()))),
            "dtuart" => false,
            "conswitch" => self.take_conswitch(text),
            "console_timestamps" => put(&mut self.console_timestamps, timestamps(value)),
            "conring_size" => put(
                &mut self.conring_size,
                size(text)
                    .and_then(|s| u32::try_from(s).ok())
                    .filter(|s| (4 << 10..=16 << 20).contains(s)),
            ),
            "loglvl" => put(&mut self.loglvl, threshold(text)),
            "guest_loglvl" => put(&mut self.guest_loglvl, threshold(text)),
            "maxcpus" => put(
                &mut self.maxcpus,
                number(text)
                    .filter(|n| *n > 0)
                    .map(|n| Some(n.min(MAX_VCPUS))),
            ),
            "sched" => match text {
                // The one there is goes by this name.
                "credit2" => true,
                "credit" | "null" | "rtds" | "arinc653" => return Verdict::NoEffect,
                _ => false,
            },
            "sched_ratelimit_us" => put(&mut self.sched_ratelimit_us, number(text)),
            "gnttab_max_frames" => put(
                &mut self.gnttab_max_frames,
                number(text).filter(|n| (1..=1024).contains(n)),
            ),
            "gnttab_max_maptrack_frames" => put(
                &mut self.gnttab_max_maptrack_frames,
                number(text).filter(|n| (1..=1 << 16).contains(n)),
            ),
            "gnttab" => return grant_versions(text),
            "memop-max-order" => {
                let orders = orders(text, self.memop_max_order);
                put(&mut self.memop_max_order, orders)
            }
            "bootscrub" => match bootscrub(value) {
                Some(Some(when)) => put(&mut self.bootscrub, Some(when)),
                // Memory is never handed out as it was left: there is nothing to leave out.
                Some(None) => return Verdict::NoEffect,
                None => false,
            },
            "vwfi" => match text {
                "trap" => put(&mut self.vwfi, Some(Vwfi::Trap)),
                "native" => put(&mut self.vwfi, Some(Vwfi::Native)),
                _ => false,
            },
            "serrors" => match text {
                "diverse" => put(&mut self.serrors, Some(Serrors::Diverse)),
                "forward" => put(&mut self.serrors, Some(Serrors::Forward)),
                "panic" => put(&mut self.serrors, Some(Serrors::Panic)),
                _ => false,
            },
            "xsm" => match text {
                "dummy" => put(&mut self.xsm, Some(Xsm::Dummy)),
                "silo" => put(&mut self.xsm, Some(Xsm::Silo)),
                "flask" => return Verdict::NoEffect,
                _ => false,
            },
            "debug_stack_lines" => put(&mut self.debug_stack_lines, number(text)),
            _ => return self.take_flag(name, value),
        };
        if taken { Verdict::Taken } else { Verdict::Bad }
    }

    /// Options that are on or off: `name`, `name=yes`, `no-name`.
    fn take_flag(&mut self, name: &str, value: Option<&str>) -> Verdict {
        let (plain, negated) = match name.strip_prefix("no-") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let flag = match plain {
            "dom0_vcpus_pin" => &mut self.dom0_vcpus_pin,
            "console_to_ring" => &mut self.console_to_ring,
            "noreboot" => &mut self.noreboot,
            "sync_console" => &mut self.sync_console,
            "ext_regions" => &mut self.ext_regions,
            _ => {
                return match value::is_without_effect(plain) {
                    true => Verdict::NoEffect,
                    false => Verdict::Unknown,
                };
            }
        };
        match (negated, value) {
            (true, None) => *flag = false,
            (false, value) => match boolean(value) {
                Some(on) => *flag = on,
                None => return Verdict::Bad,
            },
            (true, Some(_)) => return Verdict::Bad,
        }
        Verdict::Taken
    }

    /// `dom0_mem=512M`; `min:` and `max:` parts are understood, and a plain size wins over them.
    fn take_dom0_mem(&mut self, text: &str) -> bool {
        let mut plain = None;
        let mut bound = None;
        for part in text.split(',') {
            let (slot, text) = match part.split_once(':') {
                Some(("min", text)) => (&mut bound, text),
                Some(("max", text)) => (&mut bound, text),
                Some(_) => return false,
                None => (&mut plain, part),
            };
            match size(text).filter(|bytes| *bytes > 0) {
                Some(bytes) => *slot = Some(bytes),
                None => return false,
            }
        }
        self.dom0_mem = plain.or(bound);
        true
    }

    /// `conswitch=b`, `conswitch=bx`; an empty value switches it off.
    fn take_conswitch(&mut self, text: &str) -> bool {
        let (letter, stay) = match text.as_bytes() {
            [] => (0, false),
            [letter] => (*letter, false),
            [letter, b'x'] => (*letter, true),
            _ => return false,
        };
        if letter != 0 && !letter.is_ascii_alphabetic() {
            return false;
        }
        self.conswitch = letter.to_ascii_lowercase();
        self.conswitch_stay = stay;
        true
    }
}

/// Puts a value into its field; `false` when there is none.
fn put<T>(field: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *field = value;
            true
        }
        None => false,
    }
}

/// `gnttab=`: version 1 without transfer is all there is, so a list asking for that changes nothing.
fn grant_versions(text: &str) -> Verdict {
    let known = |part: &str| {
        let name = part.strip_prefix("no-").unwrap_or(part);
        let name = name.split_once('=').map_or(name, |(name, _)| name);
        matches!(name, "max-ver:1" | "max-ver:2" | "transitive" | "transfer")
    };
    if text == "max-ver:1" {
        Verdict::Taken
    } else if text.split(',').all(known) {
        Verdict::NoEffect
    } else {
        Verdict::Bad
    }
}
