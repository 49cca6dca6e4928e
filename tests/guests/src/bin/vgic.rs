//! The virtual GICv2: the distributor's registers one by one, then delivery (IHI 0048B chapters 3 and 4, abi.md 9.3).
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guests::exception::{Kind, Probe, catch};
use guests::gic::{self, INTID_MASK, PRIORITY_DEFAULT, SPURIOUS, Target, distributor, send_sgi};
use guests::harness::Verdict;
use guests::{clock, cp15, ensure, ensure_eq, interrupt, mmio, platform, smp, suite};

suite! { "vgic":
    ctlr_keeps_the_enable_bit_only,
    typer_tells_vcpus_and_lines,
    iidr_identifies_an_arm_gic_400,
    read_only_registers_ignore_writes,
    group_and_non_secure_registers_are_zero,
    enable_registers_set_and_clear_by_ones,
    enable_bits_of_ppis_are_banked,
    enable_bits_beyond_the_last_line_are_zero,
    priorities_are_bytes_in_words,
    priorities_keep_five_bits,
    targets_of_sgis_and_ppis_are_the_reader,
    targets_of_spis_are_bytes_in_words,
    configuration_of_sgis_is_edge_and_fixed,
    configuration_of_spis_is_writable,
    reserved_registers_are_zero,
    identification_register_tells_version_two,
    word_registers_refuse_narrow_accesses,
    byte_registers_refuse_halfword_accesses,
    clearing_active_bits_is_accepted,

    an_sgi_to_oneself_is_taken_once,
    an_sgi_by_list_is_taken_once,
    all_sixteen_sgis_are_distinct,
    an_sgi_to_others_is_not_taken_here,
    an_sgi_to_an_empty_or_absent_list_goes_nowhere,
    an_sgi_reaches_another_vcpu,
    an_sgi_tells_its_source,
    an_sgi_to_several_reaches_all,
    sgis_can_be_set_and_cleared_by_register,

    an_interrupt_set_pending_is_taken_once,
    nothing_pending_acknowledges_as_spurious,
    the_end_of_an_interrupt_that_never_was_is_ignored,
    a_disabled_interrupt_waits_for_its_enable,
    an_interrupt_disabled_before_it_is_taken_waits,
    a_pending_bit_that_is_cleared_is_not_taken,
    pending_state_is_readable,
    active_state_is_readable,
    a_disabled_distributor_delivers_nothing,
    an_interrupt_set_pending_in_its_handler_comes_again,
    four_interrupts_come_in_order_of_priority,
    more_interrupts_than_list_registers_come_in_order_of_priority,
    a_changed_priority_counts_from_the_next_time,
    more_interrupts_than_list_registers_come_once_each,
    a_mask_holds_back_lower_priorities,
    a_higher_priority_preempts_a_handler,
    an_equal_priority_does_not_preempt_a_handler,
    a_dropped_interrupt_comes_again_after_its_deactivation,
    an_spi_goes_to_its_target,
    an_spi_follows_its_new_target,
}

/// PPIs that no device has: dom0's upcall is the first that the host's tree leaves free, the timers begin at 26.
const PPIS: [u32; 8] = [17, 18, 19, 20, 21, 22, 23, 24];
const PPI: u32 = PPIS[0];

/// An SPI that no device of the virt board has, so that a hypervisor does not route it.
const SPI: u32 = 201;

fn has_spis() -> bool {
    mmio::read32(distributor(gic::TYPER)) & 0x1f >= SPI / 32
}

/// Puts the tests' interrupts into the state that each begins with: disabled, default priority, none taken.
fn fresh() {
    mmio::write32(distributor(gic::CTLR), 1);
    gic::set_priority_mask(0xff);
    for intid in PPIS {
        gic::enable(intid);
    }
    // Whatever an earlier test left pending ends here.
    interrupt::settle();
    for intid in PPIS {
        gic::disable(intid);
        gic::set_priority(intid, PRIORITY_DEFAULT);
    }
    interrupt::reset();
}

