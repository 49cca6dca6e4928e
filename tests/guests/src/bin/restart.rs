//! Checks a domain that the hypervisor starts again when it ends (`krypton,restart-on`): each life is like the first one.
//!
//! It ends by PSCI, by a crash, and at last in a way after which it is not started again. Which life it is says memory that it
//! shares with a second domain. That one is the same image, told `role=second`: it answers and says nothing. Those that are told
//! `role=idle` do nothing.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use guests::abi::DOMID_SELF;
use guests::event::{self, STATUS_INTERDOMAIN, SharedInfo};
use guests::harness::{SHUTDOWN_CRASH, Verdict, expect, shut_down};
use guests::memory::{Frame, PAGE_SIZE};
use guests::{clock, cp15, ensure, ensure_eq, platform, psci, suite};

suite! { "restart":
    ram_is_zeroes,
    the_channel_is_connected,
    ports_beside_the_channel_are_free,
    the_other_domain_answers,
    it_comes_back_from_its_ends,
}

/// Addresses in the nodes that the runner writes.
const SHARED: u32 = 0xb000_0000;
const PORT: u32 = 10;
const PEER_PORT: u32 = 12;

/// Words of the shared memory: a question, its answer, and the number of lives that have ended.
const QUESTION: u32 = 0;
const ANSWER: u32 = 4;
const ENDED: u32 = 8;
const DIFFERENCE: u32 = 1000;

/// RAM that the image does not use: from 16 MiB on, for 8 MiB.
const FIRST: u32 = 16 << 20;
const PAGES: u32 = (8 << 20) / PAGE_SIZE;

fn word(offset: u32) -> &'static core::sync::atomic::AtomicU32 {
    Frame::at(SHARED).word(offset)
}

/// Answers for good if this is the second domain, and sleeps for good if it is one of those without work.
fn serve() {
    let is = |name| platform::get().arguments("role").any(|role| role == name);
    while is("idle") {
        cp15::wfi();
    }
    if !is("second") {
        return;
    }
    let Ok(info) = SharedInfo::map() else { return };
    loop {
        if info.pending(PEER_PORT) {
            info.clear_pending(PEER_PORT);
            let question = word(QUESTION).load(Ordering::SeqCst);
            word(ANSWER).store(question + DIFFERENCE, Ordering::SeqCst);
            event::send(PEER_PORT);
        }
    }
}

/// Leaves something else for the next life.
fn ram_is_zeroes() -> Verdict {
    serve();
    for page in 0..PAGES {
        let frame = Frame::at(platform::get().ram_base + FIRST + page * PAGE_SIZE);
        for offset in (0..PAGE_SIZE).step_by(64) {
            ensure_eq!(frame.read(offset), 0, frame.address() + offset);
            frame.write(offset, 0xa5a5_a5a5);
        }
    }
    Ok(())
}

fn the_channel_is_connected() -> Verdict {
    let status = expect(event::status(DOMID_SELF, PORT))?;
    ensure_eq!(status.status, STATUS_INTERDOMAIN);
    ensure_eq!(status.remote_port, PEER_PORT);
    Ok(())
}

/// They stay open.
fn ports_beside_the_channel_are_free() -> Verdict {
    for port in 1..PORT {
        ensure_eq!(expect(event::alloc_loopback())?, port);
    }
    Ok(())
}

fn the_other_domain_answers() -> Verdict {
    let info = expect(SharedInfo::map())?;
    for question in 1..=100 {
        word(QUESTION).store(question, Ordering::SeqCst);
        ensure_eq!(event::send(PORT), 0);
        ensure!(clock::poll(|| info.pending(PORT)), question);
        info.clear_pending(PORT);
        ensure_eq!(word(ANSWER).load(Ordering::SeqCst), question + DIFFERENCE, question);
    }
    Ok(())
}

fn it_comes_back_from_its_ends() -> Verdict {
    match word(ENDED).fetch_add(1, Ordering::SeqCst) {
        0 => {
            psci::call(psci::SYSTEM_RESET, 0, 0, 0);
        }
        1 => {
            shut_down(SHUTDOWN_CRASH);
        }
        ended => {
            ensure_eq!(ended, 2);
            return Ok(());
        }
    }
    ensure!(false);
    Ok(())
}
