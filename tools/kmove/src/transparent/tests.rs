use std::io;

use super::{PORTS, SELF, look};
use crate::guest::Guest;
use crate::machine::{INTERDOMAIN, PAGE, Port, RAM_START, UNBOUND};
use crate::model::{Domain, Model};
use crate::stream::{HVM_CONTEXT, KEPT, Keeps, Kept, Writer, record_in};
use crate::{restore, save};

const CONFIGURATION: &str = "name = \"demo\"\n";
const SHARED_INFO: u32 = RAM_START as u32 + 4;
const STORE: u64 = 0x3_9001;
const CONSOLE: u64 = 0x3_9011;
const IPI: Port = Port {
    status: 5,
    vcpu: 1,
    domain: 0,
    detail: 0,
};

/// Returns the state of a domain, with that in the word `word` of its record DOMAIN.
fn context(word: usize, value: u32) -> Vec<u8> {
    let mut words = [7, 40, 1, 2, 3, 4, SHARED_INFO, 1, 1, 0, 0, 0, 0, 0];
    words[2 + word] = value;
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Returns a machine with a paused guest that has ports, grants, and bytes in its rings.
fn started() -> (Model, u16) {
    let model = Model::default();
    // Its number is not the next one's.
    model.start("other", &[]);
    let id = model.start("demo", &context(5, 1));
    let mut world = model.world();
    let path = format!("/local/domain/{id}/data/mark/deep");
    world.nodes.insert(path, "here".to_owned());
    let domain = world.domains.get_mut(&id).unwrap();
    domain.pauses = 1;
    domain.ports.extend([
        Port {
            status: UNBOUND,
            domain: id,
            ..Port::default()
        },
        Port::default(),
        Port {
            status: INTERDOMAIN,
            domain: id,
            detail: 3,
            ..Port::default()
        },
        IPI,
        Port {
            status: 4,
            detail: 1,
            ..Port::default()
        },
        Port {
            status: UNBOUND,
            ..Port::default()
        },
        Port::default(),
        Port::default(),
    ]);
    domain.grants[0].0 = Some(0x3_8000);
    domain.grants[0].1[16..24].copy_from_slice(&[1, 0, 0, 0, 9, 0, 4, 0]);
    domain.grants[0].1[24..32].copy_from_slice(&[1, 0, id as u8, 0, 8, 0, 4, 0]);
    domain.grants.push((None, Box::new([0; PAGE])));
    domain.grants[1].1[8..16].copy_from_slice(&[1, 0, 0, 0, 7, 0, 4, 0]);
    let store = domain.pages.get_mut(&STORE).unwrap();
    store[..STORE_BYTES].fill(0xA5);
    let console = domain.pages.get_mut(&CONSOLE).unwrap();
    console.fill(0x5A);
    drop(world);
    (model, id)
}

/// Bytes of the ring of xenstore that are the guest's.
const STORE_BYTES: usize = 2064;

fn guest(model: &Model) -> Guest {
    Guest::find(model.machine(), "demo").unwrap()
}

fn saved(model: &Model) -> io::Result<Vec<u8>> {
    let mut stream = Vec::new();
    save::unaware(&mut guest(model), CONFIGURATION, &mut stream).map(|_| stream)
}

fn restored(model: &Model, stream: &[u8]) -> io::Result<u16> {
    let made = restore::domain(&mut model.machine(), stream, Some("twin"), true)?;
    assert_eq!(made.name, "twin");
    model.machine().find("twin")
}

#[test]
fn a_guest_that_knows_nothing_of_it_comes_back_with_all_that_it_had() {
    let (model, id) = started();
    let stream = saved(&model).unwrap();
    let twin = restored(&model, &stream).unwrap();
    let world = model.world();
    let (old, new): (&Domain, &Domain) = (&world.domains[&id], &world.domains[&twin]);
    assert_eq!(old.pauses, 1);
    assert_eq!(new.pages[&CONSOLE], old.pages[&CONSOLE]);
    assert_eq!(new.pages[&STORE], old.pages[&STORE]);
    assert_eq!(new.pages[&RAM_START], old.pages[&RAM_START]);
    // The same grants, of which those to itself name its new number.
    assert_eq!(new.grants.len(), 2);
    assert_eq!(new.grants[0].0, Some(0x3_8000));
    assert_eq!(new.grants[0].1[..16], old.grants[0].1[..16]);
    assert_eq!(new.grants[0].1[16..24], old.grants[0].1[16..24]);
    assert_eq!(new.grants[0].1[24..32], [1, 0, twin as u8, 0, 8, 0, 4, 0]);
    assert_eq!(new.grants[1], old.grants[1]);
    let node = format!("/local/domain/{twin}/data/mark/deep");
    assert_eq!(world.nodes.get(&node).map(String::as_str), Some("here"));
    // The hypervisor's records, with the ports, and a counter that stands still.
    let words: Vec<u32> = new
        .context
        .chunks(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(
        words[..8],
        [7, 40, 1, 2, u32::MAX, u32::MAX, SHARED_INFO, 1]
    );
    let own = u32::from(SELF) << 16;
    let ports = [
        [0, 0],
        [2, 77],
        [2, 77],
        [1 | own, 0],
        [0, 0],
        [2 | own, 3],
        [5 | 1 << 8, 0],
        [4, 1],
        [1, 0],
    ];
    assert_eq!(words[12..14], [u32::from(PORTS), 72]);
    assert_eq!(words[14..32], *ports.as_flattened());
    assert_eq!(words[32..], [0, 0]);
}

#[test]
fn what_cannot_come_back_is_named() {
    type Change = fn(&mut Domain);
    let changes: [(Change, &str); 9] = [
        (
            |d| {
                d.ports[6] = Port {
                    status: INTERDOMAIN,
                    detail: 8,
                    ..IPI
                }
            },
            "its port 6 (device/vbd/51712) leads to port 8 of domain 0",
        ),
        (
            |d| {
                d.ports[3] = Port {
                    status: INTERDOMAIN,
                    detail: 9,
                    ..IPI
                }
            },
            "its port 3 leads to port 9 of domain 0",
        ),
        (
            |d| {
                d.ports[1] = Port {
                    status: INTERDOMAIN,
                    domain: 4,
                    detail: 9,
                    vcpu: 0,
                }
            },
            "its port 1 leads to port 9 of domain 4",
        ),
        (
            |d| d.grants[0].1[16] |= 8,
            "domain 0 has mapped its grant 2",
        ),
        (
            |d| d.grants[1].1[8..12].copy_from_slice(&[17, 0, 5, 0]),
            "domain 5 has mapped its grant 513",
        ),
        (|d| d.grants[0].1[2] = 6, "domain 6 has mapped its grant 0"),
        (
            |d| d.context = context(7, 1),
            "it uses FIFO event channels, as Linux does",
        ),
        (
            |d| d.context = context(8, 1),
            "it has set a watchdog of the hypervisor's",
        ),
        (
            |d| d.context = context(9, 1),
            "it has mapped grants of another domain",
        ),
    ];
    for (change, words) in changes {
        let (model, id) = started();
        let mut world = model.world();
        let port = format!("/local/domain/{id}/device/vbd/51712/queue-0/event-channel");
        world.nodes.insert(port, "6".to_owned());
        let domain = world.domains.get_mut(&id).unwrap();
        change(domain);
        let before = domain.clone();
        drop(world);
        let error = saved(&model).unwrap_err().to_string();
        assert_eq!(error, format!("demo cannot be saved so: {words}"));
        assert_eq!(model.world().domains[&id], before);
    }
}

#[test]
fn a_question_to_xenstore_that_has_no_answer_is_waited_for() {
    let (model, id) = started();
    let mut world = model.world();
    let store = world
        .domains
        .get_mut(&id)
        .unwrap()
        .pages
        .get_mut(&STORE)
        .unwrap();
    store[2052] = 0xA6;
    drop(world);
    let error = look(&mut guest(&model)).err().unwrap().to_string();
    assert!(
        error.ends_with("it waits for xenstore: try again"),
        "{error}"
    );
}

#[test]
fn pages_that_are_none_of_a_guest_are_refused_and_leave_nothing() {
    let page = || Box::new([0; PAGE]);
    let no_place = context(4, u32::MAX);
    let right = context(5, 1);
    let grant = |index| Keeps::GrantFrame { index, place: None };
    let faults: [(&[u8], [Keeps; 2]); 3] = [
        (&no_place, [Keeps::SharedInfo, Keeps::StoreRing]),
        (&right, [Keeps::StoreRing, Keeps::StoreRing]),
        (
            &right,
            [
                grant(2),
                Keeps::GrantFrame {
                    index: 2,
                    place: Some(7),
                },
            ],
        ),
    ];
    for (context, both) in faults {
        refused(|writer| {
            for keeps in both {
                writer.record(KEPT, &Kept::new(keeps, page()).body())?;
            }
            writer.record(HVM_CONTEXT, context)
        });
    }
    let heads: [[u64; 3]; 5] = [
        [4, 0, 0],
        [0, 1, u64::MAX],
        [0, 0, 0],
        [3, 1024, 7],
        [u64::MAX, 0, 0],
    ];
    for head in heads {
        refused(|writer| {
            let mut body: Vec<u8> = head
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            body.extend(page().iter());
            writer.record(KEPT, &body)?;
            writer.record(HVM_CONTEXT, &right)
        });
    }
    for length in [0, 8, 24, 24 + PAGE - 1, 24 + PAGE + 1] {
        refused(|writer| {
            writer.record(KEPT, &vec![0; length])?;
            writer.record(HVM_CONTEXT, &right)
        });
    }
}

/// The stream with these records is refused.
fn refused(records: impl Fn(&mut Writer<Vec<u8>>) -> io::Result<()>) {
    let model = Model::default();
    let mut writer = Writer::start(Vec::new()).unwrap();
    writer
        .record(crate::stream::CONFIG, CONFIGURATION.as_bytes())
        .unwrap();
    let params = [(1, STORE), (2, 1), (17, CONSOLE), (18, 2)];
    writer.params(&params).unwrap();
    records(&mut writer).unwrap();
    let stream = writer.end().unwrap();
    assert!(restored(&model, &stream).is_err());
    assert!(model.world().domains.is_empty());
}

#[test]
fn a_record_is_found_where_it_is_whole() {
    let context = context(0, 5);
    assert_eq!(record_in(&context, 7), Some(8..48));
    assert_eq!(record_in(&context, 9), None);
    for length in 0..48 {
        assert_eq!(record_in(&context[..length], 7), None);
    }
    assert_eq!(record_in(&[1, 0, 0, 0, 255, 255, 255, 255], 7), None);
}

#[test]
fn more_nodes_than_a_stream_holds_are_refused_before_anything_ends() {
    let (model, id) = started();
    let mut world = model.world();
    for n in 0..40 {
        let path = format!("/local/domain/{id}/data/node{n}");
        world.nodes.insert(path, "x".repeat(2000));
    }
    drop(world);
    let error = saved(&model).unwrap_err().to_string();
    assert!(error.contains("at most 65536 are allowed"), "{error}");
}