extern "C" fn read_byte(address: u32, _: u32) -> u32 {
    mmio::read8(address)
}

extern "C" fn read_halfword(address: u32, _: u32) -> u32 {
    mmio::read16(address)
}

extern "C" fn read_word(address: u32, _: u32) -> u32 {
    mmio::read32(address)
}

extern "C" fn write_byte(address: u32, value: u32) -> u32 {
    mmio::write8(address, value);
    0
}

extern "C" fn write_halfword(address: u32, value: u32) -> u32 {
    mmio::write16(address, value);
    0
}

extern "C" fn write_word(address: u32, value: u32) -> u32 {
    mmio::write32(address, value);
    0
}

fn aborts(probe: Probe, offset: u32) -> bool {
    matches!(catch(probe, distributor(offset), 0), Err(fault) if fault.kind == Kind::DataAbort)
}

fn ctlr_keeps_the_enable_bit_only() -> Verdict {
    fresh();
    for (written, kept) in [(u32::MAX, 1), (0, 0), (2, 0), (1, 1)] {
        mmio::write32(distributor(gic::CTLR), written);
        ensure_eq!(mmio::read32(distributor(gic::CTLR)), kept, written);
    }
    Ok(())
}

fn typer_tells_vcpus_and_lines() -> Verdict {
    let typer = mmio::read32(distributor(gic::TYPER));
    ensure_eq!((typer >> 5 & 7) + 1, platform::get().cpus);
    // No security extensions, no lockable SPIs.
    ensure_eq!(typer >> 8, 0);
    Ok(())
}

fn iidr_identifies_an_arm_gic_400() -> Verdict {
    ensure_eq!(mmio::read32(distributor(gic::IIDR)), 0x43b);
    Ok(())
}

fn read_only_registers_ignore_writes() -> Verdict {
    for offset in [gic::TYPER, gic::IIDR, gic::ITARGETSR, gic::ITARGETSR + 28, gic::ICFGR] {
        let before = mmio::read32(distributor(offset));
        ensure!(catch(write_word, distributor(offset), !before).is_ok(), offset);
        ensure_eq!(mmio::read32(distributor(offset)), before, offset);
    }
    Ok(())
}

fn group_and_non_secure_registers_are_zero() -> Verdict {
    for offset in [gic::IGROUPR, gic::IGROUPR + 4, gic::NSACR, gic::NSACR + 0x3c] {
        mmio::write32(distributor(offset), u32::MAX);
        ensure_eq!(mmio::read32(distributor(offset)), 0, offset);
    }
    Ok(())
}

fn enable_registers_set_and_clear_by_ones() -> Verdict {
    fresh();
    let others = mmio::read32(distributor(gic::ISENABLER));
    gic::enable(PPIS[1]);
    gic::enable(PPIS[3]);
    let enabled = others | 1 << PPIS[1] | 1 << PPIS[3];
    mmio::write32(distributor(gic::ISENABLER), 0);
    ensure_eq!(mmio::read32(distributor(gic::ISENABLER)), enabled);
    ensure_eq!(mmio::read32(distributor(gic::ICENABLER)), enabled);
    mmio::write32(distributor(gic::ICENABLER), 0);
    gic::disable(PPIS[1]);
    ensure_eq!(mmio::read32(distributor(gic::ISENABLER)), enabled & !(1 << PPIS[1]));
    Ok(())
}

/// The value that vCPU 1 found.
static FOUND: AtomicU32 = AtomicU32::new(0);

fn enable_bits_of_ppis_are_banked() -> Verdict {
    fresh();
    gic::enable(PPI);
    ensure!(smp::run_on(1, || {
        FOUND.store(u32::from(gic::bit(gic::ISENABLER, PPI)), Ordering::SeqCst);
        gic::enable(PPIS[1]);
    }));
    ensure_eq!(FOUND.load(Ordering::SeqCst), 0);
    ensure!(!gic::bit(gic::ISENABLER, PPIS[1]));
    Ok(())
}

