//! Inputs of a guest, given to the rooms that decide without acting.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use armv7::addr::{Gfn, Mfn};
use armv7::frame::{Kept, PageRef, SharedPage, keep, page};
use armv7::host::frame::FIRST;
use armv7::syndrome::{self, Trap, Width};
use krypton::emulate::cp15;
use krypton::event::{EventTable, EventVirq, Port, Reset, Sent};
use krypton::grant::{Access, GrantRef, GrantTable, GrantedFrame, GranterMemory, Limits, PinError};
use krypton::id::{DomId, IntId, VcpuId};
use krypton::vgic::{ListRegisters, Maintenance, Vgic};

use crate::input::Input;

/// The part of the host's arena that these targets take pages from, behind that of the machine (`calls`).
const PAGES: u32 = FIRST + 0x8000;

/// A page that goes back when it is dropped.
struct Page(Kept, u32);

impl Page {
    fn new() -> Self {
        let free = FREE.lock().unwrap_or_else(|poison| poison.into_inner()).pop();
        let number = free.unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        let kept = keep(Mfn::new(u64::from(PAGES + number)).unwrap()).unwrap();
        kept.page().zero();
        Self(kept, number)
    }

    fn guest(&self) -> &'static SharedPage {
        page(self.0.mfn()).unwrap()
    }
}

static FREE: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(0);

impl PageRef for Page {
    fn page(&self) -> &SharedPage {
        self.0.page()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        FREE.lock().unwrap_or_else(|poison| poison.into_inner()).push(self.1);
    }
}

/// Trapped instructions, and the registers behind them.
pub fn instructions(data: &[u8]) {
    let mut input = Input::new(data);
    while !input.is_empty() {
        let (hsr, kernel) = (input.word(), input.byte() & 1 == 0);
        let state = cp15::Cp15State { actlr: input.word(), midr: 0x413f_c0f0, cntkctl: input.number() };
        let privilege = if kernel { cp15::Privilege::Kernel } else { cp15::Privilege::User };
        match syndrome::decode(hsr) {
            Trap::Cp15(access) => {
                let _ = cp15::cp15(&access, privilege, &state);
            }
            Trap::Cp14(access) => {
                let _ = cp15::cp14(&access, privilege, &state);
            }
            Trap::Cp15Wide(access) => {
                let _ = cp15::cp15_wide(&access, privilege, &state);
            }
            _ => {}
        }
    }
}

/// List registers with a guest behind them that takes and ends interrupts.
struct Interface {
    registers: [u32; 4],
    ended: u32,
}

const STATE: u32 = 3 << 28;
const PENDING: u32 = 1 << 28;
const ACTIVE: u32 = 2 << 28;

impl Interface {
    fn take(&mut self) {
        if let Some(register) = self.registers.iter_mut().find(|value| **value & STATE == PENDING) {
            *register = *register & !STATE | ACTIVE;
        }
    }

    fn end(&mut self) {
        match self.registers.iter_mut().find(|value| **value & ACTIVE != 0) {
            Some(register) => *register &= !ACTIVE,
            None => self.ended = (self.ended + 1).min(31),
        }
    }
}

impl ListRegisters for Interface {
    fn count(&self) -> usize {
        self.registers.len()
    }
    fn read(&self, index: usize) -> u32 {
        self.registers[index]
    }
    fn write(&mut self, index: usize, value: u32) {
        self.registers[index] = value;
        let number = |value: u32| value & 0x3ff;
        let same = self.registers.iter().filter(|&&other| other & STATE != 0 && number(other) == number(value));
        assert!(value & STATE == 0 || same.count() == 1, "an interrupt in two list registers");
    }
    fn set_maintenance(&mut self, _: Maintenance) {}
    fn take_eoi_count(&mut self) -> u32 {
        std::mem::take(&mut self.ended)
    }
    fn deactivate(&mut self, _: u16) {}
}

/// Registers of the distributor, with vCPUs that come, go, take and end.
pub fn vgic(data: &[u8]) {
    let mut input = Input::new(data);
    let vcpus = input.byte() % 8 + 1;
    let Ok(mut vgic) = Vgic::new(vcpus, u16::from(input.byte()) % 31 * 32) else { return };
    let mut interfaces: Vec<_> = (0..vcpus).map(|_| Interface { registers: [0; 4], ended: 0 }).collect();
    while !input.is_empty() {
        let who = input.byte() % vcpus;
        let (vcpu, interface) = (VcpuId::new(who.into()).unwrap(), &mut interfaces[usize::from(who)]);
        let action = input.byte();
        match action % 8 {
            0..=3 => {
                let offset = input.word() & 0x101f | u32::from(input.byte()) << 4;
                let (offset, width) = match action >> 6 {
                    0 => (offset, Width::Byte),
                    1 => (offset & !1, Width::Half),
                    _ => (offset & !3, Width::Word),
                };
                let _ = vgic.freshen(vcpu, offset, interface);
                let read = vgic.read(vcpu, offset, width);
                let written = vgic.write(vcpu, offset, width, input.word());
                assert_eq!(read.is_ok(), written.is_ok());
            }
            4 => {
                if let Some(irq) = IntId::new(input.number() % 1020) {
                    let _ = vgic.inject(vcpu, irq);
                }
            }
            5 => interface.take(),
            6 => interface.end(),
            _ => {
                let _ = vgic.unload(vcpu, interface);
                assert!(interface.registers.iter().all(|value| value & STATE == 0));
            }
        }
        let _ = vgic.fold(vcpu, interface);
        let _ = vgic.refill(vcpu, interface);
    }
}

