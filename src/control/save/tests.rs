use std::sync::Arc;

use armv7::addr::Gfn;

use super::{Plan, collect, header, may_be_saved, shape};
use crate::domain::guest_map::Layout;
use crate::domain::testing::{NO_TLB, guest};
use crate::domain::uart::open_on_console;
use crate::domain::{Domain, Life, Rights, registry};
use crate::error::Errno;
use crate::event::{Binding, Port};
use crate::id::DomId;
use crate::save::{Image, Type, Wrong, image};
use crate::time::{Purpose, Timer};
use crate::vcpu::{GuestCopy, Vcpu};

/// A domain with three pages, its vCPU, and values of its own in every register.
fn filled() -> (Arc<Domain>, Arc<Vcpu>) {
    let (domain, vcpu) = empty();
    let mut registers = vcpu.registers.lock();
    let mut next = 0x0200_0000;
    let mut fill = |word: &mut u32| {
        *word = next;
        next += 1;
    };
    registers.context.each_word(&mut fill);
    registers.cpu.each_cpu_word(&mut fill);
    registers.cpu.each_vfp_word(&mut fill);
    registers.context.cpsr = 0x1D3;
    drop(registers);
    let page = domain.pin(7).unwrap();
    let registered = domain.events.lock().register_vcpu_info(0, page, 64);
    domain.notify(registered.unwrap());
    domain.state.lock().vcpu_info[0] = Some((Gfn::new(7).unwrap(), 64));
    let pages = [8, 9].map(|gfn| domain.pin(gfn).ok());
    let gfns = [8, 9].map(Gfn::new);
    let copy = GuestCopy::new(pages, gfns, 4090);
    vcpu.runstate.lock().register(Some(copy));
    domain.state.lock().runstate_flag = true;
    (domain, vcpu)
}

fn empty() -> (Arc<Domain>, Arc<Vcpu>) {
    let (domain, vcpu) = guest(Rights::GUEST, NO_TLB, &[7, 8, 9]);
    domain.set_vcpus(vec![vcpu.clone()]);
    (domain, vcpu)
}

/// Returns the image of a domain, once no other test manages domains.
fn image_of(domain: &Domain) -> Vec<u32> {
    loop {
        if let Some(words) = collect(domain).unwrap() {
            return words;
        }
    }
}

fn set(domain: &Domain, words: &[u32]) -> Result<(), Wrong> {
    let shape = shape(domain);
    let image: Image<'_> = image(words, shape, &header(shape))?;
    let plan = Plan::new(domain, &image)?;
    plan.carry_out(domain, &image);
    Ok(())
}

/// Returns where the body of a record begins.
fn body(words: &[u32], kind: Type) -> usize {
    let mut at = 0;
    while words[at] != kind as u32 {
        at += 2 + words[at + 1] as usize / 4;
    }
    at + 2
}

#[test]
fn a_domain_made_of_an_image_has_the_same_image() {
    let (from, _vcpu) = filled();
    let (to, vcpu) = empty();
    let first = image_of(&from);
    set(&to, &first).unwrap();
    assert!(!vcpu.is_online());
    let mut second = image_of(&to);
    // The counter and the time of day have gone on, and the timer with them.
    let domain = body(&first, Type::Domain);
    assert!(second[domain..domain + 4] >= first[domain..domain + 4]);
    second[domain..domain + 4].copy_from_slice(&first[domain..domain + 4]);
    let state = body(&first, Type::Vcpu);
    second[state + 6..state + 8].copy_from_slice(&first[state + 6..state + 8]);
    // An upcall is pending at the new one, which tells it to look.
    let interrupts = body(&first, Type::Interrupts);
    second[interrupts + 1] = first[interrupts + 1];
    assert_eq!(first, second);
    let place = vcpu.runstate.lock().place();
    assert_eq!(place, Some(([8, 9].map(Gfn::new), 4090)));
    for domain in [from, to] {
        registry::remove(domain.id);
    }
}

