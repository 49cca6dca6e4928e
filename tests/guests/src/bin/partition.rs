//! Checks a domain that the device tree starts by its node: RAM, interrupt controller and UART are at the machine's
//! addresses, it shares memory with a second domain, and has an event channel to it.
//!
//! The second domain is the same image, told `role=second`: it answers and says nothing.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use guests::abi::DOMID_SELF;
use guests::event::{self, STATUS_INTERDOMAIN, SharedInfo};
use guests::harness::{Verdict, expect};
use guests::memory::{Frame, PAGE_SIZE};
use guests::{clock, ensure, ensure_eq, platform, suite};

suite! { "partition":
    ram_controller_and_uart_are_where_the_machine_has_them,
    shared_memory_begins_as_zeroes,
    the_channel_is_there_from_the_boot,
    ports_beside_the_channel_are_free,
    words_and_events_go_there_and_back,
}

/// Addresses in the nodes that the runner writes.
const RAM: u32 = 0x7000_0000;
const DISTRIBUTOR: u32 = 0x0800_0000;
const UART: u32 = 0x0900_0000;
const SHARED: u32 = 0xb000_0000;
const SHARED_PAGES: u32 = 2;
const PORT: u32 = 10;
const PEER: u32 = 2;
const PEER_PORT: u32 = 12;

/// Words of the shared memory: a question, and its answer.
const QUESTION: u32 = 0;
const ANSWER: u32 = 4;
const DIFFERENCE: u32 = 1000;

fn shared() -> Frame {
    Frame::at(SHARED)
}

/// Answers for good if this is the second domain.
fn serve() {
    if !platform::get().arguments("role").any(|role| role == "second") {
        return;
    }
    let Ok(info) = SharedInfo::map() else { return };
    loop {
        if info.pending(PEER_PORT) {
            info.clear_pending(PEER_PORT);
            let question = shared().word(QUESTION).load(Ordering::SeqCst);
            shared().word(ANSWER).store(question + DIFFERENCE, Ordering::SeqCst);
            event::send(PEER_PORT);
        }
    }
}

fn ram_controller_and_uart_are_where_the_machine_has_them() -> Verdict {
    serve();
    let machine = platform::get();
    ensure_eq!(machine.ram_base, RAM);
    ensure_eq!(machine.distributor, DISTRIBUTOR);
    ensure_eq!(machine.sbsa_uart, UART);
    Ok(())
}

fn shared_memory_begins_as_zeroes() -> Verdict {
    for offset in (0..SHARED_PAGES * PAGE_SIZE).step_by(4) {
        ensure_eq!(Frame::at(SHARED + offset / PAGE_SIZE * PAGE_SIZE).read(offset % PAGE_SIZE), 0, offset);
    }
    Ok(())
}

fn the_channel_is_there_from_the_boot() -> Verdict {
    let status = expect(event::status(DOMID_SELF, PORT))?;
    ensure_eq!(status.status, STATUS_INTERDOMAIN);
    ensure_eq!(status.detail, PEER);
    ensure_eq!(status.remote_port, PEER_PORT);
    Ok(())
}

fn ports_beside_the_channel_are_free() -> Verdict {
    let mut taken = [0; 10];
    for (at, port) in (1..PORT).chain([PORT + 1]).enumerate() {
        taken[at] = expect(event::alloc_loopback())?;
        ensure_eq!(taken[at], port);
    }
    for port in taken {
        ensure_eq!(event::close(port), 0);
    }
    Ok(())
}

fn words_and_events_go_there_and_back() -> Verdict {
    let info = expect(SharedInfo::map())?;
    for question in 1..=100 {
        shared().word(QUESTION).store(question, Ordering::SeqCst);
        ensure_eq!(event::send(PORT), 0);
        ensure!(clock::poll(|| info.pending(PORT)), question);
        info.clear_pending(PORT);
        ensure_eq!(shared().word(ANSWER).load(Ordering::SeqCst), question + DIFFERENCE, question);
    }
    Ok(())
}
