//! The guest's own part: it suspends when it is asked to, and resumes.

use std::io;
use std::time::{Duration, Instant};

use crate::machine::{Machine, SUSPENDED};

/// Longest time for a guest to take notice of the request, and longest time to suspend after that. Linux gives up by itself
/// when a process has not frozen for 20 seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at xenstore.
const LOOK: Duration = Duration::from_millis(10);
/// Time between two looks at the domain, which stands still when it has suspended.
const CLOSE_LOOK: Duration = Duration::from_millis(1);

/// A domain, and the machine that it is on.
pub struct Guest {
    /// The machine.
    pub machine: Machine,
    /// The domain.
    pub id: u16,
    /// Its name.
    pub name: String,
}

impl Guest {
    /// Returns the domain with this name or number.
    pub fn find(mut machine: Machine, name: &str) -> io::Result<Self> {
        let id = machine.find(name)?;
        if id == 0 {
            return Err(io::Error::other("the control domain cannot be moved"));
        }
        let name = machine
            .store
            .read(&format!("/local/domain/{id}/name"))?
            .unwrap_or_else(|| id.to_string());
        Ok(Self { machine, id, name })
    }

    /// Returns the path of a node of the domain.
    pub fn path(&self, node: &str) -> String {
        format!("/local/domain/{}/{node}", self.id)
    }

    /// Returns the value of a node of the domain.
    pub fn node(&mut self, node: &str) -> io::Result<Option<String>> {
        let path = self.path(node);
        self.machine.store.read(&path)
    }

    /// Returns an error unless the guest runs and suspends on request.
    pub fn ready(&mut self) -> io::Result<()> {
        let feature = self.node("control/feature-suspend")?;
        if feature.as_deref() != Some("1") {
            return Err(io::Error::other(format!(
                "{} does not offer to suspend: its kernel is still starting, or has no CONFIG_HIBERNATE_CALLBACKS",
                self.name
            )));
        }
        if let Some(reason) = self.machine.xen.info(self.id)?.shutdown {
            return Err(io::Error::other(format!(
                "{} does not run: it has shut down (reason {reason})",
                self.name
            )));
        }
        Ok(())
    }

    /// Has the guest suspend. If it does not, withdraws the request, and the guest runs on.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.ready()?;
        // Only this program hears of the suspend: xl would take it for the domain's end.
        let port = self.port()?;
        self.machine.xen.subscribe(self.id, port)?;
        let suspended = self.request_suspend();
        if suspended.is_err() {
            let _ = self.machine.xen.subscribe(self.id, 0);
        }
        suspended
    }

    /// Returns the port by which the hypervisor announces a suspend: one port for each domain, however often it suspends.
    fn port(&mut self) -> io::Result<u32> {
        let node = "device/suspend/event-channel";
        let known = self.node(node)?.and_then(|port| port.parse().ok());
        match known {
            Some(port) => Ok(port),
            None => {
                let port = self.machine.xen.new_port(self.id)?;
                let path = self.path(node);
                self.machine.store.write(&path, &port.to_string())?;
                Ok(port)
            }
        }
    }

    fn request_suspend(&mut self) -> io::Result<()> {
        let request = self.path("control/shutdown");
        self.machine.store.write(&request, "suspend")?;
        let deadline = Instant::now() + PATIENCE;
        while self.machine.store.read(&request)?.as_deref() == Some("suspend") {
            if Instant::now() > deadline {
                self.machine.store.write(&request, "")?;
                // The guest may have read the request just before.
                if self.is_suspended()? {
                    return Ok(());
                }
                let name = &self.name;
                return Err(io::Error::other(format!(
                    "{name} does not take notice of the request to suspend: is it paused (`xl unpause {name}`)? The request is \
                     withdrawn"
                )));
            }
            std::thread::sleep(LOOK);
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.is_suspended()? {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "{} has not suspended, and runs on: its kernel's log names the process that could not be frozen",
                    self.name
                )));
            }
            std::thread::sleep(CLOSE_LOOK);
        }
        Ok(())
    }

    /// Returns whether the guest has suspended; an error when it has ended in another way.
    fn is_suspended(&mut self) -> io::Result<bool> {
        let info = self.machine.xen.info(self.id)?;
        match info.shutdown {
            None if !info.dying => Ok(false),
            Some(SUSPENDED) => Ok(true),
            _ => Err(io::Error::other(format!(
                "{} has ended instead of suspending",
                self.name
            ))),
        }
    }

    /// Begins to log the domain's writes. Ends a log that was left over.
    pub fn begin_log(&mut self) -> io::Result<()> {
        let xen = &mut self.machine.xen;
        xen.end_log(self.id)
            .and_then(|()| xen.begin_log(self.id))
            .map_err(|error| {
                io::Error::other(format!(
                    "the hypervisor does not log what {} writes ({error}): `--no-live` moves it suspended",
                    self.name
                ))
            })
    }

    /// Undoes a move that failed: the domain runs, and its writes are not logged.
    pub fn go_on(&mut self) -> io::Result<()> {
        let ended = self.machine.xen.end_log(self.id);
        if self.is_suspended()? {
            self.resume()?;
        }
        ended
    }

    /// Resumes the guest where it suspended.
    pub fn resume(&mut self) -> io::Result<()> {
        self.machine.xen.resume_in_place(self.id)?;
        self.machine.store.resumed(self.id)?;
        self.machine.xen.subscribe(self.id, 0)
    }

    /// Pauses the domain, whatever its guest does. One that has ended is left as it is.
    pub fn pause(&mut self) -> io::Result<()> {
        self.machine.xen.pause(self.id)?;
        let ended = match self.machine.xen.info(self.id) {
            Ok(info) if info.shutdown.is_none() && !info.dying => return Ok(()),
            Ok(_) => io::Error::other(format!("{} has ended", self.name)),
            Err(error) => error,
        };
        self.machine.xen.unpause(self.id)?;
        Err(ended)
    }

    /// Returns the state of the domain beside its memory.
    pub fn context(&mut self) -> io::Result<Vec<u8>> {
        self.machine.xen.context(self.id).map_err(|error| {
            io::Error::other(format!("the hypervisor does not give its state: {error}"))
        })
    }

    /// Destroys the domain, which is `elsewhere` now.
    pub fn destroy(&mut self, elsewhere: &str) -> io::Result<()> {
        let destroyed = self.machine.xl.run(&["destroy", &self.id.to_string()]);
        destroyed.map_err(|error| {
            io::Error::other(format!(
                "{elsewhere}, but {error}: {} is suspended here, and must not resume",
                self.name
            ))
        })
    }
}
