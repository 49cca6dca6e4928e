//! The interrupt controller: every register, in every size, with every nonsense.

use guests::exception::Kind;
use guests::gic::{self, distributor};
use guests::harness::Verdict;
use guests::memory;
use guests::mmio::{read8, read16, read32, write8, write16, write32};
use guests::{ensure, ensure_eq, exception, platform, psci};

use crate::common::{Code, Random, code, is, load, quiet, store};

const PAGE: u32 = 0x1000;
/// Offsets of the CPU interface: its two pages.
const INTERFACE: u32 = 0x2000;

/// Loads and stores of this form: what they bring is a value, or a data abort.
fn access(words: &[u32], address: u32, value: u32) -> Result<u32, exception::Fault> {
    Code::page().run(words, address, value)
}

const LOAD_BYTE: u32 = 0xe5d0_0000;
const LOAD_HALF: u32 = 0xe1d0_00b0;
const STORE_BYTE: u32 = 0xe5c0_1000;
const STORE_HALF: u32 = 0xe1c0_10b0;

pub fn every_register_is_read() -> Verdict {
    for offset in 0..PAGE {
        for word in [LOAD_BYTE, LOAD_HALF, 0xe590_0000] {
            let result = access(&[word], distributor(offset), 0);
            ensure!(result.is_ok() || is(result, Kind::DataAbort), offset);
            if offset % 16 != 0 {
                break;
            }
        }
    }
    quiet();
    Ok(())
}

/// Writes all over the distributor, as a guest that masks its interrupts may.
fn write_everywhere(value: fn(&mut Random) -> u32) -> Verdict {
    let mut random = Random::new(51);
    for offset in (0..PAGE).step_by(4) {
        let result = store(distributor(offset), value(&mut random));
        ensure!(result.is_ok() || is(result, Kind::DataAbort), offset);
    }
    for offset in (0..PAGE).step_by(3) {
        let word = if random.below(2) == 0 { STORE_BYTE } else { STORE_HALF };
        let result = access(&[word], distributor(offset), value(&mut random));
        ensure!(result.is_ok() || is(result, Kind::DataAbort), offset);
    }
    quiet();
    ensure_eq!(read32(distributor(gic::CTLR)) & 1, 1);
    Ok(())
}

pub fn every_register_is_filled_with_ones() -> Verdict {
    write_everywhere(|_| u32::MAX)
}

pub fn every_register_is_filled_with_zeroes() -> Verdict {
    write_everywhere(|_| 0)
}

pub fn every_register_is_filled_by_chance() -> Verdict {
    for _ in 0..3 {
        write_everywhere(|random| random.word())?;
    }
    Ok(())
}

pub fn sgis_to_everybody_of_every_kind() -> Verdict {
    for filter in 0..4 {
        for targets in [0, 1, 2, 8, 0x0f, 0x10, 0x80, 0xf0, 0xff] {
            for intid in 0..16 {
                write32(distributor(gic::SGIR), filter << 24 | targets << 16 | 1 << 15 | 0x7ff0 | intid);
            }
        }
    }
    let mut taken = 0;
    loop {
        let value = gic::acknowledge();
        if value & gic::INTID_MASK == gic::SPURIOUS {
            break;
        }
        ensure!(value & gic::INTID_MASK < 16, value);
        gic::end(value);
        taken += 1;
        // Each of the 16 from each of the vCPUs at most once.
        ensure!(taken <= 16 * 8, taken);
    }
    ensure!(taken > 0);
    quiet();
    Ok(())
}

pub fn registers_in_the_wrong_size() -> Verdict {
    // Halves and bytes of registers that are words, words that are not aligned.
    for offset in [gic::CTLR, gic::SGIR, gic::ISENABLER, gic::ICFGR, gic::ICPIDR2, gic::IGROUPR] {
        for inner in 0..4 {
            for word in [LOAD_BYTE, LOAD_HALF, STORE_BYTE, STORE_HALF, 0xe590_0000, 0xe580_1000] {
                let result = access(&[word], distributor(offset + inner), 0x5a);
                ensure!(result.is_ok() || is(result, Kind::DataAbort), offset + inner);
            }
        }
    }
    quiet();
    Ok(())
}

