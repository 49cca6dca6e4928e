use super::{
    Identity, Untranslated, VcpuRegs, decode_par, has_async_abort, is_guest_mode, raise_async_abort,
};
use crate::addr::Gfn;

#[test]
fn no_guest_is_ever_in_hyp_or_monitor_mode() {
    assert!(!is_guest_mode(0x1A) && !is_guest_mode(0x16) && !is_guest_mode(0));
    assert!(is_guest_mode(0x4000_01D3));
}

#[test]
fn a_guest_s_registers_go_and_come_with_it() {
    let identity = Identity::default();
    let (mut one, mut other) = (VcpuRegs::reset(0), VcpuRegs::reset(0));
    (one.system.teecr, one.system.teehbr, one.system.dacr) = (1, 0x1234_5678, 7);
    one.load(&identity, 0);
    one.save();
    other.load(&identity, 0);
    other.save();
    let system = &other.system;
    assert_eq!((system.teecr, system.teehbr, system.dacr), (0, 0, 0));
    one.load(&identity, 0);
    other.save();
    let system = &other.system;
    assert_eq!(
        (system.teecr, system.teehbr, system.dacr),
        (1, 0x1234_5678, 7)
    );
}

#[test]
fn an_asynchronous_abort_goes_and_comes_with_its_guest() {
    let identity = Identity::default();
    let (mut one, other) = (VcpuRegs::reset(0), VcpuRegs::reset(0));
    one.load(&identity, 0);
    raise_async_abort();
    assert!(has_async_abort());
    one.save();
    other.load(&identity, 0);
    assert!(!has_async_abort(), "it is the other guest's");
    one.load(&identity, 0);
    assert!(has_async_abort());
    // The hardware clears the bit when the guest takes the abort.
    super::take_async_abort();
    one.save();
    one.load(&identity, 0);
    assert!(!has_async_abort(), "it is taken once");
}

#[test]
fn translations_are_read_in_all_three_formats() {
    let frame = |par, va| decode_par(par, va).map(Gfn::raw);
    assert_eq!(frame(0xFF_8765_4800, 0x123), Ok(0xFF8_7654));
    assert_eq!(frame(0x1234_5000, 0xABC), Ok(0x1_2345));
    assert_eq!(frame(0x1201_0002, 0x00AB_CDEF), Ok(0x011_2ABC));
    for short_or_stage_1 in [1, 0x201, 0x801] {
        assert_eq!(frame(short_or_stage_1, 0), Err(Untranslated::ByGuest));
    }
    assert_eq!(frame(0xA01, 0), Err(Untranslated::TablesMissing));
}
