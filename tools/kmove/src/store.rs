//! xenstore, by xenstored's socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use crate::machine::Nodes;

const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];

const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 11;
const ERROR: u32 = 16;
const RESUME: u32 = 18;
/// Most bytes of an answer (`XENSTORE_PAYLOAD_MAX`).
const MOST: u32 = 4096;

/// A connection.
pub struct Store(UnixStream);

impl Store {
    /// Connects.
    pub fn open() -> io::Result<Self> {
        let mut last = io::Error::other("no socket");
        for path in SOCKETS {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self(stream)),
                Err(error) => last = error,
            }
        }
        Err(io::Error::other(format!(
            "cannot connect to xenstored ({last}): does it run?"
        )))
    }

    fn ask(&mut self, kind: u32, payload: &[u8]) -> io::Result<Vec<u8>> {
        let header = [kind, 0, 0, payload.len() as u32];
        let mut message: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        message.extend(payload);
        self.0.write_all(&message)?;
        let mut header = [0; 16];
        self.0.read_exact(&mut header)?;
        let word =
            |n: usize| u32::from_le_bytes(header[4 * n..4 * n + 4].try_into().expect("four"));
        let (answered, length) = (word(0), word(3));
        if length > MOST {
            return Err(io::Error::other("xenstored answers too much"));
        }
        let mut answer = vec![0; length as usize];
        self.0.read_exact(&mut answer)?;
        if answered == ERROR {
            let name = String::from_utf8_lossy(&answer)
                .trim_end_matches('\0')
                .to_owned();
            let kind = match name.as_str() {
                "ENOENT" => io::ErrorKind::NotFound,
                "EACCES" => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::Other,
            };
            return Err(io::Error::new(kind, format!("xenstored says {name}")));
        }
        Ok(answer)
    }

    fn ask_path(&mut self, kind: u32, path: &str) -> io::Result<Vec<u8>> {
        self.ask(kind, format!("{path}\0").as_bytes())
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
    }
}

impl Nodes for Store {
    fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        match self.ask_path(READ, path) {
            Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&mut self, path: &str) -> io::Result<Vec<String>> {
        match self.ask_path(DIRECTORY, path) {
            Ok(names) => Ok(names
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
        self.ask(WRITE, format!("{path}\0{value}").as_bytes())
            .map(drop)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
    }

    fn resumed(&mut self, domain: u16) -> io::Result<()> {
        self.ask(RESUME, format!("{domain}\0").as_bytes()).map(drop)
    }
}
