//! The steps of the boot, in the order of `main.rs`.

mod board;
mod cpus;
mod memory;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use armv7::addr::{PAGE_SHIFT, PhysAddr};
use armv7::cpu::{CpuId, CpuSet};
use armv7::gic::Gic;
use armv7::syndrome::psr;
use armv7::{features, gic, hypmap, secure, smp, timer};
use dt::{Blob, Entry, Tree};
use krypton::cmdline::{Bootscrub, Console, Level, Options, Scheduler};
use krypton::dom0::build::{self, Host};
use krypton::dom0::selection::HostView;
use krypton::domain::{Domain, guest_map};
use krypton::id::IntId;
use krypton::irq::{self, Handler};
use krypton::platform::host_dt::{HostInfo, UartInfo};
use krypton::platform::ranges::PhysRange;
use krypton::platform::rescue::Candidate;
use krypton::platform::{self, BootError, tree};
use krypton::sched::{self, PoolId};
use krypton::trap::chores;
use krypton::{console, identity, machine, mem, options, panic, partition, passthrough, policy};
use log::LevelFilter;

pub use board::prepare_board;
pub use cpus::{check_kind, join, release_secondaries, set_up_cpu, start_cpus};
pub use memory::{drop_boot, set_up_memory};

/// The mapped device tree.
pub struct Loaded {
    /// Its bytes.
    pub bytes: &'static [u8],
    /// Its physical address.
    pub at: PhysAddr,
}

/// Ends the boot with an error line, at any `loglvl`.
pub fn fail(error: &BootError) -> ! {
    last_words(format_args!("{error}"))
}

fn last_words(text: fmt::Arguments<'_>) -> ! {
    krypton::log::print(text);
    console::flush();
    machine::halt()
}

/// Finds the device tree: at the boot loader's address, else at the start of RAM, where QEMU puts it for an ELF image.
pub fn find_tree(given: u32, load: u32) -> Loaded {
    const GIB: u32 = 1 << 30;
    let mut first_word = 0;
    let (image, image_end) = hypmap::image_frames();
    let image = image.addr().raw()..image_end.addr().raw();
    for at in [given, load & !(GIB - 1)] {
        let Some(address) = PhysAddr::new(at.into()) else {
            continue;
        };
        match hypmap::map_device_tree(address) {
            Ok(bytes) => {
                return Loaded { bytes, at: address };
            }
            Err(word) => first_word = word,
        }
        hypmap::unmap_device_tree();
    }
    rescue_console();
    if image.contains(&given.into()) {
        // By now the image's code or zeroes are there.
        let range = format!("{:#x}-{:#x}", image.start, image.end);
        fail(&BootError::Module(format!(
            "the device tree at {given:#x} overlaps the hypervisor at {range}"
        )));
    }
    fail(&dt::Error::NoTree(first_word).into())
}

/// Checks and reads the device tree, once per boot. `nodes` is storage for its nodes.
pub fn read_tree<'a>(loaded: &Loaded, nodes: &'a mut Vec<Entry>) -> Tree<'a> {
    let blob = Blob::check(loaded.bytes).map_err(BootError::from);
    let tree = blob.and_then(|blob| {
        *nodes = tree::entries(&blob)?;
        tree::read(blob, nodes)
    });
    tree.unwrap_or_else(|error| {
        rescue_console();
        fail(&error)
    })
}

/// A console has been searched for.
static CONSOLE_SOUGHT: AtomicBool = AtomicBool::new(false);

/// Searches well-known boards' UARTs if the tree names no console, and uses the one found.
fn rescue_console() -> Option<&'static Candidate> {
    CONSOLE_SOUGHT.store(true, Ordering::Relaxed); // boot has one CPU
    let (image, _) = hypmap::image_frames();
    platform::rescue::candidates(image.addr().raw() as u32).find(|candidate| {
        let window = PhysAddr::new(candidate.address).and_then(|at| hypmap::map_device(at, 0x1000));
        let there = window.filter(|window| candidate.is_there(|offset| window.probe(offset)));
        there
            .map(|window| console::attach(candidate.model, window))
            .is_some()
    })
}

/// Searches for a console if that has not been done, so that a panic is visible.
pub fn speak_up() {
    if !CONSOLE_SOUGHT.load(Ordering::Relaxed) {
        console::seize();
        rescue_console();
    }
}

