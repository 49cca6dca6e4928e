//! Saved domains: the stream that dom0's program reads, and the state that the hypervisor takes.

use std::sync::Arc;

use armv7::addr::Gfn;
use armv7::frame::page;
use kmove::machine::PAGE;
use kmove::model::Model;
use kmove::restore;
use kmove::stream::{CONFIG, Content, KEPT, Writer};
use krypton::call::{Args, Caller, Reply};
use krypton::domain::{Domain, Rights, audit, registry};
use krypton::error::Errno;
use krypton::event::{Port, Status};
use krypton::hypercall;
use krypton::id::DomId;
use krypton::save::{Shape, Writer as Image};

use crate::calls::{World, world};
use crate::input::Input;

/// Streams of a saved domain. One that is refused leaves nothing.
pub fn stream(data: &[u8]) {
    restores(data);
    // And one of these records that is whole.
    let mut input = Input::new(data);
    let Ok(mut writer) = Writer::start(Vec::new()) else { return };
    while !input.is_empty() {
        let done = match input.byte() % 8 {
            0 => writer.record(CONFIG, b"name = \"fuzz\"\n"),
            1 => writer.pages(&batch(&mut input)),
            2 => writer.params(&[(1, 0x3_9001), (2, 1), (17, 0x3_9011), (18, 2)]),
            3 => writer.record(KEPT, &kept(&mut input)),
            _ => {
                let kind = input.number() & 0xc000_001f;
                let length = usize::from(input.byte());
                writer.record(kind, input.bytes(length))
            }
        };
        assert!(done.is_ok());
    }
    if let Ok(bytes) = writer.end() {
        restores(&bytes);
    }
}

/// A batch of pages, of frames of the model's domain and others.
fn batch(input: &mut Input<'_>) -> Vec<(u64, Content)> {
    let count = usize::from(input.byte() % 16) + 1;
    let one = |_| {
        let frame = 0x4_0000 + u64::from(input.number()) % 0x1000;
        let content = match input.byte() % 3 {
            0 => Content::Page(Box::new([input.byte(); PAGE])),
            1 => Content::Zero,
            _ => Content::Hole,
        };
        (frame, content)
    };
    (0..count).map(one).collect()
}

/// A page of a place that there may be.
fn kept(input: &mut Input<'_>) -> Vec<u8> {
    let mut numbers = [u64::from(input.byte() % 5), 0, u64::MAX];
    if numbers[0] == 3 {
        numbers[1..].copy_from_slice(&[input.number(), input.number()].map(u64::from));
    }
    let head = numbers.iter().flat_map(|number| number.to_le_bytes());
    head.chain([input.byte(); PAGE]).collect()
}

fn restores(bytes: &[u8]) {
    let _ = restore::verify(bytes);
    let model = Model::default();
    let restored = restore::domain(&mut model.machine(), bytes, None, true);
    assert_eq!(model.world().domains.len(), usize::from(restored.is_ok()));
}

const DOMCTL: u32 = 36;
const VERSION: u32 = 0x15;
const DESTROY: u32 = 2;
const GET_CONTEXT: u32 = 33;
const SET_CONTEXT: u32 = 34;
/// The type of the record of ports.
const PORTS: u32 = 9;
/// Where the words of a context are in the page that all pointers lead to, and how many there are at most.
const BUFFER: usize = 0x100;
const WORDS: usize = (4096 - BUFFER) / 4;
/// The domains of `calls`.
const SHAPE: Shape = Shape { vcpus: 2, shared_banks: 1, monitors: false };

/// Has dom0 make a domctl about a context of so many bytes.
fn domctl(dom0: &Arc<Domain>, command: u32, domain: DomId, bytes: u32) -> Result<(), Errno> {
    put(dom0, 0, &[command, VERSION, domain.0.into(), 0, bytes, 0, BUFFER as u32, 0]);
    let caller = Caller { domain: dom0, vcpu: &dom0.vcpus()[0] };
    let mut args = Args([0; 5]);
    loop {
        match hypercall::call(&caller, DOMCTL, &args)? {
            Reply::Again(next) => args = next,
            _ => return Ok(()),
        }
    }
}

fn put(dom0: &Arc<Domain>, at: usize, words: &[u32]) {
    let entry = dom0.p2m.lock().lookup(Gfn::default()).unwrap();
    let page = page(entry.mfn).unwrap();
    for (n, word) in words.iter().enumerate() {
        page.u32_at(at + 4 * n).unwrap().store(*word, std::sync::atomic::Ordering::Relaxed);
    }
}

