//! Guests that know nothing of being saved: what a paused domain has beside its memory and its processors' state, as its ports
//! and grants. What cannot come back is refused by name, before anything ends.

use std::io;
use std::time::Duration;

use crate::guest::Guest;
use crate::machine::{CLOSED, Hypervisor, INTERDOMAIN, Machine, PAGE, PORT_PARAMS, Port, UNBOUND};
use crate::stream::{Keeps, Kept, invalid, record_in, shared_info_in};

/// DOMID_SELF, which stands for the domain itself in a stream.
const SELF: u16 = 0x7FF0;
/// Types of the hypervisor's records (docs/migration-format.md).
const DOMAIN: u16 = 7;
const PORTS: u16 = 9;
/// Where DOMAIN has the time of day, and what the hypervisor has no record of.
const TIME: std::ops::Range<usize> = 8..16;
const BESIDE: [(usize, &str); 3] = [
    (28, "it uses FIFO event channels, as Linux does"),
    (32, "it has set a watchdog of the hypervisor's"),
    (36, "it has mapped grants of another domain"),
];
/// Ports of the two-level ABI.
const MOST_PORTS: u32 = 4096;
/// Bytes of an entry of the grant table, and of the first two, which are the toolstack's: console and xenstore.
const ENTRY: usize = 8;
const RESERVED: usize = 2 * ENTRY;
/// GTF_reading and GTF_writing.
const IN_USE: u16 = 8 | 16;
/// Where a ring of xenstore has its indices: consumer and producer of requests, then of answers; and where it ends.
const STORE_INDICES: usize = 2048;
const STORE_END: usize = STORE_INDICES + 16;
const STORE_SIZE: u32 = 1024;
/// Where a ring of the console has consumer and producer of what the guest says.
const SAID: usize = 3072 + 8;

type Page = Box<[u8; PAGE]>;

/// All of it.
pub struct Unaware {
    /// The hypervisor's records.
    pub context: Vec<u8>,
    /// Pages that are no RAM of the guest's own.
    pub kept: Vec<Kept>,
}