/// Reads the command line before all else, so that there is a console for errors in the rest.
pub fn read_options(tree: &Tree<'_>) -> &'static Options {
    let lines = HostInfo::read_command_lines(tree).unwrap_or_else(|error| {
        rescue_console();
        fail(&error)
    });
    let (parsed, notes) = Options::parse(&lines.hypervisor);
    identity::set_command_line(&lines.hypervisor);
    let options = options::set(parsed);
    for note in notes {
        if note.is_warning() {
            log::warn!("{note}");
        } else {
            log::info!("{note}");
        }
    }
    krypton::log::set_level(level(options.loglvl.always));
    krypton::log::set_guest_level(level(options.guest_loglvl.limited));
    machine::set_no_reboot(options.noreboot);
    policy::set_silo(options.xsm == krypton::cmdline::Xsm::Silo);
    panic::set_stack_lines(options.debug_stack_lines);
    options
}

/// Reads the machine from its tree.
pub fn read_machine(tree: &Tree<'_>, options: &Options) -> HostInfo {
    let host = HostInfo::of(tree, &hypmap::peek).unwrap_or_else(|error| fail(&error));
    krypton::log::set_timestamps(options.console_timestamps, counter_frequency(&host));
    host
}

/// Returns the ticks per second of the system counter, from the tree or else from firmware; 0 if neither has it.
fn counter_frequency(host: &HostInfo) -> u32 {
    host.timer.frequency.unwrap_or_else(timer::frequency)
}

/// Converts a level of the command line. Boot facts are printed at Xen's default, "warning".
fn level(level: Level) -> LevelFilter {
    match level {
        Level::None => LevelFilter::Off,
        Level::Error => LevelFilter::Error,
        Level::Warning => LevelFilter::Info,
        Level::Info | Level::Debug => LevelFilter::Debug,
    }
}

/// Starts the console, and prints on it what has been logged so far.
pub fn start_console(tree: &Tree<'_>, options: &Options) -> Option<UartInfo> {
    /// Difference between a letter's code and its code with Ctrl.
    const CONTROL: u8 = 0x1F;
    CONSOLE_SOUGHT.store(true, Ordering::Relaxed);
    console::configure(&console::Settings {
        switch_char: options.conswitch & CONTROL,
        keep_domains: options.console_to_ring,
    });
    match platform::console::find(tree, options.dtuart.as_deref()) {
        Ok(found) => {
            let uart = found.uart;
            // A tree may claim more than can be mapped.
            let size = uart.reg.size().min(platform::console::REGISTERS);
            let Some(window) = hypmap::map_device(uart.reg.start(), size) else {
                fail(&BootError::Uart("cannot be mapped".to_string()));
            };
            // With `console=none` the UART still belongs to the hypervisor, as in Xen.
            if options.console != Console::None {
                console::attach(uart.model, window);
            }
            if let Some(error) = found.instead {
                log::warn!("{error}; the console is {}", uart.path);
            }
            Some(uart)
        }
        Err(_) if options.console == Console::None => None,
        Err(error) => {
            let Some(found) = rescue_console() else {
                log::warn!("{error}; going on without console");
                return None;
            };
            log::warn!("{error}; the console is at {:#x}", found.address);
            platform::console::at(tree, found.model, found.address)
        }
    }
}

/// Keeps `conring_size` bytes of past output.
pub fn keep_output(options: &Options) {
    if !console::keep(options.conring_size) {
        log::warn!(
            "No memory for a ring of {} KiB of output",
            options.conring_size >> 10
        );
    }
}

/// Stops the boot if guests cannot run on this CPU.
pub fn check_cpu(cpsr: u32, entry_cpsr: u32) {
    let mode = cpsr & psr::MODE;
    if mode == psr::MODE_HYP {
        if entry_cpsr & psr::MODE != psr::MODE_HYP {
            secure::set_entered(CpuId::BOOT);
            log::info!("Entered in secure state, switched to HYP");
        }
        if !features::has_generic_timer() {
            fail(&BootError::Timer(
                "the processor has no generic timer".to_string(),
            ));
        }
        return;
    }
    if !features::has_virtualization() {
        krypton::log::print(format_args!(
            "BOOT: CPU MIDR {:#010x} lacks (or hides) the virtualization extensions",
            smp::midr()
        ));
    }
    last_words(format_args!(
        "BOOT: CPU is not in HYP mode (mode {mode:#04x}); start with virtualization=on, or firmware that enters HYP"
    ))
}

/// Prints the banner in Xen's form.
pub fn greet(host: &HostInfo) {
    log::info!(
        "Xen version 4.17{} (Krypton {}) ({}) {}",
        identity::EXTRA_VERSION,
        identity::VERSION,
        identity::COMPILER,
        identity::COMPILED_AT
    );
    log::info!("Latest ChangeSet: {}", identity::CHANGESET);
    let midr = smp::midr();
    log::info!(
        "Processor: {midr:08x}: variant: {:#x}, part {:#05x}, rev {:#x}",
        midr >> 20 & 0xF,
        midr >> 4 & 0xFFF,
        midr & 0xF
    );
    log::info!("Platform: {}", host.model);
    for range in &host.ram {
        log::info!("RAM: {:016x} - {:016x}", range.base(), range.end() - 1);
    }
    for (n, module) in host.modules.iter().enumerate() {
        log::info!(
            "MODULE[{n}]: {:016x} - {:016x} {}",
            module.range.base(),
            module.range.end(),
            module.kind
        );
    }
    log::info!("Command line: {}", identity::command_line());
    for note in &host.notes {
        log::warn!("{note}");
    }
}

/// Sets up the interrupt controller, and claims the hypervisor's interrupts.
pub fn set_up_interrupts(host: &mut HostInfo, uart: Option<&UartInfo>) -> &'static Gic {
    let map = |range: &PhysRange, size: u64| {
        hypmap::map_device(range.start(), size)
            .unwrap_or_else(|| fail(&BootError::Gic("registers cannot be mapped".to_string())))
    };
    for frame in &mut host.gic.frames {
        let at = frame.reg.base() + platform::gic::MSI_TYPER;
        if let Some(window) = PhysAddr::new(at).and_then(|at| hypmap::map_device(at, 4)) {
            frame.set_type_register(window.read32(0));
        }
    }
    host.gic.find_steps(|at| {
        let window = PhysAddr::new(at).and_then(|at| hypmap::map_device(at, 4));
        window.map_or(0, |window| window.read32(0))
    });
    let gic = gic::init(
        map(&host.gic.distributor, 0x1000),
        map(&host.gic.cpu_registers(), platform::gic::GICC_SIZE),
        map(&host.gic.hypervisor, 0x200),
    );
    log::info!("GICv2 initialization:");
    log::info!(
        "        gic_dist_addr={:#x} gic_cpu_addr={:#x} gic_hyp_addr={:#x} gic_vcpu_addr={:#x} maintenance irq {}",
        host.gic.distributor.base(),
        host.gic.cpu_registers().base(),
        host.gic.hypervisor.base(),
        host.gic.virtual_cpu_registers().base(),
        host.gic.maintenance
    );
    log::info!(
        "GICv2: {} lines, {} list registers",
        gic.dist.lines(),
        gic.hyp.count()
    );
    let virtual_cpu = host.gic.virtual_cpu_registers().pages_outward();
    guest_map::init(guest_map::Host {
        virtual_cpu: virtual_cpu.start().frame(),
        frames: (virtual_cpu.size() >> PAGE_SHIFT) as u32,
        clock_frequency: host.timer.frequency.unwrap_or(0),
    });
    if host.timer.virtual_timer != u32::from(IntId::VIRTUAL_TIMER.raw()) {
        fail(&BootError::Timer(
            "the virtual timer is not PPI 27".to_string(),
        ));
    }
    cpus::set_private_interrupts(
        host.gic.maintenance,
        host.timer.hypervisor,
        host.timer.virtual_timer,
    );
    cpus::set_monitors(&host.monitors);
    cpus::enable_private_interrupts(CpuId::BOOT, gic);
    if let Some(line) = uart.and_then(|uart| uart.interrupt)
        && line.intid < gic.dist.lines()
        && irq::claim(line.intid, Handler::Console)
    {
        cpus::enable_line(gic, &line);
        console::enable_interrupt();
    }
    gic
}