fn enable_bits_beyond_the_last_line_are_zero() -> Verdict {
    let words = (mmio::read32(distributor(gic::TYPER)) & 0x1f) + 1;
    for word in words..32 {
        mmio::write32(distributor(gic::ISENABLER + word * 4), u32::MAX);
        ensure_eq!(mmio::read32(distributor(gic::ISENABLER + word * 4)), 0, word);
    }
    Ok(())
}

fn priorities_are_bytes_in_words() -> Verdict {
    fresh();
    let base = distributor(gic::IPRIORITYR + 20);
    mmio::write32(base, 0x4838_2818);
    for (index, priority) in [0x18, 0x28, 0x38, 0x48].into_iter().enumerate() {
        ensure_eq!(mmio::read8(base + index as u32), priority, index);
    }
    mmio::write8(base + 2, 0x98);
    ensure_eq!(mmio::read32(base), 0x4898_2818_u32);
    Ok(())
}

fn priorities_keep_five_bits() -> Verdict {
    fresh();
    for priority in (0..=0xf8).step_by(8) {
        gic::set_priority(PPI, priority);
        ensure_eq!(mmio::read8(distributor(gic::IPRIORITYR + PPI)), priority);
    }
    Ok(())
}

fn targets_of_sgis_and_ppis_are_the_reader() -> Verdict {
    for offset in (0..32).step_by(4) {
        ensure_eq!(mmio::read32(distributor(gic::ITARGETSR + offset)), 0x0101_0101, offset);
    }
    ensure!(smp::run_on(1, || FOUND.store(mmio::read32(distributor(gic::ITARGETSR + 4)), Ordering::SeqCst)));
    ensure_eq!(FOUND.load(Ordering::SeqCst), 0x0202_0202);
    Ok(())
}

fn targets_of_spis_are_bytes_in_words() -> Verdict {
    if !has_spis() {
        return Ok(());
    }
    let base = distributor(gic::ITARGETSR + (SPI & !3));
    mmio::write32(base, 0x0201_0201);
    ensure_eq!(mmio::read32(base), 0x0201_0201);
    mmio::write8(base + 1, 1);
    ensure_eq!(mmio::read8(base + 1), 1);
    ensure_eq!(mmio::read32(base), 0x0201_0101);
    mmio::write32(base, 0x0101_0101);
    Ok(())
}

fn configuration_of_sgis_is_edge_and_fixed() -> Verdict {
    mmio::write32(distributor(gic::ICFGR), 0);
    ensure_eq!(mmio::read32(distributor(gic::ICFGR)), 0xaaaa_aaaa_u32);
    Ok(())
}

fn configuration_of_spis_is_writable() -> Verdict {
    if !has_spis() {
        return Ok(());
    }
    let register = distributor(gic::ICFGR + SPI / 16 * 4);
    for value in [0xaaaa_aaaa_u32, 0, 0x8888_8888] {
        mmio::write32(register, value);
        ensure_eq!(mmio::read32(register) & 0xaaaa_aaaa, value, value);
    }
    mmio::write32(register, 0);
    Ok(())
}

fn reserved_registers_are_zero() -> Verdict {
    for offset in [0x00c, 0x01c, 0x020, 0x03c, 0x040, 0x07c, 0x7fc, 0xbfc, 0xd00, 0xdfc, 0xf04, 0xf0c, 0xf30, 0xfcc] {
        ensure!(catch(write_word, distributor(offset), u32::MAX).is_ok(), offset);
        ensure_eq!(catch(read_word, distributor(offset), 0).unwrap_or(u32::MAX), 0, offset);
    }
    Ok(())
}

