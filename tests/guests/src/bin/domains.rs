//! Two domains of dom0's making: what they may do to each other, and what is left of one that is gone (abi.md 2.0, 2.14).
//! They are puppets: their code makes the hypercalls that dom0 writes into a page of theirs.
//!
//! With `rule=dummy` in the boot arguments the hypervisor is expected to keep nobody apart (`xsm=dummy`).
#![no_std]
#![no_main]

use core::arch::global_asm;

use guests::abi::{self, DOM0, DOMID_SELF};
use guests::domain::{self, Domain, MEMORY};
use guests::event;
use guests::grant::{self, MAP_HOST, PERMIT_ACCESS, POISON, POISON_STATUS, Table};
use guests::harness::{Failure, Verdict, expect};
use guests::hypercall::{DOMCTL, EVENT_CHANNEL_OP, GRANT_TABLE_OP};
use guests::memory::{Frame, PAGE_SIZE};
use guests::status::grant::{OKAY, PERMISSION_DENIED};
use guests::status::{EINVAL, EPERM};
use guests::{clock, cp15, ensure, ensure_eq, platform, suite};

suite! { "domains":
    a_domain_offers_ports_to_dom0,
    a_domain_offers_ports_to_others_as_the_rule_says,
    a_port_that_dom0_offers_to_another_domain_is_bound_as_the_rule_says,
    an_event_between_two_domains_arrives_where_the_rule_lets_it,
    a_grant_of_another_domain_is_mapped_as_the_rule_says,
    a_grant_of_another_domain_is_copied_as_the_rule_says,
    a_domain_has_no_control_over_another,
    a_page_that_dom0_maps_keeps_its_dead_owner_until_it_is_unmapped,
    a_grant_that_dom0_maps_keeps_its_dead_owner_until_it_is_unmapped,
    memory_of_a_dead_domain_is_zero_for_the_next,
    what_the_hypervisor_kept_for_a_hostile_domain_comes_back,
    the_pages_of_a_domain_that_are_told_are_those_that_were_written,
    a_page_that_is_written_takes_one_fault_a_round_and_none_without_a_log,
}

global_asm!(
    // Position-independent, MMU off. The mailbox at 0x40001000: state, number, r0-r4, result; 1 is a call, 2 an answer, 3 has
    // r1 stored at r0.
    ".balign 8",
    "puppet:",
    "mov r6, #0x40000000",
    "add r6, r6, #0x1000",
    "1: wfe", // traps: lets others run
    "ldr r5, [r6]",
    "cmp r5, #1",
    "cmpne r5, #3",
    "bne 1b",
    "ldr r12, [r6, #4]",
    "add r7, r6, #8",
    "ldm r7, {{r0-r4}}",
    "cmp r5, #3",
    "streq r1, [r0]",
    "beq 2f",
    ".inst 0xe140ea71", // hvc #0xea1
    "2: str r0, [r6, #28]",
    "dsb",
    "mov r5, #2",
    "str r5, [r6]",
    "b 1b",
    "puppet_end:",
);

unsafe extern "C" {
    static puppet: [u32; 0];
    static puppet_end: [u32; 0];
}

const MAILBOX: u64 = MEMORY + 1;
const SHARED: u64 = MEMORY + 2;
/// A place in the mailbox for what a pointer points to.
const ARGUMENT: u32 = 0x100;
const CALL: u32 = 1;
const ANSWER: u32 = 2;
const STORE: u32 = 3;
/// Where the puppets have no memory.
const PLACE: u32 = 0x4800_0000;
const REFERENCE: u32 = 8;
const PATTERN: u32 = 0x5a17_c0de;
/// The emulator may have much else to do.
const PATIENCE_US: u64 = 30_000_000;

const PAGES: u32 = 16;
/// Bytes for the tables of a domain.
const POOL: u32 = 1 << 20;

/// A hole in this domain's map.
fn hole() -> Result<Frame, Failure> {
    let frame = Frame::take();
    ensure_eq!(abi::reservation(abi::MEM_DECREASE_RESERVATION, &mut [frame.gfn()], 0), 1);
    Ok(frame)
}

fn create() -> Result<Domain, Failure> {
    create_with(POOL)
}