/// Sets up the clock and the run queues.
pub fn set_up_time(host: &HostInfo, options: &Options, cpus: CpuSet) -> sched::Ready {
    let hz = counter_frequency(host);
    let ready = sched::init(hz, cpus, options.sched_ratelimit_us).unwrap_or_else(|| {
        fail(&BootError::Timer(
            "frequency unknown: CNTFRQ is 0 and the tree has no clock-frequency".to_string(),
        ))
    });
    cpus::set_frequency(CpuId::BOOT, hz);
    log::info!(
        "Generic Timer IRQ: phys={} hyp={} virt={} Freq: {} KHz",
        host.timer.physical,
        host.timer.hypervisor,
        host.timer.virtual_timer,
        hz / 1000
    );
    let name = match options.sched {
        Scheduler::Credit2 => "SMP Credit Scheduler rev2 (credit2)",
        Scheduler::Null => "null Scheduler (null)",
    };
    sched::lock().set_dedicated(PoolId::FIRST, options.sched == Scheduler::Null);
    log::info!("Using scheduler: {name}");
    ready
}

/// Makes console output asynchronous, as guests are about to run (`console::transmit`). The last step of the boot that
/// prints.
pub fn queue_console(options: &Options) {
    console::listen(chores::request_console);
    if options.sync_console {
        log::warn!("sync_console: guests wait for each byte of the console");
    } else if chores::set_up_console_timer().is_err() || !console::queue_up() {
        log::warn!("no memory for the console's queue; guests wait for each byte of it");
    }
}