fn word(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(page[at..at + 4].try_into().expect("four bytes"))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// Returns the page at a frame.
fn page(xen: &mut dyn Hypervisor, domain: u16, frame: u64) -> io::Result<Page> {
    let mut copy = Box::new([0; PAGE]);
    xen.read_pages(domain, &[frame], &mut |page| *copy = *page)?;
    Ok(copy)
}

fn refused(guest: &Guest, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{} cannot be saved so: {why}", guest.name))
}

/// Reads all of it, of a domain that is paused.
pub fn look(guest: &mut Guest) -> io::Result<Unaware> {
    let [store, console] = rings(guest)?;
    let ports = ports(guest)?;
    let grants = grants(guest)?;
    let mut context = guest.context()?;
    let domain = record_in(&context, DOMAIN)
        .filter(|body| body.len() >= BESIDE[2].0 + 4)
        .ok_or(invalid("the hypervisor has another form of states"))?;
    for (at, why) in BESIDE {
        if word(&context[domain.clone()], at) != 0 {
            return Err(refused(guest, why));
        }
    }
    // Its counter goes on where it was.
    let first = domain.start;
    context[first + TIME.start..first + TIME.end].fill(0xFF);
    add_ports(&mut context, &ports);
    let mut kept = vec![
        Kept::new(Keeps::StoreRing, store),
        Kept::new(Keeps::ConsoleRing, console),
    ];
    if let Some(frame) = shared_info_in(&context) {
        let page = page(&mut *guest.machine.xen, guest.id, frame.into())?;
        kept.push(Kept::new(Keeps::SharedInfo, page));
    }
    kept.extend(grants);
    Ok(Unaware { context, kept })
}

/// Puts the record of the ports before the end of a context.
fn add_ports(context: &mut Vec<u8>, ports: &[[u32; 2]]) {
    let end = context.split_off(context.len().saturating_sub(8));
    context.extend(u32::from(PORTS).to_le_bytes());
    context.extend((8 * ports.len() as u32).to_le_bytes());
    context.extend(ports.iter().flatten().flat_map(|word| word.to_le_bytes()));
    context.extend(end);
}

/// Returns the pages of its rings with xenstore and the console, once dom0 has taken what the guest said last.
fn rings(guest: &mut Guest) -> io::Result<[Page; 2]> {
    const LOOKS: u32 = 100;
    const LOOK: Duration = Duration::from_millis(10);
    let id = guest.id;
    let mut looks = 0;
    loop {
        let xen = &mut *guest.machine.xen;
        let [store, console] =
            [1, 17].map(|param| xen.param(id, param).and_then(|at| page(xen, id, at)));
        let (store, console) = (store?, console?);
        let [asked, taken, read, told] =
            [4, 0, 8, 12].map(|at| word(&store[..], STORE_INDICES + at));
        let talks = asked != taken || told.wrapping_sub(read) >= STORE_SIZE;
        if !talks && word(&console[..], SAID) == word(&console[..], SAID + 4) {
            return Ok([store, console]);
        }
        looks += 1;
        match looks {
            LOOKS if talks => return Err(refused(guest, "it waits for xenstore: try again")),
            LOOKS => return Ok([store, console]),
            _ => std::thread::sleep(LOOK),
        }
    }
}

/// Returns its ports as the hypervisor's record has them.
fn ports(guest: &mut Guest) -> io::Result<Vec<[u32; 2]>> {
    let id = guest.id;
    let mut toolstacks = Vec::new();
    for (index, _) in PORT_PARAMS {
        toolstacks.push(guest.machine.xen.param(id, index)?);
    }
    let mut ports = Vec::new();
    for number in 0..MOST_PORTS {
        let Some(port) = guest.machine.xen.port(id, number)? else {
            break;
        };
        let Port {
            status,
            vcpu,
            domain,
            detail,
        } = port;
        let domain = if domain == id { SELF } else { domain };
        let is_toolstacks = domain == 0 && toolstacks.contains(&number.into());
        if status == INTERDOMAIN && domain != SELF && !is_toolstacks {
            let device = device_with(guest, number)?;
            return Err(refused(
                guest,
                format!("its port {number}{device} leads to port {detail} of domain {domain}"),
            ));
        }
        let domain = if [UNBOUND, INTERDOMAIN].contains(&status) {
            domain
        } else {
            0
        };
        ports.push([status | vcpu << 8 | u32::from(domain) << 16, detail]);
    }
    let open = ports.iter().rposition(|[how, _]| how & 0xFF != CLOSED);
    ports.truncate(open.map_or(0, |last| last + 1));
    Ok(ports)
}

/// Returns the device whose port that is, for a message.
fn device_with(guest: &mut Guest, port: u32) -> io::Result<String> {
    let root = guest.path("device");
    let mut left = vec![String::new()];
    while let Some(path) = left.pop() {
        for name in guest.machine.store.list(&format!("{root}{path}"))? {
            let below = format!("{path}/{name}");
            let is_port = name.starts_with("event-channel");
            if !is_port {
                left.push(below);
            } else if guest.machine.store.read(&format!("{root}{below}"))? == Some(port.to_string())
            {
                // A queue of it may be named behind that.
                let device: Vec<&str> = path.split('/').take(3).collect();
                return Ok(format!(" (device{})", device.join("/")));
            }
        }
    }
    Ok(String::new())
}

/// Returns the frames of its grant table, in which the domain itself is called DOMID_SELF.
fn grants(guest: &mut Guest) -> io::Result<Vec<Kept>> {
    let id = guest.id;
    let places = guest.machine.xen.grant_frames(id)?;
    let mut frames = Vec::new();
    for (index, place) in (0..).zip(places) {
        let mut page = guest.machine.xen.read_grants(id, index)?;
        for (n, entry) in page.chunks_exact_mut(ENTRY).enumerate() {
            let (flags, mapper) = (half(entry, 0), half(entry, 2));
            let is_toolstacks = index == 0 && n < RESERVED / ENTRY && mapper == 0;
            if flags & IN_USE != 0 && !is_toolstacks {
                let reference = index as usize * PAGE / ENTRY + n;
                return Err(refused(
                    guest,
                    format!("domain {mapper} has mapped its grant {reference}"),
                ));
            }
            if mapper == id {
                entry[2..4].copy_from_slice(&SELF.to_le_bytes());
            }
        }
        frames.push(Kept::new(Keeps::GrantFrame { index, place }, page));
    }
    Ok(frames)
}

/// Gives a domain that has never run the pages that a stream kept. Its shared_info is in its place.
pub fn put_back(machine: &mut Machine, id: u16, context: &[u8], kept: &[Kept]) -> io::Result<()> {
    let xen = &mut *machine.xen;
    for Kept { keeps, page } in kept {
        match *keeps {
            Keeps::StoreRing => {
                let frame = xen.param(id, 1)?;
                // The words of xenstored itself are behind the ring.
                let mut here = self::page(xen, id, frame)?;
                here[..STORE_END].copy_from_slice(&page[..STORE_END]);
                xen.write_pages(id, &[(frame, &here)])?;
            }
            Keeps::ConsoleRing => {
                let frame = xen.param(id, 17)?;
                xen.write_pages(id, &[(frame, page)])?;
            }
            Keeps::SharedInfo => {
                let frame = shared_info_in(context)
                    .ok_or(invalid("contents of shared_info, which has no place"))?;
                xen.write_pages(id, &[(frame.into(), page)])?;
            }
            Keeps::GrantFrame { index, place } => {
                if let Some(frame) = place {
                    xen.place_grants(id, index, frame)?;
                }
                let mut page = page.clone();
                for entry in page
                    .chunks_exact_mut(ENTRY)
                    .filter(|entry| half(entry, 2) == SELF)
                {
                    entry[2..4].copy_from_slice(&id.to_le_bytes());
                }
                let from = if index == 0 { RESERVED } else { 0 };
                xen.write_grants(id, index, from, &page[from..])?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