pub fn registers_by_instructions_of_other_kinds() -> Verdict {
    let words: [&[u32]; 12] = [
        &[0xe8b0_0006],              // ldmia r0!, {r1, r2}
        &[0xe8a0_0006],              // stmia r0!, {r1, r2}
        &[0xe1c0_20d0],              // ldrd r2, [r0]
        &[0xe1c0_20f0],              // strd r2, [r0]
        &[0xe190_1f9f],              // ldrex r1, [r0]
        &[0xe190_1f9f, 0xe180_2f91], // ldrex, strex r2, r1, [r0]
        &[0xe100_1092],              // swp r1, r2, [r0]
        &[0xe490_1004],              // ldr r1, [r0], #4
        &[0xe5b0_1004],              // ldr r1, [r0, #4]!
        &[0xe5a0_1004],              // str r1, [r0, #4]!
        &[0xf5d0_f000],              // pld [r0]
        &[0xf450_f000],              // pli [r0]
    ];
    for (n, words) in words.into_iter().enumerate() {
        for offset in [gic::CTLR, gic::ISENABLER, gic::IPRIORITYR + 32, gic::SGIR, 0xffc] {
            let result = access(words, distributor(offset), 1);
            ensure!(result.is_ok() || is(result, Kind::DataAbort) || is(result, Kind::Undefined), n);
        }
    }
    quiet();
    Ok(())
}

pub fn code_runs_in_devices() -> Verdict {
    let machine = platform::get();
    for address in [machine.distributor, machine.cpu_interface, 0x0800_0000, 0x0900_0000, 0x0a00_0000, 0] {
        // bx r0
        let result = Code::page().run(&[0xe12f_ff10], address, 0);
        ensure!(is(result, Kind::PrefetchAbort), address);
    }
    Ok(())
}

pub fn tables_in_devices() -> Verdict {
    let machine = platform::get();
    for table in [machine.distributor, machine.cpu_interface, 0x0800_0000, 0x0900_0000] {
        memory::set_table_of_unmapped(Some(table & !0xfff));
        let result = load(memory::UNMAPPED);
        memory::set_table_of_unmapped(None);
        ensure!(is(result, Kind::DataAbort), table);
    }
    Ok(())
}

pub fn the_real_controller_is_looked_for() -> Verdict {
    let machine = platform::get();
    // QEMU's virt: distributor, interface, GICH, GICV, UART, clock, virtio, flash.
    for address in
        [0, 0x0800_0000, 0x0801_0000, 0x0803_0000, 0x0804_0000, 0x0900_0000, 0x0901_0000, 0x0a00_0000, 0x0c00_0000]
    {
        let is_ours = address & !0xfff == machine.distributor
            || (machine.cpu_interface..machine.cpu_interface + INTERFACE).contains(&address);
        ensure!(is_ours || is(load(address), Kind::DataAbort), address);
        ensure!(is_ours || is(store(address, 1), Kind::DataAbort), address);
    }
    Ok(())
}

pub fn beyond_the_interface() -> Verdict {
    let machine = platform::get();
    for offset in [INTERFACE, INTERFACE + 0xffc, 0x3000, 0x1_0000] {
        ensure!(is(load(machine.cpu_interface + offset), Kind::DataAbort), offset);
    }
    for offset in (0..INTERFACE).step_by(4) {
        // Acknowledges what is pending, if anything is.
        let result = load(machine.cpu_interface + offset);
        ensure!(result.is_ok() || is(result, Kind::DataAbort), offset);
    }
    quiet();
    Ok(())
}

