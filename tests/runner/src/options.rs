//! The command line.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::boards::{self, Board};

/// Which hypervisor a command boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// This project, built first.
    Krypton,
    /// Debian's package, to compare with.
    DebianXen,
    /// This project, built so that it measures the times with interrupts masked.
    Measuring,
    /// An ELF file that cargo built.
    Elf(PathBuf),
}

/// The order that tests start in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Listed,
    Reverse,
    /// Any order, the same for the same number.
    Shuffled(u32),
}

impl Order {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "reverse" => Ok(Self::Reverse),
            _ => number(text).map(Self::Shuffled),
        }
    }

    pub fn apply<T>(self, list: &mut [T], name: impl Fn(&T) -> &str) {
        match self {
            Self::Listed => {}
            Self::Reverse => list.reverse(),
            Self::Shuffled(seed) => list.sort_by_cached_key(|item| {
                let mut hasher = DefaultHasher::new();
                (seed, name(item)).hash(&mut hasher);
                hasher.finish()
            }),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub hypervisor: Hypervisor,
    /// None is QEMU's virt.
    pub board: Option<&'static Board>,
    pub cpus: u32,
    pub memory_mib: u32,
    pub highmem: bool,
    pub test: Option<String>,
    pub seconds: Option<u32>,
    pub count: Option<u32>,
    pub timeout: Duration,
    pub append: String,
    pub dom0_append: String,
    pub load_address: u32,
    pub gdb: bool,
    /// dom0 boots, whatever is saved.
    pub fresh: bool,
    /// `fuzz` is to keep inputs.
    pub keep: bool,
    /// `flash` is to make what is in NOR flash.
    pub nor: bool,
    /// The folder with the board's own loaders, for a card that `flash` makes in a file.
    pub loaders: Option<PathBuf>,
    /// Where `tree` writes dom0's tree.
    pub out: Option<PathBuf>,
    /// Virtual time counts instructions.
    pub counted: bool,
    /// The run is watched by the checker for caches and TLBs.
    pub hazards: bool,
    /// How many cores tests keep busy at once; None is all that there are.
    pub jobs: Option<u32>,
    pub order: Order,
    /// Words that are no options: names of tests.
    pub operands: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hypervisor: Hypervisor::Krypton,
            board: None,
            cpus: 2,
            memory_mib: 1024,
            highmem: false,
            test: None,
            seconds: None,
            count: None,
            timeout: Duration::from_secs(300),
            append: String::new(),
            dom0_append: String::new(),
            load_address: 0x4100_0000,
            gdb: false,
            fresh: false,
            keep: false,
            nor: false,
            loaders: None,
            out: None,
            counted: false,
            hazards: false,
            jobs: None,
            order: Order::Listed,
            operands: Vec::new(),
        }
    }
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(word) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| format!("{word} wants a value"))
            };
            match word.as_str() {
                "--xen" => options.hypervisor = Hypervisor::DebianXen,
                "--latency" => options.hypervisor = Hypervisor::Measuring,
                "--hazards" => options.hazards = true,
                "--counted" => options.counted = true,
                "--board" => options.board = Some(boards::find(&value()?)?),
                "--keep" => options.keep = true,
                "--nor" => options.nor = true,
                "--loaders" => options.loaders = Some(value()?.into()),
                "--out" => options.out = Some(value()?.into()),
                "--jobs" => options.jobs = Some(number(&value()?)?.max(1)),
                "--order" => options.order = Order::parse(&value()?)?,
                "--fresh" => options.fresh = true,
                "--gdb" => options.gdb = true,
                "--smp" => options.cpus = number(&value()?)?,
                "--mem" => options.memory_mib = number(&value()?)?,
                "--highmem" => options.highmem = on_or_off(&value()?)?,
                "--test" => options.test = Some(value()?),
                "--seconds" => options.seconds = Some(number(&value()?)?),
                "--count" => options.count = Some(number(&value()?)?),
                "--timeout" => options.timeout = Duration::from_secs(number(&value()?)?.into()),
                "--append" => options.append = value()?,
                "--dom0-append" => options.dom0_append = value()?,
                "--load" => options.load_address = number(&value()?)?,
                _ if word.starts_with('-') => {
                    return Err(format!("no option \"{word}\"; see `cargo xtask help`"));
                }
                _ => options.operands.push(word),
            }
        }
        Ok(options)
    }

    /// The same, with dom0 booting if `fresh`.
    pub fn fresh_if(&self, fresh: bool) -> Self {
        Self {
            fresh: self.fresh || fresh,
            ..self.clone()
        }
    }

    /// Returns the options of `elf FILE`.
    pub fn with_elf_operand(mut self) -> Result<Self> {
        let file = self.operands.pop().ok_or("elf wants a file")?;
        self.hypervisor = Hypervisor::Elf(file.into());
        Ok(self)
    }
}

fn number(text: &str) -> Result<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .map_err(|_| format!("\"{text}\" is not a number"))
}

fn on_or_off(text: &str) -> Result<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("\"{text}\" is neither on nor off")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Hypervisor, Options, Order};

    fn parse(line: &str) -> crate::Result<Options> {
        Options::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn options_and_operands_may_be_mixed() {
        let options = parse("events --smp 4 --xen --load 0x60008000 grants").unwrap();
        assert_eq!(options.operands, ["events", "grants"]);
        assert_eq!((options.cpus, options.load_address), (4, 0x6000_8000));
        assert_eq!(options.hypervisor, Hypervisor::DebianXen);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["--smp", "--smp many", "--highmem perhaps", "--unknown"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_order_keeps_all_and_its_number_gives_it_again() {
        let ordered = |order: Order| {
            let mut list: Vec<_> = ('a'..='z').map(String::from).collect();
            order.apply(&mut list, |name| name);
            list
        };
        let listed = ordered(Order::Listed);
        let shuffled = ordered(Order::parse("7").unwrap());
        assert_eq!(shuffled, ordered(Order::Shuffled(7)));
        assert_ne!(shuffled, ordered(Order::Shuffled(8)));
        assert_ne!(shuffled, listed);
        let mut sorted = shuffled;
        sorted.sort_unstable();
        assert_eq!(sorted, listed);
        assert_eq!(ordered(Order::parse("reverse").unwrap())[0], "z");
    }
}