fn identification_register_tells_version_two() -> Verdict {
    // ICPIDR2.ArchRev (IHI 0048B 4.3.18).
    ensure_eq!(catch(read_word, distributor(gic::ICPIDR2), 0).unwrap_or(0) >> 4 & 0xf, 2);
    Ok(())
}

fn word_registers_refuse_narrow_accesses() -> Verdict {
    for offset in [gic::CTLR, gic::TYPER, gic::ISENABLER, gic::ICENABLER, gic::ICFGR] {
        ensure!(aborts(read_byte, offset) && aborts(read_halfword, offset), offset);
        ensure!(aborts(write_byte, offset) && aborts(write_halfword, offset), offset);
    }
    ensure!(aborts(write_byte, gic::SGIR));
    Ok(())
}

fn byte_registers_refuse_halfword_accesses() -> Verdict {
    for offset in [gic::IPRIORITYR + 20, gic::ITARGETSR + 32] {
        ensure!(aborts(read_halfword, offset) && aborts(write_halfword, offset), offset);
    }
    Ok(())
}

fn clearing_active_bits_is_accepted() -> Verdict {
    // Linux does so for every line at boot.
    for word in 0..9 {
        ensure!(catch(write_word, distributor(gic::ICACTIVER + word * 4), u32::MAX).is_ok(), word);
    }
    Ok(())
}

const SGI: u32 = 3;

fn an_sgi_to_oneself_is_taken_once() -> Verdict {
    fresh();
    send_sgi(Target::Myself, SGI);
    ensure!(interrupt::comes(SGI, 1));
    ensure_eq!(interrupt::total_on(0), 1);
    Ok(())
}

fn an_sgi_by_list_is_taken_once() -> Verdict {
    fresh();
    send_sgi(Target::List(1), SGI);
    ensure!(interrupt::comes(SGI, 1));
    ensure_eq!(interrupt::total_on(0), 1);
    Ok(())
}

fn all_sixteen_sgis_are_distinct() -> Verdict {
    fresh();
    for intid in 0..16 {
        send_sgi(Target::Myself, intid);
        ensure!(interrupt::comes(intid, 1), intid);
    }
    ensure_eq!(interrupt::total_on(0), 16);
    Ok(())
}

fn an_sgi_to_others_is_not_taken_here() -> Verdict {
    fresh();
    send_sgi(Target::Others, SGI);
    send_sgi(Target::List(2), SGI);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}

fn an_sgi_to_an_empty_or_absent_list_goes_nowhere() -> Verdict {
    fresh();
    for list in [0, 0x80, 0xfc] {
        ensure!(catch(write_word, distributor(gic::SGIR), list << 16 | SGI).is_ok(), list);
    }
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}

static READY: AtomicU32 = AtomicU32::new(0);

/// Runs on vCPU 1: says that it is ready and takes one interrupt of any kind.
fn take_one() {
    READY.store(1, Ordering::SeqCst);
    cp15::enable_interrupts();
    let taken = clock::poll(|| interrupt::total_on(1) != 0);
    clock::delay(interrupt::SETTLE_US);
    cp15::disable_interrupts();
    FOUND.store(if taken { interrupt::acknowledged_on(1, 0) } else { SPURIOUS }, Ordering::SeqCst);
}

/// Starts `take_one` on vCPU 1, calls `send` once it is ready; what it acknowledged, if just one.
fn other_takes(send: fn()) -> Option<u32> {
    READY.store(0, Ordering::SeqCst);
    if smp::start(1, take_one) != 0 || !clock::poll(|| READY.load(Ordering::SeqCst) == 1) {
        return None;
    }
    send();
    (smp::goes_off(1) && interrupt::total_on(1) == 1).then(|| FOUND.load(Ordering::SeqCst))
}

