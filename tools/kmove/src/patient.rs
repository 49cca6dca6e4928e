//! A link that may be silent: reads and writes that give up after a time. A cable that is pulled ends no connection.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// Bytes that are handed over at once.
const CHUNK: usize = 1 << 16;
/// Chunks that may wait.
const WAITING: usize = 4;

fn gave_up(patience: Duration, fault: &str) -> io::Error {
    let seconds = patience.as_secs();
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{fault} for {seconds} seconds"),
    )
}

/// Reads from where nothing may come.
pub struct Reader {
    from: Receiver<io::Result<Vec<u8>>>,
    /// Bytes that came, and how many of them were read.
    chunk: Vec<u8>,
    at: usize,
    patience: Duration,
}

impl Reader {
    /// Reads from `from`, in a thread that lives until that ends.
    pub fn new(mut from: impl Read + Send + 'static, patience: Duration) -> Self {
        let (to, chunks) = sync_channel(WAITING);
        thread::spawn(move || {
            loop {
                let mut chunk = vec![0; CHUNK];
                let read = from.read(&mut chunk).map(|length| {
                    chunk.truncate(length);
                    chunk
                });
                let is_last = !matches!(read, Ok(ref chunk) if !chunk.is_empty());
                if to.send(read).is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            from: chunks,
            chunk: Vec::new(),
            at: 0,
            patience,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            self.at = 0;
            self.chunk = match self.from.recv_timeout(self.patience) {
                Ok(chunk) => chunk?,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(gave_up(self.patience, "nothing came from the other side"));
                }
                // Behind the end is the end.
                Err(RecvTimeoutError::Disconnected) => Vec::new(),
            };
        }
        let length = to.len().min(self.chunk.len() - self.at);
        to[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// Writes to where nothing may be taken. The end of what is written to follows its drop, behind all that was written.
pub struct Writer {
    to: Sender<Vec<u8>>,
    /// A word for each chunk that may be handed over, or the error behind which none may.
    room: Receiver<io::Result<()>>,
    patience: Duration,
}

impl Writer {
    /// Writes to `to`, in a thread that lives until all is written.
    pub fn new(mut to: impl Write + Send + 'static, patience: Duration) -> Self {
        let (chunks, from) = channel::<Vec<u8>>();
        let (free, room) = channel();
        for _ in 0..WAITING {
            // The receiver is here.
            let _ = free.send(Ok(()));
        }
        thread::spawn(move || {
            for chunk in from {
                let written = to.write_all(&chunk).and_then(|()| to.flush());
                let failed = written.is_err();
                // Fails when the writer was dropped: what it handed over is written all the same.
                let _ = free.send(written);
                if failed {
                    return;
                }
            }
        });
        Self {
            to: chunks,
            room,
            patience,
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = || io::ErrorKind::BrokenPipe.into();
        match self.room.recv_timeout(self.patience) {
            Ok(room) => room?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(gave_up(self.patience, "the other side took nothing"));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(gone()),
        }
        let length = bytes.len().min(CHUNK);
        match self.to.send(bytes[..length].to_vec()) {
            Ok(()) => Ok(length),
            // The error is behind the words for chunks that were written.
            Err(_) => Err(self
                .room
                .try_iter()
                .find_map(Result::err)
                .unwrap_or_else(gone)),
        }
    }

    /// Has no effect: what was handed over is on its way, and an error shows at the next write or answer.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::{CHUNK, Reader, WAITING, Writer};

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn all_bytes_go_through_in_order_and_then_the_end() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut writer = Writer::new(here, LONG);
        let mut reader = Reader::new(there, LONG);
        let bytes: Vec<u8> = (0..5 * CHUNK).map(|n| (n / 7) as u8).collect();
        let sent = bytes.clone();
        let sends = std::thread::spawn(move || writer.write_all(&sent));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        sends.join().unwrap().unwrap();
        assert!(got == bytes);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_silent_link_is_given_up() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut reader = Reader::new(here.try_clone().unwrap(), SHORT);
        let error = reader.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Bytes that nobody takes fill the socket, and then the chunks.
        let mut writer = Writer::new(here, SHORT);
        let all = vec![0; 1 << 20];
        let error = (0..1000 * WAITING).find_map(|_| writer.write_all(&all).err());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::TimedOut);
        drop(there);
    }

    #[test]
    fn a_broken_link_is_told() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        let mut writer = Writer::new(here, LONG);
        let error = (0..1000).find_map(|_| writer.write_all(&[0; CHUNK]).err());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
