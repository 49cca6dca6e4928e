//! The hypervisor's command line, with Xen 4.17's option names.
//!
//! [`Options::parse`] never fails. An option that is unknown, without effect or unreadable becomes a [`Note`], which
//! boot prints as one line (`CMDLINE: ...`); the option then keeps its default. Of a value whose end is unreadable
//! (`dom0_mem=768M,max=768M`) the beginning is used. Tutorials put x86 options on Arm command lines, and a typing
//! mistake must not prevent a boot.
//!
//! Syntax: options are separated by blanks; a value may contain blanks in double quotes; a later option overrides an
//! earlier one. A size without unit is in KiB, as in Xen.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

mod value;

#[cfg(test)]
mod tests;

use value::{boolean, bootscrub, console, number, orders, size, threshold, timestamps, vcpu_range};

/// Maximum number of vCPUs of a GICv2 domain (IHI 0048B 3.2: 8 CPU interfaces).
pub const MAX_VCPUS: u32 = armv7::gic::MAX_CPU_INTERFACES as u32;
/// Default of `dom0_mem` in bytes, as in Xen 4.17.
pub const DEFAULT_DOM0_MEM: u64 = 512 << 20;

/// Level of one of the two logs, in ascending order.
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

/// Log thresholds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    /// Printed without limit up to this level.
    pub always: Level,
    /// Printed with a rate limit up to this level.
    pub limited: Level,
}

/// Time stamp of a console line.
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

/// Effect of a guest's WFI and WFE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vwfi {
    /// They trap, and the vCPU blocks.
    Trap,
    /// The processor executes them.
    Native,
}

/// The scheduler of the first pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheduler {
    /// By weights.
    Credit2,
    /// A CPU for each vCPU.
    Null,
}

/// Effect of an asynchronous abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serrors {
    /// Forwarded to the guest whose vCPU was loaded when it arose; without a loaded vCPU the machine stops.
    Diverse,
    /// Forwarded to the guest that runs when it is taken. Unloading a vCPU does not wait for late ones.
    Forward,
    /// The machine stops.
    Panic,
}

/// Access-control module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Xsm {
    /// The built-in rights only.
    Dummy,
    /// Guests may not communicate with each other (Debian's default).
    Silo,
}

/// Time at which free memory is scrubbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bootscrub {
    /// By idle CPUs, and the rest on allocation (the default).
    Idle,
    /// Before the first domain is created.
    Boot,
}

/// Place of the console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Console {
    /// The UART of the device tree.
    Dtuart,
    /// No UART; only the ring is kept.
    None,
}

/// Largest allocation order by type of caller.
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

/// Krypton's options, with Xen's defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each field is named after its option
pub struct Options {
    /// RAM of dom0 in bytes; `None` if not given (use [`DEFAULT_DOM0_MEM`] and warn).
    pub dom0_mem: Option<u64>,
    /// Minimum and maximum number of dom0's vCPUs; boot clamps the number of CPUs to it.
    pub dom0_max_vcpus: Option<(u32, u32)>,
    pub dom0_vcpus_pin: bool,
    pub console: Console,
    /// Path or alias with optional `:options`; without it `/chosen/stdout-path` decides.
    pub dtuart: Option<String>,
    /// The letter that, with Ctrl, switches the console's input; 0 disables that.
    pub conswitch: u8,
    /// Input stays with the hypervisor after boot (`conswitch=ax`).
    pub conswitch_stay: bool,
    pub console_timestamps: Timestamps,
    pub console_to_ring: bool,
    pub conring_size: u32,
    pub loglvl: Threshold,
    pub guest_loglvl: Threshold,
    pub noreboot: bool,
    pub sync_console: bool,
    pub maxcpus: Option<u32>,
    /// CPUs of all kinds are used, as if they were of one.
    pub hmp_unsafe: bool,
    pub sched: Scheduler,
    pub sched_ratelimit_us: u32,
    pub gnttab_max_frames: u32,
    pub gnttab_max_maptrack_frames: u32,
    pub memop_max_order: MemopMaxOrder,
    pub bootscrub: Bootscrub,
    pub vwfi: Vwfi,
    pub serrors: Serrors,
    pub xsm: Xsm,
    pub ext_regions: bool,
    /// Number of stack lines, of eight words each, that a panic shows.
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
            hmp_unsafe: false,
            sched: Scheduler::Credit2,
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

/// A message about one option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// The option does not exist.
    Unknown(String),
    /// The option exists in Xen and has no effect here.
    NoEffect(String),
    /// The value is unusable; the option keeps its previous one.
    BadValue(String),
    /// The value is used up to an unreadable tail.
    Tail {
        /// The option as given.
        option: String,
        /// The unreadable tail.
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

/// Result of reading one option.
enum Verdict {
    Taken,
    Bad,
    NoEffect,
    Unknown,
}

impl Options {
    /// Returns the options in `line`, and notes about those that were not used.
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

    /// Uses the longest readable beginning of a value, as Xen does. Returns the tail.
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
                "credit2" => put(&mut self.sched, Some(Scheduler::Credit2)),
                "null" => put(&mut self.sched, Some(Scheduler::Null)),
                "credit" | "rtds" | "arinc653" => return Verdict::NoEffect,
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
                // Memory is always scrubbed before it is given to a domain.
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

    /// Reads options that are on or off: `name`, `name=yes`, `no-name`.
    fn take_flag(&mut self, name: &str, value: Option<&str>) -> Verdict {
        let (plain, negated) = match name.strip_prefix("no-") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let flag = match plain {
            "dom0_vcpus_pin" => &mut self.dom0_vcpus_pin,
            "console_to_ring" => &mut self.console_to_ring,
            "hmp-unsafe" => &mut self.hmp_unsafe,
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

    /// Reads `dom0_mem=512M`. Also accepts `min:` and `max:` parts, over which a plain size prevails.
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

    /// Reads `conswitch=b` or `conswitch=bx`; an empty value disables it.
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

/// Sets a field to a value. Returns false if there is none.
fn put<T>(field: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *field = value;
            true
        }
        None => false,
    }
}

/// Reads `gnttab=`: only version 1 without transfer exists, so a list that requests it changes nothing.
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