fn an_sgi_reaches_another_vcpu() -> Verdict {
    fresh();
    for send in [|| send_sgi(Target::List(2), SGI), || send_sgi(Target::Others, SGI)] {
        ensure_eq!(other_takes(send).map_or(SPURIOUS, |value| value & INTID_MASK), SGI);
    }
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}

fn an_sgi_tells_its_source() -> Verdict {
    fresh();
    // GICC_IAR.CPUID, bits [12:10] (IHI 0048B 4.4.4).
    ensure!(smp::run_on(1, || send_sgi(Target::List(1), SGI)));
    ensure!(interrupt::comes(SGI, 1));
    ensure_eq!(interrupt::acknowledged_on(0, 0), 1 << 10 | SGI);
    Ok(())
}

fn an_sgi_to_several_reaches_all() -> Verdict {
    fresh();
    ensure_eq!(other_takes(|| send_sgi(Target::List(3), SGI)).map_or(SPURIOUS, |value| value & INTID_MASK), SGI);
    ensure!(interrupt::comes(SGI, 1));
    Ok(())
}

fn sgis_can_be_set_and_cleared_by_register() -> Verdict {
    fresh();
    // One byte per SGI, one bit per source (IHI 0048B 4.3.16-17).
    ensure!(catch(write_byte, distributor(gic::SPENDSGIR + SGI), 1).is_ok());
    ensure_eq!(mmio::read8(distributor(gic::SPENDSGIR + SGI)), 1);
    ensure!(catch(write_byte, distributor(gic::CPENDSGIR + SGI), 1).is_ok());
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    ensure!(catch(write_byte, distributor(gic::SPENDSGIR + SGI), 1).is_ok());
    ensure!(interrupt::comes(SGI, 1));
    Ok(())
}

fn an_interrupt_set_pending_is_taken_once() -> Verdict {
    fresh();
    gic::enable(PPI);
    for round in 1..=3 {
        gic::write_bit(gic::ISPENDR, PPI);
        ensure!(interrupt::comes(PPI, round), round);
    }
    ensure_eq!(interrupt::total_on(0), 3);
    Ok(())
}

fn nothing_pending_acknowledges_as_spurious() -> Verdict {
    fresh();
    ensure_eq!(gic::acknowledge(), SPURIOUS);
    ensure_eq!(gic::highest_pending(), SPURIOUS);
    Ok(())
}

fn the_end_of_an_interrupt_that_never_was_is_ignored() -> Verdict {
    fresh();
    gic::end(PPI);
    gic::end(SPI);
    gic::enable(PPI);
    gic::write_bit(gic::ISPENDR, PPI);
    ensure!(interrupt::comes(PPI, 1));
    Ok(())
}

fn a_disabled_interrupt_waits_for_its_enable() -> Verdict {
    fresh();
    gic::write_bit(gic::ISPENDR, PPI);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    gic::enable(PPI);
    ensure!(interrupt::comes(PPI, 1));
    Ok(())
}

fn an_interrupt_disabled_before_it_is_taken_waits() -> Verdict {
    fresh();
    gic::enable(PPI);
    gic::write_bit(gic::ISPENDR, PPI);
    gic::disable(PPI);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    gic::enable(PPI);
    ensure!(interrupt::comes(PPI, 1));
    Ok(())
}

fn a_pending_bit_that_is_cleared_is_not_taken() -> Verdict {
    fresh();
    gic::enable(PPI);
    gic::write_bit(gic::ISPENDR, PPI);
    gic::write_bit(gic::ICPENDR, PPI);
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}

fn pending_state_is_readable() -> Verdict {
    fresh();
    gic::write_bit(gic::ISPENDR, PPI);
    ensure!(gic::bit(gic::ISPENDR, PPI) && gic::bit(gic::ICPENDR, PPI));
    gic::enable(PPI);
    ensure!(interrupt::comes(PPI, 1));
    ensure!(!gic::bit(gic::ISPENDR, PPI));
    Ok(())
}