fn create_with(pool: u32) -> Result<Domain, Failure> {
    let domain = expect(Domain::create(PAGES, pool))?;
    for page in 0..u64::from(PAGES) {
        expect(domain.populate(MEMORY + page, 0))?;
    }
    Ok(domain)
}

/// A page of a domain, mapped here.
fn page_of(domain: Domain, gfn: u64) -> Result<Frame, Failure> {
    let frame = hole()?;
    ensure_eq!(domain.map(gfn, frame), 0);
    Ok(frame)
}

struct Puppet {
    domain: Domain,
    mailbox: Frame,
    shared: Frame,
    table: Table,
}

impl Puppet {
    fn new() -> Result<Self, Failure> {
        Self::of(create()?)
    }

    fn of(domain: Domain) -> Result<Self, Failure> {
        let code = page_of(domain, MEMORY)?;
        let (from, end) = ((&raw const puppet).cast::<u32>(), (&raw const puppet_end).cast::<u32>());
        for word in 0..(end as u32 - from as u32) / 4 {
            // SAFETY: between the two labels.
            code.write(word * 4, unsafe { from.add(word as usize).read() });
        }
        ensure_eq!(domain::unmap(code), 0);
        let table = hole()?;
        expect(domain.map_grant_table(table))?;
        let made = Puppet {
            domain,
            mailbox: page_of(domain, MAILBOX)?,
            shared: page_of(domain, SHARED)?,
            table: Table(table),
        };
        expect(domain.start((MEMORY << 12) as u32))?;
        Ok(made)
    }

    /// Has it make a hypercall; a null argument is where `words` are then.
    fn call(&self, number: u32, operation: Option<u32>, words: &[u32], more: u32) -> Result<i32, Failure> {
        for (index, word) in words.iter().enumerate() {
            self.mailbox.write(ARGUMENT + index as u32 * 4, *word);
        }
        let pointer = (MAILBOX << 12) as u32 + ARGUMENT;
        let arguments = match operation {
            Some(operation) => [operation, pointer, more],
            None => [pointer, 0, 0],
        };
        self.act(CALL, number, &arguments, words.len() as u32)
    }

    /// Has it do something with values in its registers, and `words` words of arguments.
    fn act(&self, what: u32, number: u32, registers: &[u32], words: u32) -> Result<i32, Failure> {
        self.mailbox.write(4, number);
        for (index, value) in registers.iter().enumerate() {
            self.mailbox.write(8 + index as u32 * 4, *value);
        }
        self.mailbox.write(0, what);
        self.to_memory(words);
        ensure!(clock::poll_for(PATIENCE_US, || {
            self.to_memory(words);
            self.mailbox.read(0) == ANSWER
        }));
        Ok(self.mailbox.read(28) as i32)
    }

    /// Has it write to a page of its own.
    fn store(&self, gfn: u64) -> Verdict {
        self.act(STORE, 0, &[(gfn << 12) as u32, PATTERN], 0).map(|_| ())
    }

    /// Writes the mailbox with `words` words of arguments back and drops it from the caches: the puppet has none.
    fn to_memory(&self, words: u32) {
        const LINE: usize = 64;
        let start = self.mailbox.address();
        for at in (0..ARGUMENT + words * 4).step_by(LINE) {
            cp15::clean_and_invalidate(start + at);
        }
    }

    /// A word of what its pointer pointed to.
    fn argument(&self, index: u32) -> u32 {
        self.mailbox.read(ARGUMENT + index * 4)
    }

    fn event(&self, operation: u32, words: &[u32]) -> Result<i32, Failure> {
        self.call(EVENT_CHANNEL_OP, Some(operation), words, 0)
    }

    fn alloc_unbound(&self, remote: u16) -> Result<i32, Failure> {
        self.event(event::ALLOC_UNBOUND, &[u32::from(remote) << 16 | u32::from(DOMID_SELF), POISON])
    }

    fn bind_interdomain(&self, remote: &Puppet, port: u32) -> Result<i32, Failure> {
        self.event(event::BIND_INTERDOMAIN, &[remote.domain.0.into(), port, POISON])
    }

