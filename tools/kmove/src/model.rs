//! A machine in memory, for tests: domains with pages, nodes and a log of writes, whose guests suspend when they are asked to,
//! and write while they run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config;
use crate::machine::{
    Hypervisor, INTERDOMAIN, Info, Log, Machine, Nodes, PAGE, PARAMS, Port, RAM_START, SUSPENDED,
    Toolstack,
};

/// Frames of a domain's RAM.
pub const FRAMES: u64 = 1500;
/// HVM parameters have these bits and their number.
const PARAM_BASE: u64 = 0x3_9000;
/// Pages that a guest writes at each look at it while it runs.
const BUSY: u64 = 9;

/// The state of a domain's vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Made, and never unpaused.
    New,
    /// It runs.
    Running,
    /// It has suspended.
    Suspended,
}

/// A domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// The state of its vCPUs.
    pub state: State,
    /// Its pages by frames.
    pub pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    /// Its state beside its memory.
    pub context: Vec<u8>,
    /// Frames that were written, while that is logged.
    pub log: Option<BTreeSet<u64>>,
    /// Frames that were written from outside since the caches were flushed for them.
    pub in_caches: BTreeSet<u64>,
    /// Where its guest writes next.
    turn: u64,
    /// Its ports of event channels.
    pub ports: Vec<Port>,
    /// The frames of its grant table, and their places.
    pub grants: Vec<(Option<u64>, Box<[u8; PAGE]>)>,
    /// The number of those who have paused it.
    pub pauses: u32,
}

impl Domain {
    fn new() -> Self {
        let page = |frame| (frame, Box::new([0; PAGE]));
        let toolstacks = Port {
            status: INTERDOMAIN,
            detail: 77,
            ..Port::default()
        };
        let mut pages: BTreeMap<_, _> = (RAM_START..RAM_START + FRAMES).map(page).collect();
        pages.extend(PARAMS.map(|(index, _)| page(PARAM_BASE | u64::from(index))));
        let mut grants = Box::new([0; PAGE]);
        // The toolstack's pages are mapped, for reading and writing.
        for (n, entry) in grants.chunks_exact_mut(8).take(2).enumerate() {
            entry[0] = 1 | 8 | 16;
            entry[4] = n as u8 + 1;
        }
        Self {
            state: State::New,
            pages,
            ports: vec![Port::default(), toolstacks, toolstacks],
            grants: vec![(None, grants)],
            pauses: 1,
            context: Vec::new(),
            log: None,
            in_caches: BTreeSet::new(),
            turn: 0,
        }
    }

    /// Has the guest write some pages, if it runs.
    fn write_some(&mut self) {
        for _ in 0..BUSY {
            if self.state != State::Running || self.pauses > 0 {
                return;
            }
            self.turn += 1;
            // Some pages often, others seldom.
            let frame = RAM_START + self.turn * self.turn % 37 * 11 % FRAMES;
            if let Some(page) = self.pages.get_mut(&frame) {
                page[self.turn as usize * 8 % PAGE] = self.turn as u8;
                self.note(frame);
            }
        }
    }

    /// Returns a frame of the grant table, which grows for it.
    fn frame(&mut self, index: u32) -> &mut (Option<u64>, Box<[u8; PAGE]>) {
        let index = index as usize;
        while self.grants.len() <= index {
            self.grants.push((None, Box::new([0; PAGE])));
        }
        &mut self.grants[index]
    }

    fn note(&mut self, frame: u64) {
        if let Some(log) = &mut self.log {
            log.insert(frame);
        }
    }
}

/// A machine.
#[derive(Default, Debug)]
pub struct World {
    /// Its domains by numbers.
    pub domains: BTreeMap<u16, Domain>,
    /// Its xenstore.
    pub nodes: BTreeMap<String, String>,
    last: u16,
}

impl World {
    fn domain(&mut self, id: u16) -> io::Result<&mut Domain> {
        let domain = self.domains.get_mut(&id);
        domain.ok_or(io::Error::other("there is no such domain"))
    }

    fn make(&mut self, name: &str) -> u16 {
        self.last += 1;
        let id = self.last;
        self.domains.insert(id, Domain::new());
        let path = format!("/local/domain/{id}/name");
        self.nodes.insert(path, name.to_owned());
        id
    }

    fn remove(&mut self, id: u16) {
        self.domains.remove(&id);
        let path = format!("/local/domain/{id}/");
        self.nodes.retain(|node, _| !node.starts_with(&path));
    }
}