fn active_state_is_readable() -> Verdict {
    fresh();
    gic::enable(PPI);
    gic::write_bit(gic::ISPENDR, PPI);
    interrupt::set_hook(|_| FOUND.store(u32::from(gic::bit(gic::ISACTIVER, PPI)), Ordering::SeqCst));
    ensure!(interrupt::comes(PPI, 1));
    ensure_eq!(FOUND.load(Ordering::SeqCst), 1);
    ensure!(!gic::bit(gic::ISACTIVER, PPI));
    Ok(())
}

fn a_disabled_distributor_delivers_nothing() -> Verdict {
    fresh();
    gic::enable(PPI);
    mmio::write32(distributor(gic::CTLR), 0);
    gic::write_bit(gic::ISPENDR, PPI);
    interrupt::settle();
    let early = interrupt::total_on(0);
    mmio::write32(distributor(gic::CTLR), 1);
    ensure_eq!(early, 0);
    ensure!(interrupt::comes(PPI, 1));
    Ok(())
}

fn an_interrupt_set_pending_in_its_handler_comes_again() -> Verdict {
    fresh();
    gic::enable(PPI);
    interrupt::set_hook(|_| {
        if interrupt::count(PPI) == 1 {
            gic::write_bit(gic::ISPENDR, PPI);
        }
    });
    gic::write_bit(gic::ISPENDR, PPI);
    ensure!(interrupt::comes(PPI, 2));
    Ok(())
}

/// Makes PPIs with these priorities pending in this order; whether they come by priority. The priorities differ.
fn come_by_priority(priorities: &[u32]) -> Verdict {
    fresh();
    for (&intid, &priority) in PPIS.iter().zip(priorities) {
        gic::set_priority(intid, priority);
        gic::enable(intid);
        gic::write_bit(gic::ISPENDR, intid);
    }
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), priorities.len());
    let mut last = 0;
    for place in 0..priorities.len() {
        let priority = priorities[(interrupt::acknowledged_on(0, place) - PPIS[0]) as usize];
        ensure!(priority > last, place);
        last = priority;
    }
    Ok(())
}

fn four_interrupts_come_in_order_of_priority() -> Verdict {
    come_by_priority(&[0x50, 0x20, 0x80, 0x30])
}

fn more_interrupts_than_list_registers_come_in_order_of_priority() -> Verdict {
    come_by_priority(&[0x50, 0x20, 0x80, 0x30, 0x70, 0x10, 0x60, 0x40])
}

fn a_changed_priority_counts_from_the_next_time() -> Verdict {
    fresh();
    gic::set_priority(PPIS[0], 0x80);
    gic::set_priority(PPIS[1], 0x60);
    gic::set_priority(PPIS[0], 0x40);
    for intid in [PPIS[1], PPIS[0]] {
        gic::enable(intid);
        gic::write_bit(gic::ISPENDR, intid);
    }
    interrupt::settle();
    ensure_eq!(interrupt::acknowledged_on(0, 0), PPIS[0]);
    ensure_eq!(interrupt::acknowledged_on(0, 1), PPIS[1]);
    Ok(())
}

fn more_interrupts_than_list_registers_come_once_each() -> Verdict {
    fresh();
    // The A15 has four list registers (DDI 0438 8.3); 24 interrupts need the hypervisor's queue and its refill.
    for intid in PPIS {
        gic::enable(intid);
        gic::write_bit(gic::ISPENDR, intid);
    }
    for intid in 0..16 {
        send_sgi(Target::Myself, intid);
    }
    cp15::enable_interrupts();
    let all = clock::poll(|| interrupt::total_on(0) >= 24);
    clock::delay(interrupt::SETTLE_US);
    cp15::disable_interrupts();
    ensure!(all);
    ensure_eq!(interrupt::total_on(0), 24);
    for intid in (0..16).chain(PPIS) {
        ensure_eq!(interrupt::count(intid), 1, intid);
    }
    Ok(())
}