    fn map(&self, of: &Puppet) -> Result<i16, Failure> {
        let domain = u32::from(of.domain.0) | (POISON_STATUS as u32) << 16;
        let words = [PLACE, 0, MAP_HOST, REFERENCE, domain, POISON, 0, 0];
        ensure_eq!(self.call(GRANT_TABLE_OP, Some(grant::MAP_GRANT_REF), &words, 1)?, 0);
        Ok((self.argument(4) >> 16) as i16)
    }

    /// Copies a page into its own shared one.
    fn copy(&self, of: &Puppet) -> Result<i16, Failure> {
        let source = [REFERENCE, 0, of.domain.0.into(), 0];
        let target = [SHARED as u32, 0, DOMID_SELF.into(), 0];
        let rest = [PAGE_SIZE | u32::from(grant::COPY_SOURCE_GREF) << 16, POISON_STATUS as u32];
        let mut words = [0; 10];
        words[..4].copy_from_slice(&source);
        words[4..8].copy_from_slice(&target);
        words[8..].copy_from_slice(&rest);
        ensure_eq!(self.call(GRANT_TABLE_OP, Some(grant::COPY), &words, 1)?, 0);
        Ok(self.argument(9) as i16)
    }

    fn end(&self) -> Verdict {
        for frame in [self.mailbox, self.shared, self.table.0] {
            ensure_eq!(domain::unmap(frame), 0);
        }
        expect(self.domain.destroy())
    }
}

/// A domain of which nobody holds anything goes with all it had.
fn ends(domain: Domain) -> Verdict {
    expect(domain.destroy())?;
    is_gone(domain)
}

/// It may take until its vCPU has left the CPU.
fn is_gone(domain: Domain) -> Verdict {
    ensure!(clock::poll_for(PATIENCE_US, || matches!(domain.info(), Ok(None))));
    Ok(())
}

/// How long nothing must come back for all to have come back.
const SETTLE_US: u64 = 100_000;

/// Free memory once what was kept for domains before has come back.
fn settled_free_pages() -> Result<u64, Failure> {
    let mut pages = expect(domain::free_pages())?;
    while clock::poll_for(SETTLE_US, || domain::free_pages() != Ok(pages)) {
        pages = expect(domain::free_pages())?;
    }
    Ok(pages)
}

/// The memory that was free before is so again. What the hypervisor kept for a domain goes with the last CPU that looks at it.
fn comes_back(before: u64) -> Verdict {
    if clock::poll_for(PATIENCE_US, || domain::free_pages() == Ok(before)) {
        return Ok(());
    }
    ensure_eq!(expect(domain::free_pages())?, before);
    Ok(())
}

/// Two of them for a check, which then end however that went.
fn with_two(check: impl FnOnce(&Puppet, &Puppet) -> Verdict) -> Verdict {
    let (first, second) = (Puppet::new()?, Puppet::new()?);
    let verdict = check(&first, &second);
    first.end()?;
    second.end()?;
    // One may have had a page of the other's until then.
    is_gone(first.domain)?;
    is_gone(second.domain)?;
    verdict
}

fn is_dummy() -> bool {
    platform::get().arguments("rule").any(|rule| rule == "dummy")
}

/// 0, or what the rule of keeping domains apart brings.
fn by_rule(refused: i32) -> i32 {
    if is_dummy() { 0 } else { refused }
}

fn a_domain_offers_ports_to_dom0() -> Verdict {
    with_two(|first, _| {
        ensure_eq!(first.alloc_unbound(DOM0)?, 0);
        let port = first.argument(1);
        ensure!(event::bind_interdomain(first.domain.0, port).map(event::close) == Ok(0));
        Ok(())
    })
}

fn a_domain_offers_ports_to_others_as_the_rule_says() -> Verdict {
    with_two(|first, second| {
        ensure_eq!(first.alloc_unbound(second.domain.0)?, by_rule(EPERM));
        // Itself it may.
        ensure_eq!(first.alloc_unbound(first.domain.0)?, 0);
        Ok(())
    })
}

fn a_port_that_dom0_offers_to_another_domain_is_bound_as_the_rule_says() -> Verdict {
    with_two(|first, second| {
        let port = expect(event::alloc_unbound(first.domain.0, second.domain.0))?;
        ensure_eq!(second.bind_interdomain(first, port)?, by_rule(EPERM));
        Ok(())
    })
}