/// A table of ports and a guest that writes what it likes into all that it shares.
pub fn events(data: &[u8]) {
    const ME: DomId = DomId(7);
    let mut input = Input::new(data);
    let shared = Page::new();
    let mut written = vec![shared.guest()];
    let Ok(mut table) = EventTable::new(ME, 3000, 2, shared) else { return };
    while !input.is_empty() {
        let action = input.byte();
        let port = Port(input.number());
        match action % 18 {
            0 | 1 => {
                let _ = table.send(port).map(|sent| matches!(sent, Sent::Peer { .. }));
            }
            2 => drop(table.unmask(port)),
            3 => drop(table.bind_ipi(port.0)),
            4 => drop(table.alloc_unbound(DomId(port.0 as u16))),
            5 => drop(table.bind_loopback(port)),
            6 => drop(table.bind_virq(port.0, input.number())),
            7 => drop(table.close(port).map(|_| ())),
            8 => drop(table.bind_vcpu(port, input.number())),
            9 => drop(table.set_priority(port, input.number())),
            10 => {
                let page = Page::new();
                written.push(page.guest());
                let _ = table.init_control(port.0, page, input.number() << 3).map(|_| ());
            }
            11 => {
                let page = Page::new();
                written.push(page.guest());
                let _ = table.register_vcpu_info(port.0, page, input.number() << 2).map(|_| ());
            }
            12 => {
                let page = Page::new();
                written.push(page.guest());
                let _ = table.expand_array(page, input.number().into());
            }
            13 => {
                let ports = [port, Port(input.number())];
                if let Some(vcpu) = VcpuId::new(0) {
                    let _ = table.poll(vcpu, &ports).map(|_| ());
                    table.end_poll(vcpu);
                }
            }
            14 if port.0 == 77 => reset(&mut table),
            15 => {
                if let (Some(virq), Some(vcpu)) = (EventVirq::new(port.0), VcpuId::new(0)) {
                    let _ = table.raise_virq(virq, vcpu);
                }
            }
            // A guest that writes: more often than all else.
            _ => {
                let page = written[input.byte() as usize % written.len()];
                let value = match input.byte() {
                    0 => 1 << 31 | 1 << 29 | input.number() & 0x1_ffff,
                    1 => 1 << 29 | 1 << 28 | input.number() & 0x1_ffff,
                    _ => input.word(),
                };
                page.words()[port.0 as usize % 1024].store(value, Ordering::Relaxed);
            }
        }
    }
    reset(&mut table);
    assert_eq!(table.end(), table.end());
}

fn reset(table: &mut EventTable<Page>) {
    if table.reset_begin().is_err() {
        return;
    }
    for _ in 0..10_000 {
        match table.reset_step(64) {
            Ok(Reset::More) => {}
            Ok(Reset::Peer { from, .. }) => table.finish_close(from.port),
            _ => return,
        }
    }
    panic!("a reset without end");
}

/// Memory of a granter, with the references that grants hold.
#[derive(Default)]
struct Memory {
    held: i64,
}

impl GranterMemory for Memory {
    fn pin(&mut self, gfn: Gfn, _: Access) -> Result<GrantedFrame, PinError> {
        let number = u64::from(gfn.raw());
        if number % 5 == 4 {
            return Err(PinError::BadPage);
        }
        self.held += 1;
        Ok(GrantedFrame { mfn: Mfn::new(number).ok_or(PinError::BadPage)?, writable: number % 3 != 0 })
    }

    fn note_write(&mut self, _: Gfn) {
        assert!(self.held > 0, "only of a frame in use");
    }

    fn unpin(&mut self, _: Mfn) {
        self.held -= 1;
        assert!(self.held >= 0, "more given back than taken");
    }
}

/// A table of grants whose words the granter writes at any time, and two who use them.
pub fn grants(data: &[u8]) {
    let mut input = Input::new(data);
    let mut table = GrantTable::new(Limits::new(2, 2).unwrap());
    let entries = Page::new();
    let shared = entries.guest();
    assert!(table.grow(entries).is_ok());
    let mut memory = Memory::default();
    let mut used: Vec<(GrantRef, Access)> = Vec::new();
    while !input.is_empty() {
        let action = input.byte();
        let entry = GrantRef(u32::from(action >> 4) + 8);
        match action % 8 {
            0 | 1 => {
                let access = if input.byte() & 1 == 0 { Access::Read } else { Access::Write };
                let by = DomId(u16::from(input.byte() % 3) + 1);
                if table.acquire(entry, by, access, &mut memory).is_ok() {
                    used.push((entry, access));
                }
            }
            2 => {
                if !used.is_empty() {
                    let (entry, access) = used.swap_remove(usize::from(input.byte()) % used.len());
                    table.release(entry, access, &mut memory);
                }
            }
            3 => drop(table.swap(entry, GrantRef(input.number()))),
            4 => {
                let entry = GrantRef(input.number());
                if table.acquire(entry, DomId(1), Access::Write, &mut memory).is_ok() {
                    used.push((entry, Access::Write));
                }
            }
            5 => drop(shared.words()[entry.0 as usize * 2 + 1].swap(input.number(), Ordering::Relaxed)),
            _ => {
                let value = u32::from(input.byte() % 3 + 1) << 16 | u32::from(input.byte());
                shared.words()[entry.0 as usize * 2].store(value, Ordering::Relaxed);
            }
        }
        assert_eq!(i64::from(table.pinned()), memory.held);
    }
    for (entry, access) in used {
        table.release(entry, access, &mut memory);
    }
}