/// A machine that several hold.
#[derive(Clone, Default)]
pub struct Model(Arc<Mutex<World>>);

impl Model {
    /// Returns the machine itself.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the machine as this program sees it.
    pub fn machine(&self) -> Machine {
        Machine {
            xen: Box::new(self.clone()),
            store: Box::new(self.clone()),
            xl: Box::new(self.clone()),
        }
    }

    /// Starts a domain whose guest runs and can suspend. Some of its pages are zeros and some are missing.
    pub fn start(&self, name: &str, context: &[u8]) -> u16 {
        let mut world = self.world();
        let id = world.make(name);
        let feature = format!("/local/domain/{id}/control/feature-suspend");
        world.nodes.insert(feature, "1".to_owned());
        if let Some(domain) = world.domains.get_mut(&id) {
            domain.state = State::Running;
            domain.pauses = 0;
            domain.context = context.to_vec();
            domain
                .pages
                .retain(|frame, _| frame % 100 != 3 || *frame < RAM_START);
            let ram = domain.pages.range_mut(RAM_START..);
            for (frame, page) in ram.filter(|(frame, _)| *frame % 3 != 0) {
                page.fill(*frame as u8 | 1);
            }
        }
        id
    }
}

impl Hypervisor for Model {
    fn info(&mut self, id: u16) -> io::Result<Info> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        Ok(Info {
            shutdown: (domain.state == State::Suspended).then_some(SUSPENDED),
            dying: false,
        })
    }

    fn resume_in_place(&mut self, id: u16) -> io::Result<()> {
        self.world().domain(id)?.state = State::Running;
        Ok(())
    }

    fn pause(&mut self, id: u16) -> io::Result<()> {
        self.world().domain(id)?.pauses += 1;
        Ok(())
    }

    fn unpause(&mut self, id: u16) -> io::Result<()> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        domain.pauses -= 1;
        domain.state = State::Running;
        Ok(())
    }

    fn subscribe(&mut self, id: u16, _port: u32) -> io::Result<()> {
        self.world().domain(id).map(drop)
    }

    fn new_port(&mut self, id: u16) -> io::Result<u32> {
        self.world().domain(id).map(|_| 7)
    }

    fn port(&mut self, id: u16, port: u32) -> io::Result<Option<Port>> {
        Ok(self.world().domain(id)?.ports.get(port as usize).copied())
    }

    fn grant_frames(&mut self, id: u16) -> io::Result<Vec<Option<u64>>> {
        let mut world = self.world();
        let frames = &world.domain(id)?.grants;
        Ok(frames.iter().map(|(place, _)| *place).collect())
    }

    fn read_grants(&mut self, id: u16, index: u32) -> io::Result<Box<[u8; PAGE]>> {
        Ok(self.world().domain(id)?.frame(index).1.clone())
    }

    fn write_grants(&mut self, id: u16, index: u32, from: usize, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world();
        world.domain(id)?.frame(index).1[from..from + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn place_grants(&mut self, id: u16, index: u32, frame: u64) -> io::Result<()> {
        self.world().domain(id)?.frame(index).0 = Some(frame);
        Ok(())
    }

    fn last_frame(&mut self, id: u16) -> io::Result<u64> {
        self.world().domain(id)?;
        Ok(RAM_START + FRAMES - 1)
    }

    fn have_pages(&mut self, id: u16, frames: &[u64]) -> io::Result<Vec<bool>> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        Ok(frames
            .iter()
            .map(|frame| domain.pages.contains_key(frame))
            .collect())
    }

    fn read_pages(
        &mut self,
        id: u16,
        frames: &[u64],
        each: &mut dyn FnMut(&[u8; PAGE]),
    ) -> io::Result<()> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        for frame in frames {
            let page = domain.pages.get(frame);
            each(page.ok_or(io::Error::other("no page there"))?);
        }
        domain.write_some();
        Ok(())
    }

    fn write_pages(&mut self, id: u16, pages: &[(u64, &[u8; PAGE])]) -> io::Result<()> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        for (frame, from) in pages {
            let page = domain.pages.get_mut(frame);
            **page.ok_or(io::Error::other("no page there"))? = **from;
            domain.in_caches.insert(*frame);
        }
        Ok(())
    }

    fn begin_log(&mut self, id: u16) -> io::Result<()> {
        self.world().domain(id)?.log = Some(BTreeSet::new());
        Ok(())
    }

    fn end_log(&mut self, id: u16) -> io::Result<()> {
        self.world().domain(id)?.log = None;
        Ok(())
    }

    fn read_log(&mut self, id: u16, _count: u64) -> io::Result<Log> {
        let mut world = self.world();
        let log = world.domain(id)?.log.as_mut();
        let frames = std::mem::take(log.ok_or(io::Error::other("nothing is logged"))?);
        let count = frames.len() as u32;
        Ok(Log {
            frames: frames.into_iter().collect(),
            faults: count,
            written: count,
        })
    }

    fn populate(&mut self, id: u16, frames: &[u64]) -> io::Result<()> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        for frame in frames {
            // A domain has a limit of pages.
            if domain.pages.len() >= FRAMES as usize + PARAMS.len() || *frame >= RAM_START + FRAMES
            {
                return Err(io::Error::other(format!("refused at frame {frame:#x}")));
            }
            domain.pages.insert(*frame, Box::new([0; PAGE]));
        }
        Ok(())
    }

    fn take_away(&mut self, id: u16, frames: &[u64]) -> io::Result<()> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        for frame in frames {
            if domain.pages.remove(frame).is_none() {
                return Err(io::Error::other(format!("refused at frame {frame:#x}")));
            }
        }
        Ok(())
    }

    fn map_shared_info(&mut self, id: u16, _frame: u64) -> io::Result<()> {
        self.world().domain(id).map(drop)
    }

    fn param(&mut self, id: u16, index: u32) -> io::Result<u64> {
        self.world().domain(id).map(|_| match index {
            2 => 1,
            18 => 2,
            _ => PARAM_BASE | u64::from(index),
        })
    }

    fn context(&mut self, id: u16) -> io::Result<Vec<u8>> {
        Ok(self.world().domain(id)?.context.clone())
    }

    fn set_context(&mut self, id: u16, context: &[u8]) -> io::Result<()> {
        self.world().domain(id)?.context = context.to_vec();
        Ok(())
    }

    fn flush(&mut self, id: u16, first: u64, count: u64) -> io::Result<()> {
        let mut world = self.world();
        let domain = world.domain(id)?;
        domain
            .in_caches
            .retain(|frame| !(first..first + count).contains(frame));
        Ok(())
    }
}