fn an_event_between_two_domains_arrives_where_the_rule_lets_it() -> Verdict {
    with_two(|first, second| {
        let port = expect(event::alloc_unbound(first.domain.0, second.domain.0))?;
        let is_bound = second.bind_interdomain(first, port)? == 0;
        let local = if is_bound { second.argument(2) } else { port };
        let answer = second.event(event::SEND, &[local])?;
        ensure_eq!(answer, by_rule(EINVAL));
        let status = expect(event::status(first.domain.0, port))?;
        let wanted = if is_dummy() { event::STATUS_INTERDOMAIN } else { event::STATUS_UNBOUND };
        ensure_eq!(status.status, wanted);
        Ok(())
    })
}

fn granted_page(first: &Puppet, second: &Puppet) {
    first.shared.write(0, PATTERN);
    first.table.set(REFERENCE, PERMIT_ACCESS, second.domain.0, SHARED);
}

fn grant_status() -> i16 {
    if is_dummy() { OKAY } else { PERMISSION_DENIED }
}

fn a_grant_of_another_domain_is_mapped_as_the_rule_says() -> Verdict {
    with_two(|first, second| {
        granted_page(first, second);
        ensure_eq!(second.map(first)?, grant_status());
        let is_marked = first.table.flags(REFERENCE) & (grant::READING | grant::WRITING) != 0;
        ensure_eq!(is_marked, is_dummy());
        Ok(())
    })
}

fn a_grant_of_another_domain_is_copied_as_the_rule_says() -> Verdict {
    with_two(|first, second| {
        granted_page(first, second);
        ensure_eq!(second.copy(first)?, grant_status());
        ensure_eq!(second.shared.read(0), if is_dummy() { PATTERN } else { 0 });
        Ok(())
    })
}

fn a_domain_has_no_control_over_another() -> Verdict {
    const VERSION: u32 = 0x15;
    with_two(|first, second| {
        // Destroy, pause, getdomaininfo, max_mem; of the other, of dom0, of itself.
        for command in [2, 3, 5, 11] {
            for target in [second.domain.0, DOM0, first.domain.0] {
                let words = [command, VERSION, target.into(), 0];
                ensure_eq!(first.call(DOMCTL, None, &words, 0)?, EPERM, command);
            }
        }
        ensure!(matches!(second.domain.info(), Ok(Some(info)) if !info.is_dying));
        Ok(())
    })
}

/// A dead domain is there with the one page that somebody has, and with nothing else.
fn is_zombie(domain: Domain) -> Verdict {
    ensure!(clock::poll_for(PATIENCE_US, || matches!(
        domain.info(),
        Ok(Some(info)) if info.is_dying && info.pages == 1
    )));
    Ok(())
}

fn a_page_that_dom0_maps_keeps_its_dead_owner_until_it_is_unmapped() -> Verdict {
    // The hole first: it may cost a table of dom0's map.
    let page = hole()?;
    let before = settled_free_pages()?;
    let domain = create()?;
    ensure_eq!(domain.map(SHARED, page), 0);
    page.write(8, PATTERN);
    expect(domain.destroy())?;
    is_zombie(domain)?;
    ensure_eq!(page.read(8), PATTERN);
    // Nobody else gets the page, and the number is taken.
    let next = create()?;
    ensure!(next.0 != domain.0);
    ends(next)?;
    ensure_eq!(page.read(8), PATTERN);
    ensure!(expect(domain::free_pages())? < before);
    ensure_eq!(domain::unmap(page), 0);
    is_gone(domain)?;
    comes_back(before)?;
    Ok(())
}

fn a_grant_that_dom0_maps_keeps_its_dead_owner_until_it_is_unmapped() -> Verdict {
    let (table, page) = (hole()?, hole()?);
    // The first handle costs a page, which is kept for dom0.
    a_grant_keeps_its_dead_owner(table, page)?;
    let before = settled_free_pages()?;
    a_grant_keeps_its_dead_owner(table, page)?;
    comes_back(before)
}

