use std::io::{self, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{How, Peer, Sent, receive, send, word};
use crate::guest::Guest;
use crate::machine::PAGE;
use crate::model::{Domain, Model, State};
use crate::restore;
use crate::stream::{CONFIG, Content, HVM_CONTEXT, Reader, Record};

const PATIENCE: Duration = Duration::from_secs(600);
const CONFIGURATION: &str = "name = \"demo\"\n";
const STATE: [u8; 16] = [3; 16];

#[test]
fn words_are_lines_and_half_a_line_is_none() {
    let mut from = BufReader::new(&b"ready\nruns\n"[..]);
    assert_eq!(word(&mut from).unwrap().as_deref(), Some("ready"));
    assert_eq!(word(&mut from).unwrap().as_deref(), Some("runs"));
    assert_eq!(word(&mut from).unwrap(), None);
    for none in [&b"go"[..], &[b'x'; 1000]] {
        assert_eq!(word(&mut BufReader::new(none)).unwrap(), None);
    }
}

/// One direction of a cable, which is cut behind so many bytes.
struct Cut {
    socket: UnixStream,
    left: usize,
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(self.left);
        self.left -= length;
        if length == 0 {
            let _ = self.socket.shutdown(Shutdown::Both);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.socket.write(&bytes[..length])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// Both ends of a move, and what became of it.
struct Moved {
    here: Model,
    there: Model,
    sent: io::Result<Sent>,
    received: io::Result<restore::Summary>,
}

/// Moves a domain by a cable that is cut behind so many bytes of each direction.
fn moved(how: How, stream: usize, words: usize) -> Moved {
    let (here, there) = (Model::default(), Model::default());
    here.start("demo", &STATE);
    let mut guest = Guest::find(here.machine(), "demo").unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let to = Cut {
        socket: near.try_clone().unwrap(),
        left: stream,
    };
    let peer = Peer::over(to, near, PATIENCE);
    let other = there.clone();
    let receiver = std::thread::spawn(move || {
        let to = Cut {
            socket: far.try_clone().unwrap(),
            left: words,
        };
        receive(&mut other.machine(), far, to)
    });
    let sent = send(&mut guest, CONFIGURATION, peer, how);
    let received = receiver.join().unwrap();
    Moved {
        here,
        there,
        sent,
        received,
    }
}

fn domain(model: &Model) -> Option<Domain> {
    let world = model.world();
    assert!(world.domains.len() <= 1, "{:?}", world.nodes);
    world.domains.values().next().cloned()
}

/// Returns the stream of a domain that moves, and where each of its records ends.
fn records(how: How) -> (Vec<u8>, Vec<usize>) {
    let model = Model::default();
    model.start("demo", &STATE);
    let mut guest = Guest::find(model.machine(), "demo").unwrap();
    let mut stream = Vec::new();
    match how {
        How::Live => drop(crate::live::domain(&mut guest, CONFIGURATION, &mut stream).unwrap()),
        How::Suspended => {
            guest.suspend().unwrap();
            crate::save::domain(&mut guest, CONFIGURATION, &mut stream).unwrap();
        }
    }
    let mut reader = Reader::start(&stream[..]).unwrap();
    let mut ends = vec![reader.bytes as usize];
    while reader.record().unwrap() != Record::End {
        ends.push(reader.bytes as usize);
    }
    ends.push(stream.len());
    (stream, ends)
}

#[test]
fn a_domain_that_writes_all_the_time_moves_with_all_that_it_wrote() {
    for how in [How::Live, How::Suspended] {
        let moved = moved(how, usize::MAX, usize::MAX);
        let sent = moved.sent.unwrap();
        assert_eq!(moved.received.unwrap().name, "demo");
        assert_eq!(domain(&moved.here), None);
        let arrived = domain(&moved.there).unwrap();
        assert!(
            arrived.in_caches.is_empty(),
            "its instructions are in memory"
        );
        assert_eq!(
            (arrived.state, &arrived.context[..]),
            (State::Running, &STATE[..])
        );
        // The model's guest writes the same when it is looked at as often.
        let (stream, _) = records(how);
        let model = Model::default();
        restore::domain(&mut model.machine(), &stream[..], None, true).unwrap();
        assert!(domain(&model).unwrap().pages == arrived.pages);
        let again = sent.rounds.map_or(0, |rounds| rounds.again);
        assert_eq!(again > 0, how == How::Live);
    }
}

/// A live stream leaves the target with the memory that the source has when it is suspended.
#[test]
fn memory_is_the_same_on_both_sides() {
    let model = Model::default();
    model.start("demo", &STATE);
    let mut guest = Guest::find(model.machine(), "demo").unwrap();
    let mut stream = Vec::new();
    crate::live::domain(&mut guest, CONFIGURATION, &mut stream).unwrap();
    let source = domain(&model).unwrap();
    assert_eq!(source.state, State::Suspended);
    let there = Model::default();
    restore::domain(&mut there.machine(), &stream[..], None, true).unwrap();
    let target = domain(&there).unwrap();
    assert!(target.pages == source.pages);
    assert_eq!(target.state, State::New);
}

/// Before `go` is sent the source goes on, and nothing is left there.
fn is_here_alone(moved: &Moved, what: &str) {
    let error = moved.sent.as_ref().expect_err(what).to_string();
    assert!(error.contains("demo runs on"), "{what}: {error}");
    assert!(moved.received.is_err(), "{what}");
    let source = domain(&moved.here).expect(what);
    assert_eq!((source.state, source.log), (State::Running, None), "{what}");
    assert_eq!(domain(&moved.there), None, "{what}");
    assert!(moved.there.world().nodes.is_empty(), "{what}");
}

#[test]
fn a_cable_cut_at_every_record_leaves_the_domain_here() {
    for how in [How::Live, How::Suspended] {
        let (stream, ends) = records(how);
        let mut cuts: Vec<usize> = ends
            .iter()
            .flat_map(|end| [end - 1, *end, end + 4, end + 12])
            .collect();
        cuts.extend([0, 1, 39]);
        cuts.retain(|cut| *cut < stream.len());
        for cut in cuts {
            let moved = moved(how, cut, usize::MAX);
            is_here_alone(&moved, &format!("{how:?}, cut behind byte {cut}"));
        }
    }
}

#[test]
fn a_cable_cut_before_the_word_ready_leaves_the_domain_here() {
    for cut in 0.."ready".len() {
        let moved = moved(How::Live, usize::MAX, cut);
        is_here_alone(&moved, &format!("cut behind byte {cut} of the answer"));
    }
}

/// The one case that a person has to look at: `go` or the answer to it is lost. It runs on one side at most.
#[test]
fn a_cable_cut_at_the_word_go_leaves_the_domain_suspended_here() {
    let (stream, _) = records(How::Live);
    for cut in 0.."go\n".len() {
        let moved = moved(How::Live, stream.len() + cut, usize::MAX);
        let error = moved.sent.unwrap_err().to_string();
        assert!(error.contains("may run on the other side"), "{error}");
        assert_eq!(domain(&moved.here).unwrap().state, State::Suspended);
        assert_eq!(domain(&moved.there), None);
    }
    for cut in "ready\n".len().."ready\nruns\n".len() {
        let moved = moved(How::Live, usize::MAX, cut);
        let error = moved.sent.unwrap_err().to_string();
        assert!(error.contains("may run on the other side"), "{error}");
        assert_eq!(domain(&moved.here).unwrap().state, State::Suspended);
        assert_eq!(domain(&moved.there).unwrap().state, State::Running);
    }
}

/// A damaged stream leaves nothing, whatever part of it is damaged: of each record the first and last bytes of its header, its
/// length and its body, each bit of them.
#[test]
fn a_damaged_stream_leaves_nothing() {
    let (stream, ends) = records(How::Suspended);
    let places = ends.iter().flat_map(|end| {
        [
            *end,
            end + 3,
            end + 4,
            end + 7,
            end + 8,
            end + 15,
            end + 16,
            end - 1,
        ]
    });
    let places = (0..40).chain(places);
    let is_padding = |at: usize| (18..24).contains(&at);
    for at in places.filter(|at| *at < stream.len() && !is_padding(*at)) {
        for bit in 0..8 {
            let mut damaged = stream.clone();
            damaged[at] ^= 1 << bit;
            let model = Model::default();
            let restored = restore::domain(&mut model.machine(), &damaged[..], None, false);
            assert!(restored.is_err(), "byte {at}, bit {bit}");
            assert_eq!(domain(&model), None, "byte {at}, bit {bit}");
        }
    }
}

/// Records in another order, or missing, are refused by name, even if their sum is right.
#[test]
fn a_stream_of_wrong_records_leaves_nothing() {
    let page = || (0x4_0000, Content::Page(Box::new([1; PAGE])));
    let restored = |write: &dyn Fn(&mut crate::stream::Writer<Vec<u8>>)| {
        let mut writer = crate::stream::Writer::start(Vec::new()).unwrap();
        write(&mut writer);
        let stream = writer.end().unwrap();
        let model = Model::default();
        let error = restore::domain(&mut model.machine(), &stream[..], None, false).unwrap_err();
        assert_eq!(domain(&model), None);
        error.to_string()
    };
    let config = |writer: &mut crate::stream::Writer<Vec<u8>>| {
        writer.record(CONFIG, CONFIGURATION.as_bytes()).unwrap();
    };
    assert!(restored(&|_| ()).contains("missing"));
    assert!(restored(&|to| to.pages(&[page()]).unwrap()).contains("pages before"));
    assert!(restored(&|to| (config(to), config(to)).0).contains("two configurations"));
    let low = || (0x3_9000, Content::Zero);
    let with_pages = |frames: &[(u64, Content)]| {
        restored(&|to| {
            config(to);
            to.record(crate::stream::STATIC_DATA_END, &[]).unwrap();
            to.pages(frames).unwrap();
            to.record(HVM_CONTEXT, &STATE).unwrap();
            to.params(&[(1, 0)]).unwrap();
        })
    };
    assert!(with_pages(&[low()]).contains("below"));
    assert!(with_pages(&[(0x5_0000, Content::Zero)]).contains("giving pages"));
    assert!(with_pages(&[page()]).contains("STORE_PFN elsewhere"));
}