/// Scrubs all free memory now if requested; otherwise idle CPUs do it later.
pub fn scrub_memory(options: &Options) {
    /// Pages per call of the allocator.
    const AT_ONCE: u32 = 512;
    if options.bootscrub == Bootscrub::Boot {
        log::info!("Scrubbing Free RAM");
        while mem::memory().scrub_some(AT_ONCE) {}
    }
}

/// The facts that guests are built from.
pub struct Machine<'a> {
    /// The machine as its tree describes it.
    pub host: &'a HostInfo,
    /// Its device tree.
    pub tree: &'a Tree<'a>,
    /// Options.
    pub options: &'a Options,
    /// The console's UART.
    pub uart: Option<&'a UartInfo>,
    /// The interrupt controller.
    pub gic: &'static Gic,
    /// There is a scheduler.
    pub ready: sched::Ready,
}

impl<'a> Machine<'a> {
    /// Returns what guests' devices depend on.
    fn view(&self) -> HostView<'a> {
        HostView {
            tree: self.tree,
            host: self.host,
            console: self.uart,
            gic_lines: self.gic.dist.lines(),
        }
    }
}

/// Builds all guests, and makes them ready to run; returns their names. Without a kernel for dom0 there are only the
/// domains that the tree names.
pub fn load_guests(machine: &Machine<'_>) -> String {
    let host = machine.host;
    let dedicated = machine.options.sched == Scheduler::Null;
    let pools = partition::pools::make(host, dedicated);
    let dom0 = match host.kernel() {
        Err(_) if !host.partitions.is_empty() => {
            log::info!("Xen dom0less mode detected");
            None
        }
        _ => Some(load_dom0(machine)),
    };
    let catalogue = passthrough::rule::Catalogue::of(&machine.view());
    let catalogue = catalogue.unwrap_or_else(|error| fail(&error));
    for note in catalogue.notes() {
        log::warn!("{note}");
    }
    passthrough::init(catalogue);
    let domains = partition::build::build_all(&partition::build::Host {
        info: host,
        tree: machine.tree,
        options: machine.options,
        gic_lines: machine.gic.dist.lines(),
        console: machine.uart,
        pools: &pools,
    });
    partition::build::start(&domains);
    let all = dom0.iter().chain(domains.iter().map(|built| &built.domain));
    let names: Vec<String> = all.map(|domain| domain.to_string()).collect();
    if names.is_empty() {
        fail(&BootError::NoDomain);
    }
    names.join(", ")
}

/// Builds dom0, ready to run.
fn load_dom0(machine: &Machine<'_>) -> alloc::sync::Arc<Domain> {
    log::info!("*** LOADING DOMAIN 0 ***");
    let Machine {
        host,
        options,
        gic,
        ready,
        ..
    } = *machine;
    let cpus = sched::lock().pool(PoolId::FIRST).len();
    let loaded = memory::grant_window().and_then(|grant| {
        build::build(&Host {
            info: host,
            machine: machine.view(),
            options,
            gic,
            free: &host.free_ram(),
            grant,
            cpus,
            ready,
        })
    });
    loaded.unwrap_or_else(|error| fail(&error))
}