/// dom0 maps a grant of a domain that dies.
fn a_grant_keeps_its_dead_owner(table: Frame, page: Frame) -> Verdict {
    let domain = create()?;
    expect(domain.map_grant_table(table))?;
    Table(table).set(REFERENCE, PERMIT_ACCESS, DOM0, SHARED);
    let mapping = grant::map(REFERENCE, domain.0, MAP_HOST, page);
    ensure_eq!(mapping.status, OKAY);
    page.write(8, PATTERN);
    ensure_eq!(domain::unmap(table), 0);
    expect(domain.destroy())?;
    is_zombie(domain)?;
    ensure_eq!(page.read(8), PATTERN);
    ensure_eq!(grant::unmap(mapping.handle, page), OKAY);
    is_gone(domain)
}

fn memory_of_a_dead_domain_is_zero_for_the_next() -> Verdict {
    let page = hole()?;
    for fill in [true, false] {
        let domain = create()?;
        for gfn in MEMORY..MEMORY + u64::from(PAGES) {
            ensure_eq!(domain.map(gfn, page), 0);
            for offset in (0..PAGE_SIZE).step_by(4) {
                if fill {
                    page.write(offset, PATTERN);
                } else {
                    ensure_eq!(page.read(offset), 0, gfn);
                }
            }
            ensure_eq!(domain::unmap(page), 0);
        }
        ends(domain)?;
    }
    Ok(())
}

/// It maps one page so often that the hypervisor needs memory to keep the handles. What is made meanwhile and stays holds back
/// nothing of that.
fn what_the_hypervisor_kept_for_a_hostile_domain_comes_back() -> Verdict {
    /// Handles of 16 bytes.
    const HANDLES: u32 = 1 << 17;
    const PAGES_OF_HANDLES: u64 = 512;
    /// Elements of a call, of 8 words each.
    const BATCH: u32 = 64;
    /// An entry counts its users in 16 bits.
    const USERS: u32 = 1 << 15;
    // A table for 2 MiB of places, and some more.
    const TABLES: u32 = HANDLES / 512 + 64;

    let before = settled_free_pages()?;
    let hostile = Puppet::of(create_with(TABLES * PAGE_SIZE)?)?;
    for entry in 0..HANDLES / USERS {
        hostile.table.set(REFERENCE + entry, PERMIT_ACCESS, hostile.domain.0, SHARED);
    }
    let created = expect(domain::free_pages())?;
    let mut words = [0; 8 * BATCH as usize];
    for first in (0..HANDLES).step_by(BATCH as usize) {
        for (n, element) in (first..).zip(words.chunks_exact_mut(8)) {
            let place = PLACE + n * PAGE_SIZE;
            let reference = REFERENCE + n / USERS;
            element.copy_from_slice(&[place, 0, MAP_HOST, reference, hostile.domain.0.into(), POISON, 0, 0]);
        }
        ensure_eq!(hostile.call(GRANT_TABLE_OP, Some(grant::MAP_GRANT_REF), &words, BATCH)?, 0);
        ensure_eq!(hostile.argument(8 * (BATCH - 1) + 4) >> 16, OKAY, first);
    }
    let kept = created.saturating_sub(expect(domain::free_pages())?);
    ensure!(kept >= PAGES_OF_HANDLES, kept);
    let full = settled_free_pages()?;
    let bystander = create()?;
    let cost = full - settled_free_pages()?;
    hostile.end()?;
    is_gone(hostile.domain)?;
    comes_back(before - cost)?;
    ends(bystander)?;
    comes_back(before)
}

/// A domain's pages that are told as written by its log, as bits from its first one on. Begins anew. `bitmap` is nine frames.
fn told(domain: Domain, bitmap: Frame) -> Result<u32, Failure> {
    for n in 0..8 {
        for word in 0..PAGE_SIZE / 4 {
            bitmap.nth(n).write(word * 4, u32::MAX);
        }
    }
    let pages = MEMORY as u32 + PAGES;
    ensure_eq!(expect(domain.clean_log(bitmap.address(), pages))?.pages, pages);
    for n in 0..8 {
        for word in 0..PAGE_SIZE / 4 {
            ensure_eq!(bitmap.nth(n).read(word * 4), 0, n * PAGE_SIZE + word * 4);
        }
    }
    Ok(bitmap.nth(8).read(0) & ((1 << PAGES) - 1))
}

