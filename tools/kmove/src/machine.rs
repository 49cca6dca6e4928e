//! The machine that a domain is on, as far as this program needs it: the hypervisor, xenstore and xl. `xen.rs`, `store.rs` and
//! `xl.rs` are the real ones; the tests have a model (`model.rs`).

use std::io;

use crate::store::Store;
use crate::xen::Xen;
use crate::xl::Xl;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Frames that are described and copied at once: 4 MiB.
pub const BATCH: usize = 1024;
/// First frame of a domU's RAM (`GUEST_RAM0_BASE`).
pub const RAM_START: u64 = 0x4_0000;
/// SHUTDOWN_suspend.
pub const SUSPENDED: u32 = 2;
/// HVM_PARAM_STORE_PFN and HVM_PARAM_CONSOLE_PFN.
pub const PARAMS: [(u32, &str); 2] = [(1, "STORE_PFN"), (17, "CONSOLE_PFN")];

/// HVM_PARAM_STORE_EVTCHN and HVM_PARAM_CONSOLE_EVTCHN.
pub const PORT_PARAMS: [(u32, &str); 2] = [(2, "STORE_EVTCHN"), (18, "CONSOLE_EVTCHN")];

/// EVTCHNSTAT_closed, EVTCHNSTAT_unbound and EVTCHNSTAT_interdomain.
pub const CLOSED: u32 = 0;
pub const UNBOUND: u32 = 1;
pub const INTERDOMAIN: u32 = 2;

/// A port of event channels, as EVTCHNOP_status describes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Port {
    /// Its state, EVTCHNSTAT_*.
    pub status: u32,
    /// The vCPU that its events go to.
    pub vcpu: u32,
    /// The domain at its other end.
    pub domain: u16,
    /// The port there, or the VIRQ.
    pub detail: u32,
}

/// A domain as `getdomaininfo` describes it.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The reason of its shutdown, if it has shut down.
    pub shutdown: Option<u32>,
    /// It is being destroyed.
    pub dying: bool,
}

/// A reading of the log of a domain's writes.
#[derive(Clone, Default, Debug)]
pub struct Log {
    /// Frames that were written since the reading before.
    pub frames: Vec<u64>,
    /// Faults that these writes took.
    pub faults: u32,
    /// Pages that became dirty.
    pub written: u32,
}

/// Operations of the hypervisor.
pub trait Hypervisor {
    /// Returns the state of a domain.
    fn info(&mut self, domain: u16) -> io::Result<Info>;

    /// Resumes a domain that has suspended: its call returns 1, which says that nothing has changed.
    fn resume_in_place(&mut self, domain: u16) -> io::Result<()>;

    /// Pauses a domain.
    fn pause(&mut self, domain: u16) -> io::Result<()>;

    /// Lets a paused domain run.
    fn unpause(&mut self, domain: u16) -> io::Result<()>;

    /// Announces a domain's suspend on its port `port` instead of by VIRQ_DOM_EXC; 0 takes that back.
    fn subscribe(&mut self, domain: u16, port: u32) -> io::Result<()>;

    /// Allocates a port of a domain for this one to bind.
    fn new_port(&mut self, domain: u16) -> io::Result<u32>;

    /// Returns a port of a domain; `None` behind the last one.
    fn port(&mut self, domain: u16, port: u32) -> io::Result<Option<Port>>;

    /// Returns where a domain has the frames of its grant table.
    fn grant_frames(&mut self, domain: u16) -> io::Result<Vec<Option<u64>>>;

    /// Returns a copy of a frame of a domain's grant table.
    fn read_grants(&mut self, domain: u16, index: u32) -> io::Result<Box<[u8; PAGE]>>;

    /// Writes to a frame of a domain's grant table, which grows for it, from a byte on.
    fn write_grants(
        &mut self,
        domain: u16,
        index: u32,
        from: usize,
        bytes: &[u8],
    ) -> io::Result<()>;

    /// Maps a frame of a domain's grant table, which grows for it, at a frame of the domain's.
    fn place_grants(&mut self, domain: u16, index: u32, frame: u64) -> io::Result<()>;