fn get(dom0: &Arc<Domain>, words: usize) -> Vec<u32> {
    let entry = dom0.p2m.lock().lookup(Gfn::default()).unwrap();
    let page = page(entry.mfn).unwrap();
    let word = |n| page.u32_at(BUFFER + 4 * n).unwrap().load(std::sync::atomic::Ordering::Relaxed);
    (0..words).map(word).collect()
}

/// Returns a context without what goes on by itself: of record 7 the counter and the time of day, of record 4 the distance of
/// the physical timer.
fn at_rest(mut words: Vec<u32>) -> Vec<u32> {
    let mut at = 0;
    while let Some([head, bytes]) = words.get(at..at + 2).map(|two| [two[0], two[1]]) {
        match head & 0xffff {
            7 => words[at + 2..at + 6].fill(0),
            4 => words[at + 8..at + 10].fill(0),
            _ => {}
        }
        at += 2 + bytes as usize / 4;
    }
    words
}

/// A domain that dom0 has made, and never let run.
struct Subject<'a>(&'a Arc<Domain>, DomId);

impl<'a> Subject<'a> {
    fn new(dom0: &'a Arc<Domain>) -> Self {
        let domain = crate::calls::domain(DomId(3), Rights::GUEST);
        // One port that the toolstack opens.
        domain.events.lock().alloc_unbound(dom0.id).unwrap();
        Self(dom0, domain.id)
    }

    fn ports(&self) -> Vec<Status> {
        let domain = registry::get(self.1).unwrap();
        let events = domain.events.lock();
        (0..128).map(|port| events.status(Port(port)).unwrap()).collect()
    }

    fn context(&self) -> Vec<u32> {
        assert_eq!(domctl(self.0, GET_CONTEXT, self.1, 4 * WORDS as u32), Ok(()));
        get(self.0, Image::words_of(&SHAPE))
    }

    fn set(&self, words: &[u32]) -> Result<(), Errno> {
        put(self.0, BUFFER, words);
        domctl(self.0, SET_CONTEXT, self.1, 4 * words.len() as u32)
    }
}

impl Drop for Subject<'_> {
    fn drop(&mut self) {
        assert_eq!(domctl(self.0, DESTROY, self.1, 0), Ok(()));
        // Any domctl forgets what is dead.
        assert_eq!(domctl(self.0, GET_CONTEXT, self.1, 0), Err(Errno::Srch));
        assert_eq!(audit::audit(), Ok(()));
    }
}

/// Returns the entry of a port in a context.
fn port(kind: u8, how: u8, detail: u32) -> [u32; 2] {
    let domain = [0, DomId::SELF.0, 3][usize::from(how >> 4) % 3];
    [u32::from(kind % 8) | u32::from(how >> 2 & 3) << 8 | u32::from(domain) << 16, detail]
}

/// Contexts of a domain: its own, with words changed, and ports. One that is refused changes nothing. What a domain has after one
/// that was taken, another domain takes.
pub fn context(data: &[u8]) {
    let world = world();
    let World { domains, turn } = world;
    let _turn = turn.lock().unwrap_or_else(|poison| poison.into_inner());
    world.furnish();
    let subject = Subject::new(&domains[0]);
    let (before, ports_before) = (subject.context(), subject.ports());
    let mut input = Input::new(data);
    let mut changed = before.clone();
    let mut ports = Vec::new();
    while !input.is_empty() {
        let (low, how, number) = (input.byte(), input.byte(), input.number());
        let at = usize::from(low) + 256 * usize::from(how & 1);
        let length = changed.len();
        match how & 2 {
            0 => changed[at % length] = number,
            _ => ports.extend(port(low, how, number)),
        }
    }
    if !ports.is_empty() {
        let end = changed.split_off(changed.len() - 2);
        ports.truncate(WORDS - changed.len() - 4);
        changed.extend([PORTS, 4 * ports.len() as u32]);
        changed.extend(ports);
        changed.extend(end);
    }
    let taken = subject.set(&changed);
    let (after, ports_after) = (subject.context(), subject.ports());
    drop(subject);
    match taken {
        Ok(()) => assert_eq!(Subject::new(&domains[0]).set(&after), Ok(())),
        Err(_) => {
            assert_eq!(at_rest(after), at_rest(before));
            assert_eq!(ports_after, ports_before);
        }
    }
}
