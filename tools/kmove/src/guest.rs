//! A guest's own part: it suspends when it is asked to, and goes on.

use std::io;
use std::time::{Duration, Instant};

use crate::store::Store;
use crate::xen::{SUSPENDED, Xen};

/// How long a guest may take to hear of the request, and how long then to suspend. A process that cannot be frozen makes Linux
/// give up after 20 seconds.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

/// A domain, and the connections to the hypervisor and to xenstore.
pub struct Guest {
    /// The hypervisor.
    pub xen: Xen,
    /// The store.
    pub store: Store,
    /// The domain.
    pub id: u16,
    /// Its name.
    pub name: String,
}

impl Guest {
    /// Finds a domain by its name or number.
    pub fn find(name: &str) -> io::Result<Self> {
        let mut store = Store::open()?;
        let id = store.find(name)?;
        if id == 0 {
            return Err(io::Error::other("the control domain stays where it is"));
        }
        let name = store
            .read(&format!("/local/domain/{id}/name"))?
            .unwrap_or_else(|| id.to_string());
        let xen = Xen::open()?;
        Ok(Self {
            xen,
            store,
            id,
            name,
        })
    }

    /// Returns the path of a node of the domain.
    pub fn path(&self, node: &str) -> String {
        format!("/local/domain/{}/{node}", self.id)
    }

    /// Returns an error if the guest will not suspend when it is asked to.
    pub fn ready(&mut self) -> io::Result<()> {
        let name = &self.name;
        let feature = self.store.read(&self.path("control/feature-suspend"))?;
        if feature.as_deref() != Some("1") {
            return Err(io::Error::other(format!(
                "{name} does not offer to suspend: its kernel is still starting, or has no CONFIG_HIBERNATE_CALLBACKS"
            )));
        }
        if let Some(reason) = self.xen.info(self.id)?.shutdown {
            return Err(io::Error::other(format!(
                "{name} does not run: it has shut down (reason {reason})"
            )));
        }
        Ok(())
    }

    /// Has the guest suspend. If it does not, the request is taken back and the guest runs on.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.ready()?;
        // Nobody but this program needs to hear of it: xl would take a suspend as the domain's end.
        let port = self.port()?;
        self.xen.subscribe(self.id, port)?;
        let suspended = self.ask_to_suspend();
        if suspended.is_err() {
            let _ = self.xen.subscribe(self.id, 0);
        }
        suspended
    }

    /// Returns a port for the hypervisor to tell of a suspend, the same one for every time.
    fn port(&mut self) -> io::Result<u32> {
        let node = self.path("device/suspend/event-channel");
        let known = self.store.read(&node)?.and_then(|port| port.parse().ok());
        match known {
            Some(port) => Ok(port),
            None => {
                let port = self.xen.new_port(self.id)?;
                self.store.write(&node, &port.to_string())?;
                Ok(port)
            }
        }
    }

    fn ask_to_suspend(&mut self) -> io::Result<()> {
        let name = self.name.clone();
        let request = self.path("control/shutdown");
        self.store.write(&request, "suspend")?;
        let deadline = Instant::now() + PATIENCE;
        while self.store.read(&request)?.as_deref() == Some("suspend") {
            if Instant::now() > deadline {
                self.store.write(&request, "")?;
                // It may have read the request just before that.
                if self.is_suspended()? {
                    return Ok(());
                }
                return Err(io::Error::other(format!(
                    "{name} does not hear the request to suspend: is it paused (`xl unpause {name}`)? It was taken back"
                )));
            }
            std::thread::sleep(LOOK);
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.is_suspended()? {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "{name} has not suspended, and runs on: its kernel's log says which process it could not freeze"
                )));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Returns whether it has suspended; an error when it has ended in another way.
    fn is_suspended(&mut self) -> io::Result<bool> {
        let info = self.xen.info(self.id)?;
        match info.shutdown {
            None if !info.dying => Ok(false),
            Some(SUSPENDED) => Ok(true),
            _ => Err(io::Error::other(format!(
                "{} has ended instead of suspending",
                self.name
            ))),
        }
    }

    /// Begins to log its writes. A log that somebody has left is ended before.
    pub fn begin_log(&mut self) -> io::Result<()> {
        self.xen
            .end_log(self.id)
            .and_then(|()| self.xen.begin_log(self.id))
            .map_err(|error| {
                io::Error::other(format!(
                    "the hypervisor does not log what {} writes ({error}): `--no-live` moves it suspended",
                    self.name
                ))
            })
    }

    /// Lets it be as it was before it was to move: it runs, and nothing is logged.
    pub fn go_on(&mut self) -> io::Result<()> {
        let ended = self.xen.end_log(self.id);
        if self.is_suspended()? {
            self.resume()?;
        }
        ended
    }

    /// Lets the guest go on where it suspended, as if nothing had been.
    pub fn resume(&mut self) -> io::Result<()> {
        self.xen.resume_in_place(self.id)?;
        self.store.resumed(self.id)?;
        self.xen.subscribe(self.id, 0)
    }
}