pub fn the_interface_is_filled_by_chance() -> Verdict {
    let machine = platform::get();
    let mut random = Random::new(77);
    for _ in 0..4 {
        for offset in (0..INTERFACE).step_by(4).filter(|offset| !(0xe0..0xf0).contains(offset)) {
            store(machine.cpu_interface + offset, random.word()).ok();
        }
    }
    // Active priorities are state of the virtual interface: none of it is anybody else's.
    for offset in (0xd0..0xf0).step_by(4) {
        store(machine.cpu_interface + offset, 0).ok();
    }
    quiet();
    Ok(())
}

pub fn ends_of_what_never_began() -> Verdict {
    for mode in [gic::EndMode::Drop, gic::EndMode::DropAndDeactivate] {
        gic::set_end_mode(mode);
        for intid in (0..1024).chain([gic::VIRTUAL_TIMER, 0x1000, u32::MAX]) {
            gic::end(intid);
            gic::deactivate(intid);
        }
        for _ in 0..4 {
            gic::end(gic::VIRTUAL_TIMER);
        }
    }
    quiet();
    Ok(())
}

pub fn timers_are_made_pending_by_hand() -> Verdict {
    for intid in [gic::VIRTUAL_TIMER, gic::PHYSICAL_TIMER, 26, 25, 16, platform::get().event_interrupt] {
        gic::enable(intid);
        for register in [gic::ISPENDR, gic::ICPENDR, gic::ISACTIVER, gic::ICACTIVER, gic::ISPENDR, gic::ISACTIVER] {
            gic::write_bit(register, intid);
            let value = gic::acknowledge();
            if value & gic::INTID_MASK != gic::SPURIOUS {
                gic::end(value);
            }
        }
        gic::disable(intid);
        gic::write_bit(gic::ICACTIVER, intid);
        gic::write_bit(gic::ICPENDR, intid);
    }
    quiet();
    Ok(())
}

pub fn interrupts_beyond_the_last() -> Verdict {
    for intid in (32..1020).step_by(31) {
        gic::enable(intid);
        gic::write_bit(gic::ISPENDR, intid);
        gic::write_bit(gic::ISACTIVER, intid);
        gic::set_targets(intid, 0xff);
        gic::set_priority(intid, 0);
        write32(distributor(gic::ICFGR + intid / 16 * 4), u32::MAX);
    }
    let value = gic::acknowledge() & gic::INTID_MASK;
    ensure!(value < 32 || value == gic::SPURIOUS, value);
    quiet();
    Ok(())
}

pub fn all_sgis_at_all_priorities() -> Verdict {
    for round in 0..32 {
        for intid in 0..16 {
            gic::set_priority(intid, (intid * 17 + round * 8) & 0xff);
            gic::send_sgi(gic::Target::Myself, intid);
        }
        gic::set_priority_mask(0xff);
        let mut taken = 0_u32;
        for _ in 0..16 {
            let value = gic::acknowledge();
            if value & gic::INTID_MASK == gic::SPURIOUS {
                break;
            }
            taken |= 1 << (value & 0xf);
            gic::end(value);
        }
        // The lowest priority of all is never delivered.
        ensure!(taken.count_ones() >= 14, taken);
        quiet();
    }
    Ok(())
}

pub fn the_distributor_goes_off_and_on() -> Verdict {
    for n in 0..500 {
        gic::send_sgi(gic::Target::Myself, n % 16);
        write32(distributor(gic::CTLR), n & 1);
        gic::send_sgi(gic::Target::Myself, (n + 1) % 16);
        write32(distributor(gic::CTLR), !n);
    }
    quiet();
    gic::send_sgi(gic::Target::Myself, 3);
    let value = gic::acknowledge();
    ensure_eq!(value & gic::INTID_MASK, 3);
    gic::end(value);
    Ok(())
}