    /// Returns the highest frame of a domain.
    fn last_frame(&mut self, domain: u16) -> io::Result<u64>;

    /// Returns for each of up to [`BATCH`] frames whether a page of the domain's own is there.
    fn have_pages(&mut self, domain: u16, frames: &[u64]) -> io::Result<Vec<bool>>;

    /// Hands a copy of the page at each frame to `each`. While the domain runs, a copy may be torn.
    fn read_pages(
        &mut self,
        domain: u16,
        frames: &[u64],
        each: &mut dyn FnMut(&[u8; PAGE]),
    ) -> io::Result<()>;

    /// Writes pages to frames.
    fn write_pages(&mut self, domain: u16, pages: &[(u64, &[u8; PAGE])]) -> io::Result<()>;

    /// Begins to log which pages a domain writes.
    fn begin_log(&mut self, domain: u16) -> io::Result<()>;

    /// Ends the log; without effect if there is none.
    fn end_log(&mut self, domain: u16) -> io::Result<()>;

    /// Returns which of the first `count` frames of a domain were written, and clears the log.
    fn read_log(&mut self, domain: u16, count: u64) -> io::Result<Log>;

    /// Gives a domain pages at frames; all or an error.
    fn populate(&mut self, domain: u16, frames: &[u64]) -> io::Result<()>;

    /// Takes the pages at frames from a domain; all or an error.
    fn take_away(&mut self, domain: u16, frames: &[u64]) -> io::Result<()>;

    /// Maps a domain's shared_info at a frame.
    fn map_shared_info(&mut self, domain: u16, frame: u64) -> io::Result<()>;

    /// Returns an HVM parameter.
    fn param(&mut self, domain: u16, index: u32) -> io::Result<u64>;

    /// Returns the state of a domain beside its memory (docs/migration-format.md).
    fn context(&mut self, domain: u16) -> io::Result<Vec<u8>>;

    /// Sets that state, of a domain that has never run.
    fn set_context(&mut self, domain: u16, context: &[u8]) -> io::Result<()>;

    /// Cleans and invalidates the caches for `count` frames from `first` on.
    fn flush(&mut self, domain: u16, first: u64, count: u64) -> io::Result<()>;
}

/// xenstore.
pub trait Nodes {
    /// Returns the value of a node; `None` when there is no such node.
    fn read(&mut self, path: &str) -> io::Result<Option<String>>;

    /// Returns the names of a node's children; none when there is no such node.
    fn list(&mut self, path: &str) -> io::Result<Vec<String>>;

    /// Writes a node.
    fn write(&mut self, path: &str, value: &str) -> io::Result<()>;

    /// Tells xenstored that a domain that had shut down runs again.
    fn resumed(&mut self, domain: u16) -> io::Result<()>;
}

/// xl.
pub trait Toolstack {
    /// Makes a paused domain of the text of a configuration.
    fn create(&mut self, config: &str) -> io::Result<()>;

    /// Runs xl with these arguments.
    fn run(&mut self, arguments: &[&str]) -> io::Result<()>;
}

/// The three together.
pub struct Machine {
    /// Its hypervisor.
    pub xen: Box<dyn Hypervisor>,
    /// Its xenstore.
    pub store: Box<dyn Nodes>,
    /// Its xl.
    pub xl: Box<dyn Toolstack>,
}

impl Machine {
    /// Opens the machine that this program runs on.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            xen: Box::new(Xen::open()?),
            store: Box::new(Store::open()?),
            xl: Box::new(Xl),
        })
    }

    /// Returns the domain with this name or number.
    pub fn find(&mut self, name: &str) -> io::Result<u16> {
        for id in self.store.list("/local/domain")? {
            let own = self.store.read(&format!("/local/domain/{id}/name"))?;
            if own.as_deref() == Some(name) || id == name {
                return id
                    .parse()
                    .map_err(|_| io::Error::other(format!("{id} is no number of a domain")));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no domain {name}: see `xl list`"),
        ))
    }
}
