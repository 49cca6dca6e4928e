//! The addresses at which a domain finds its RAM, interrupt controller and UART.

use alloc::format;
use alloc::vec::Vec;

use crate::domain::guest_map::{self, Layout};
use crate::id::IntId;
use crate::loader::Refused;
use crate::platform::partitions::{Config, Enhanced};
use crate::platform::ranges::PhysRange;

/// Size of a page of registers.
const PAGE: u64 = 0x1000;

/// The facts about the machine that a domain's plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// Interrupt ids of the GIC.
    pub gic_lines: u32,
    /// The timer's frequency, where guests are to be told.
    pub clock_frequency: Option<u32>,
    /// `compatible` of the first CPU.
    pub cpu: Option<&'a [u8]>,
    /// `clock-frequency` of the first CPU.
    pub cpu_frequency: Option<u32>,
    /// The address of the GIC's distributor.
    pub distributor: u64,
    /// The address of the GIC's CPU interface.
    pub cpu_interface: u64,
    /// The registers and the INTID of the console's UART.
    pub console: Option<(PhysRange, u16)>,
}

/// Returns where a domain's interrupt controller and UART are: for one with a direct map where the machine has its own.
pub fn of(config: &Config, machine: &Machine<'_>) -> Result<Layout, Refused> {
    let layout = Layout::new().ok_or_else(|| Refused("no interrupt for its UART".into()))?;
    if !config.direct_map {
        return Ok(layout);
    }
    let layout = Layout {
        distributor: (machine.distributor, layout.distributor.1),
        cpu_interface: (machine.cpu_interface, layout.cpu_interface.1),
        ..layout
    };
    if !config.uart {
        return Ok(layout);
    }
    let no = |why| {
        Err(Refused(format!(
            "vpl011: with direct-map it is where the console is: {why}"
        )))
    };
    let Some((registers, interrupt)) = machine.console else {
        return no("the machine has none with an interrupt");
    };
    let whole = registers.base().is_multiple_of(PAGE) && registers.size() >= PAGE;
    match IntId::new(interrupt.into()) {
        Some(uart_irq) if whole => Ok(Layout {
            uart: (registers.base(), PAGE),
            uart_irq,
            ..layout
        }),
        _ => no("its registers are no whole page"),
    }
}

/// Names what is at a range of a domain's addresses that is emulated, or mapped later.
pub fn taken(range: &PhysRange, config: &Config, layout: &Layout) -> Option<&'static str> {
    let has_hypervisor = config.enhanced != Enhanced::No;
    let regions = [
        (true, layout.distributor, "the interrupt controller"),
        (true, layout.cpu_interface, "the interrupt controller"),
        (config.uart, layout.uart, "the UART"),
        (has_hypervisor, guest_map::GRANT_TABLE, "the grant table"),
        (has_hypervisor, guest_map::MAGIC, "xenstore's page"),
    ];
    for (is_there, (base, size), name) in regions {
        let region = PhysRange::new(base, size).filter(|_| is_there);
        if region.is_some_and(|region| region.overlaps(range)) {
            return Some(name);
        }
    }
    None
}

/// A piece of a domain's RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its addresses in the domain.
    pub guest: PhysRange,
    /// Its addresses in the machine, if it is to have those.
    pub host: Option<PhysRange>,
}

/// Returns the RAM of a domain, in the order of its addresses or as its node has it.
pub fn ram(config: &Config) -> Result<Vec<Piece>, Refused> {
    let mut pieces = Vec::new();
    if config.direct_map {
        for range in &config.static_memory {
            let host = Some(*range);
            pieces.push(Piece {
                guest: *range,
                host,
            });
        }
        return Ok(pieces);
    }
    let mut banks = guest_map::RAM_BANKS.into_iter();
    let (mut next, mut room) = (0, 0);
    let mut add = |mut host: Option<u64>, mut size: u64| {
        while size > 0 {
            if room == 0 {
                (next, room) = banks.next()?;
            }
            let here = size.min(room);
            let guest = PhysRange::new(next, here)?;
            let from = match host {
                Some(host) => Some(PhysRange::new(host, here)?),
                None => None,
            };
            pieces.push(Piece { guest, host: from });
            (next, room, size) = (next + here, room - here, size - here);
            host = host.map(|host| host + here);
        }
        Some(())
    };
    let all = match config.static_memory.as_slice() {
        [] => add(None, config.memory),
        ranges => {
            let mut ranges = ranges.iter();
            ranges.try_for_each(|range| add(Some(range.base()), range.size()))
        }
    };
    let mib = config.memory >> 20;
    all.map(|()| pieces).ok_or_else(|| {
        Refused(format!(
            "memory: {mib} MiB are more than the guest's addresses hold"
        ))
    })
}

/// Returns the banks of pieces of RAM: those that follow on one another are one.
pub fn banks(pieces: &[Piece]) -> Vec<PhysRange> {
    let mut banks: Vec<PhysRange> = Vec::new();
    for Piece { guest, .. } in pieces {
        let last = banks.last_mut();
        let grown = last.as_ref().filter(|last| last.end() == guest.base());
        let grown = grown.and_then(|last| PhysRange::from_ends(last.base(), guest.end()));
        match (last, grown) {
            (Some(last), Some(grown)) => *last = grown,
            _ => banks.push(*guest),
        }
    }
    banks
}