#[test]
fn an_image_that_names_what_is_not_there_changes_nothing() {
    let (from, _vcpu) = filled();
    let (to, vcpu) = empty();
    let good = image_of(&from);
    let before = image_of(&to);
    let state = body(&good, Type::Vcpu);
    let faults: [(usize, u32, Type); 9] = [
        // CPSR in Hyp mode.
        (body(&good, Type::Cpu) + 15, 0x1DA, Type::Cpu),
        (state + 8, 1 << 5, Type::Vcpu),
        (state + 10, 6, Type::Vcpu),
        (state + 11, 4092, Type::Vcpu),
        (state + 12, 6, Type::Vcpu),
        (state + 13, 5, Type::Vcpu),
        (state + 14, u32::MAX, Type::Vcpu),
        (body(&good, Type::Domain) + 4, 9, Type::Domain),
        (body(&good, Type::Interrupts), 0, Type::Interrupts),
    ];
    for (at, word, kind) in faults {
        let mut damaged = good.clone();
        damaged[at] = word;
        let wrong = set(&to, &damaged).unwrap_err();
        assert_eq!(wrong.kind, kind as u32, "word {at}: {wrong}");
        let mut now = image_of(&to);
        let domain = body(&now, Type::Domain);
        now[domain..domain + 4].copy_from_slice(&before[domain..domain + 4]);
        let state = body(&now, Type::Vcpu);
        now[state + 6..state + 8].copy_from_slice(&before[state + 6..state + 8]);
        assert_eq!(now, before, "word {at}");
        assert_eq!(vcpu.runstate.lock().place(), None);
    }
    for domain in [from, to] {
        registry::remove(domain.id);
    }
}

/// Returns an image with a record of ports.
fn with_ports(image: &[u32], ports: &[u32]) -> Vec<u32> {
    let (records, end) = image.split_at(image.len() - 2);
    let descriptor = [Type::Ports as u32, 4 * ports.len() as u32];
    [records, &descriptor, ports, end].concat()
}

#[test]
fn ports_come_with_an_image_that_has_them_and_a_wrong_one_changes_nothing() {
    let (from, _vcpu) = filled();
    let (to, vcpu) = empty();
    let good = image_of(&from);
    let wrong = set(&to, &with_ports(&good, &[0, 0, 5, 0, 9, 0])).unwrap_err();
    assert_eq!((wrong.kind, wrong.instance), (Type::Ports as u32, 2));
    let status = |port| to.events.lock().status(Port(port)).unwrap().binding;
    assert_eq!(status(1), Binding::Closed);
    assert_eq!(vcpu.runstate.lock().place(), None);
    let toolstacks = to.events.lock().alloc_unbound(DomId::DOM0).unwrap();
    assert_eq!(toolstacks, Port(1));
    set(&to, &with_ports(&good, &[0, 0, 1, 0, 5, 0])).unwrap();
    assert_eq!(status(2), Binding::Ipi);
    assert_eq!(to.events.lock().is_pending(Port(1)), Ok(true));
    assert_eq!(to.events.lock().is_pending(Port(2)), Ok(false));
    for domain in [from, to] {
        registry::remove(domain.id);
    }
}

#[test]
fn an_image_says_what_it_does_not_hold() {
    let (domain, _vcpu) = empty();
    let flags = |words: &[u32]| {
        let at = body(words, Type::Domain) + 7;
        [words[at], words[at + 1], words[at + 2]]
    };
    assert_eq!(flags(&image_of(&domain)), [0, 0, 0]);
    let page = domain.pin(9).unwrap();
    let control = domain.events.lock().init_control(0, page, 0);
    assert!(control.is_ok());
    let timer = Timer::new(Purpose::Watchdog(domain.id)).unwrap();
    domain.watchdogs.lock()[1] = Some(timer);
    assert_eq!(flags(&image_of(&domain)), [1, 1, 0]);
    registry::remove(domain.id);
}

#[test]
fn a_vcpu_that_is_being_switched_on_is_not_saved() {
    let (domain, vcpu) = empty();
    *vcpu.restart.lock() = Some((0x8000, 0));
    let refused = loop {
        match collect(&domain) {
            Ok(None) => {}
            other => break other,
        }
    };
    assert_eq!(refused, Err(Errno::Busy));
    *vcpu.restart.lock() = None;
    assert_eq!(vcpu.halted() & crate::vcpu::halt::INSPECTED, 0);
    registry::remove(domain.id);
}

#[test]
fn a_domain_with_more_than_the_records_hold_is_not_saved() {
    let (plain, _) = empty();
    assert!(may_be_saved(&plain));
    let (with_uart, _) = empty();
    open_on_console(&with_uart, &Layout::new().unwrap()).unwrap();
    assert!(!may_be_saved(&with_uart));
    let (without_vcpus, _) = guest(Rights::GUEST, NO_TLB, &[]);
    assert!(!may_be_saved(&without_vcpus));
    let (dying, _) = empty();
    dying.state.lock().life = Life::Dying;
    assert!(!may_be_saved(&dying));
    for domain in [plain, with_uart, without_vcpus, dying] {
        registry::remove(domain.id);
    }
}