pub fn an_interrupt_is_undone_while_it_is_active() -> Verdict {
    for n in 0..200 {
        let intid = n % 16;
        gic::send_sgi(gic::Target::Myself, intid);
        let value = gic::acknowledge();
        gic::disable(intid);
        gic::write_bit(gic::ICACTIVER, intid);
        gic::send_sgi(gic::Target::Myself, intid);
        write32(distributor(gic::CPENDSGIR + intid / 4 * 4), u32::MAX);
        gic::end(value);
        gic::enable(intid);
    }
    quiet();
    Ok(())
}

pub fn user_mode_touches_devices() -> Verdict {
    let machine = platform::get();
    for address in [machine.distributor, machine.cpu_interface, 0x0900_0000] {
        // ldr r0, [r0]: boot.S maps devices for the kernel only.
        let fault = Code::page().run_in_user_mode(&[0xe590_0000], address, 0);
        ensure!(fault.is_some_and(|fault| fault.kind == Kind::DataAbort), address);
    }
    Ok(())
}

pub fn firmware_is_asked_for_everything() -> Verdict {
    // All of PSCI but what ends this vCPU or this domain, in both widths; all owners.
    let ends = [psci::CPU_OFF, psci::SYSTEM_OFF, psci::SYSTEM_RESET, 0x8400_0012, 0x8400_000e];
    for function in
        (0x8400_0000_u32..0x8400_0020).chain(0xc400_0000..0xc400_0020).filter(|id| !ends.contains(&(id & !(1 << 30))))
    {
        // Suspend: with something pending it comes back.
        gic::send_sgi(gic::Target::Myself, 1);
        for [a, b, c] in [[u32::MAX; 3], [0x7fff_fff0, 1, 2], [4, 0xffff_ffff, 0], [0x100, 0, 0]] {
            psci::call_by_hvc(function, a, b, c);
            psci::call_by_smc(function, a, b, c);
        }
    }
    for owner in 0..64_u32 {
        for kind in [0x8000_0000, 0xc000_0000, 0x0000_0000, 0x4000_0000_u32] {
            for function in [0, 1, 0xff00, 0xff01, 0xff03, 0xffff] {
                let id = kind | owner << 24 | function;
                // PSCI, and what version 0.1 had in its place: CPU_OFF is 1 there.
                if owner != 4 && id > 3 {
                    psci::call_by_smc(id, 0, 0, 0);
                }
            }
        }
    }
    quiet();
    Ok(())
}

pub fn vcpus_are_started_where_there_is_nothing() -> Verdict {
    for target in [4, 5, 255, 0x100, 0x0100_0000, 0x8000_0000, u32::MAX] {
        ensure!(psci::call(psci::CPU_ON, target, 0x4000_8000, 0) < 0, target);
        for level in [0, 1, 2, 3, 4, u32::MAX] {
            ensure!(psci::call(psci::AFFINITY_INFO, target, level, 0) < 2, target);
        }
    }
    // Itself, that is on.
    ensure!(psci::call(psci::CPU_ON, 0, 0x4000_8000, 0) < 0);
    for id in (0..0x40).chain([0x7fff_ffff, 0x8400_0003, 0x8000_0000, u32::MAX]) {
        psci::call(psci::FEATURES, id, 0, 0);
    }
    Ok(())
}

pub fn halves_of_registers_together() -> Verdict {
    let mut random = Random::new(61);
    for _ in 0..400 {
        let offset = random.below(0xf00) & !1;
        let address = distributor(offset);
        if random.below(2) == 0 {
            access(&[STORE_HALF], address, random.word()).ok();
        } else {
            access(&[LOAD_HALF, LOAD_BYTE], address, 0).ok();
        }
    }
    quiet();
    // A priority may be written as a word or in bytes.
    for intid in 0..16 {
        write8(distributor(gic::IPRIORITYR + intid), 0x50);
        ensure_eq!(read8(distributor(gic::IPRIORITYR + intid)), 0x50, intid);
    }
    let _ = (read16 as fn(u32) -> u32, write16 as fn(u32, u32), code::RETURN);
    quiet();
    Ok(())
}