fn a_mask_holds_back_lower_priorities() -> Verdict {
    fresh();
    gic::set_priority(PPIS[0], 0x80);
    gic::set_priority(PPIS[1], 0x40);
    gic::set_priority_mask(0x80);
    for intid in [PPIS[0], PPIS[1]] {
        gic::enable(intid);
        gic::write_bit(gic::ISPENDR, intid);
    }
    interrupt::settle();
    ensure_eq!(interrupt::total_on(0), 1);
    ensure_eq!(interrupt::acknowledged_on(0, 0), PPIS[1]);
    gic::set_priority_mask(0xff);
    ensure!(interrupt::comes(PPIS[0], 1));
    Ok(())
}

/// Within the handler of PPIS[0]: makes PPIS[1] pending, opens the CPSR mask for a moment, and notes what came.
fn provoke_preemption(acknowledged: u32) {
    if acknowledged & INTID_MASK == PPIS[0] {
        gic::write_bit(gic::ISPENDR, PPIS[1]);
        interrupt::settle();
        FOUND.store(interrupt::count(PPIS[1]) as u32, Ordering::SeqCst);
    }
}

/// How often PPIS[1] came within the handler of PPIS[0], given its priority.
fn preemptions(priority: u32) -> u32 {
    fresh();
    gic::set_priority(PPIS[1], priority);
    gic::enable(PPIS[0]);
    gic::enable(PPIS[1]);
    interrupt::set_hook(provoke_preemption);
    gic::write_bit(gic::ISPENDR, PPIS[0]);
    interrupt::settle();
    FOUND.load(Ordering::SeqCst)
}

fn a_higher_priority_preempts_a_handler() -> Verdict {
    ensure_eq!(preemptions(0x20), 1);
    ensure_eq!(interrupt::total_on(0), 2);
    Ok(())
}

fn an_equal_priority_does_not_preempt_a_handler() -> Verdict {
    ensure_eq!(preemptions(PRIORITY_DEFAULT), 0);
    ensure_eq!(interrupt::count(PPIS[1]), 1);
    Ok(())
}

fn a_dropped_interrupt_comes_again_after_its_deactivation() -> Verdict {
    fresh();
    gic::enable(PPI);
    gic::set_end_mode(gic::EndMode::Drop);
    gic::write_bit(gic::ISPENDR, PPI);
    interrupt::settle();
    gic::write_bit(gic::ISPENDR, PPI);
    interrupt::settle();
    let while_active = interrupt::count(PPI);
    gic::deactivate(PPI);
    interrupt::settle();
    let after = interrupt::count(PPI);
    gic::deactivate(PPI);
    gic::set_end_mode(gic::EndMode::DropAndDeactivate);
    ensure_eq!(while_active, 1);
    ensure_eq!(after, 2);
    Ok(())
}

fn an_spi_goes_to_its_target() -> Verdict {
    if !has_spis() {
        return Ok(());
    }
    fresh();
    gic::set_priority(SPI, PRIORITY_DEFAULT);
    gic::set_targets(SPI, 1);
    gic::enable(SPI);
    gic::write_bit(gic::ISPENDR, SPI);
    let taken = interrupt::comes(SPI, 1);
    gic::disable(SPI);
    ensure!(taken);
    Ok(())
}

fn an_spi_follows_its_new_target() -> Verdict {
    if !has_spis() {
        return Ok(());
    }
    fresh();
    gic::set_priority(SPI, PRIORITY_DEFAULT);
    gic::enable(SPI);
    gic::set_targets(SPI, 2);
    let taken = other_takes(|| gic::write_bit(gic::ISPENDR, SPI));
    gic::set_targets(SPI, 1);
    gic::disable(SPI);
    ensure_eq!(taken.unwrap_or(SPURIOUS), SPI);
    ensure_eq!(interrupt::total_on(0), 0);
    Ok(())
}