fn the_pages_of_a_domain_that_are_told_are_those_that_were_written() -> Verdict {
    const XEN_VERSION: u32 = 17;
    const CHANGESET: u32 = 4;
    const BIT: fn(u64) -> u32 = |gfn| 1 << (gfn - MEMORY);
    let (page, bitmap) = (hole()?, Frame::take_aligned(16));
    let one = Puppet::new()?;
    let domain = one.domain;
    let written = |domain| told(domain, bitmap);
    ensure!(domain.clean_log(0, 0) == Err(EINVAL));
    expect(domain.log())?;
    ensure!(domain.log() == Err(EINVAL));
    // dom0 has these two mapped, and may write there at any time.
    let held = BIT(MAILBOX) | BIT(SHARED);
    ensure_eq!(written(domain)?, held);
    // Its own writes.
    one.store(MEMORY + 5)?;
    one.store(MEMORY + 5)?;
    one.store(MEMORY + 15)?;
    ensure_eq!(written(domain)?, held | BIT(MEMORY + 5) | BIT(MEMORY + 15));
    ensure_eq!(written(domain)?, held);
    one.store(MEMORY + 5)?;
    ensure_eq!(written(domain)?, held | BIT(MEMORY + 5));
    // The hypervisor's answers.
    let into = ((MEMORY + 6) << 12) as u32;
    ensure_eq!(one.act(CALL, XEN_VERSION, &[CHANGESET, into], 0)?, 0);
    ensure_eq!(written(domain)?, held | BIT(MEMORY + 6));
    // dom0's writes through a mapping, but not its reads.
    ensure_eq!(domain.map(MEMORY + 7, page), 0);
    ensure_eq!(page.read(0), 0);
    ensure_eq!(written(domain)?, held);
    page.write(0, PATTERN);
    for _ in 0..2 {
        ensure_eq!(written(domain)?, held | BIT(MEMORY + 7));
    }
    ensure_eq!(domain::unmap(page), 0);
    ensure_eq!(written(domain)?, held | BIT(MEMORY + 7));
    ensure_eq!(written(domain)?, held);
    // Grants that dom0 writes to.
    one.table.set(REFERENCE, PERMIT_ACCESS, DOM0, MEMORY + 8);
    let source = Frame::take();
    let into_it = grant::COPY_DESTINATION_GREF;
    ensure_eq!(grant::copy(grant::local(source, 0), grant::granted(domain.0, REFERENCE, 0), 64, into_it), OKAY);
    ensure_eq!(written(domain)?, held | BIT(MEMORY + 8));
    let out_of_it = grant::COPY_SOURCE_GREF;
    ensure_eq!(grant::copy(grant::granted(domain.0, REFERENCE, 0), grant::local(source, 0), 64, out_of_it), OKAY);
    ensure_eq!(written(domain)?, held);
    let mapping = grant::map(REFERENCE, domain.0, MAP_HOST, page);
    ensure_eq!(mapping.status, OKAY);
    ensure_eq!(written(domain)?, held | BIT(MEMORY + 8));
    ensure_eq!(grant::unmap(mapping.handle, page), OKAY);
    ensure_eq!(written(domain)?, held | BIT(MEMORY + 8));
    ensure_eq!(written(domain)?, held);
    // After the end nothing is caught any more.
    expect(domain.end_log())?;
    one.store(MEMORY + 9)?;
    ensure!(domain.clean_log(0, 0) == Err(EINVAL));
    one.end()?;
    is_gone(domain)
}

fn a_page_that_is_written_takes_one_fault_a_round_and_none_without_a_log() -> Verdict {
    const FIRST: u64 = MEMORY + 5;
    const WRITTEN: u32 = 8;
    const TIMES: u32 = 3;
    let one = Puppet::new()?;
    let domain = one.domain;
    let writes = || -> Verdict {
        for n in 0..WRITTEN * TIMES {
            one.store(FIRST + u64::from(n % WRITTEN))?;
        }
        Ok(())
    };
    for _ in 0..2 {
        expect(domain.log())?;
        for _ in 0..2 {
            writes()?;
            let read = expect(domain.clean_log(0, 0))?;
            ensure_eq!(read.written, WRITTEN);
            ensure!(read.faults == WRITTEN, read.faults);
        }
        expect(domain.end_log())?;
        writes()?;
        expect(domain.log())?;
        let read = expect(domain.clean_log(0, 0))?;
        ensure_eq!(read.faults, 0);
        expect(domain.end_log())?;
    }
    one.end()?;
    is_gone(domain)
}