impl Nodes for Model {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        Ok(self.world().nodes.get(path).cloned())
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        let below = format!("{path}/");
        let world = self.world();
        let nodes = world
            .nodes
            .keys()
            .filter_map(|node| node.strip_prefix(&below));
        let names: BTreeSet<&str> = nodes.filter_map(|rest| rest.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    /// A guest that is asked to suspend takes the request away and does so.
    fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        let mut world = self.world();
        let id = path
            .strip_prefix("/local/domain/")
            .and_then(|rest| rest.strip_suffix("/control/shutdown"))
            .and_then(|id| id.parse().ok());
        if let (Some(id), "suspend") = (id, value) {
            let domain = world.domain(id)?;
            domain.write_some();
            domain.state = State::Suspended;
            return Ok(());
        }
        world.nodes.insert(path.to_owned(), value.to_owned());
        Ok(())
    }

    fn resumed(&mut self, id: u16) -> io::Result<()> {
        self.world().domain(id).map(drop)
    }
}

impl Toolstack for Model {
    fn create(&mut self, text: &str) -> io::Result<()> {
        let name = config::setting(text, "name").unwrap_or("");
        match name {
            "" => Err(io::Error::other("no name")),
            name => {
                self.world().make(name);
                Ok(())
            }
        }
    }

    fn run(&mut self, arguments: &[&str]) -> io::Result<()> {
        let mut world = self.world();
        match arguments {
            ["destroy", id] => {
                let id = id.parse().map_err(io::Error::other)?;
                world.domain(id)?;
                world.remove(id);
            }
            ["rename", old, new] => {
                let taken = world.nodes.values().any(|name| name == new);
                let name = world
                    .nodes
                    .iter_mut()
                    .find(|(path, name)| path.ends_with("/name") && name == old);
                match name {
                    Some((_, name)) if !taken => *name = (*new).to_owned(),
                    _ => return Err(io::Error::other("no such domain, or the name is taken")),
                }
            }
            _ => return Err(io::Error::other("no such verb")),
        }
        Ok(())
    }
}
