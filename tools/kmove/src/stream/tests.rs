use super::{CONFIG, Content, HVM_CONTEXT, NODES, PAGE, Reader, Record, STATIC_DATA_END, Writer};

fn page(byte: u8) -> Content {
    Content::Page(Box::new([byte; PAGE]))
}

fn batch() -> Vec<(u64, Content)> {
    vec![
        (0x40000, page(7)),
        (0x40001, Content::Zero),
        (0x40002, Content::Hole),
        (0xFFF_FFFF, page(9)),
    ]
}

fn stream() -> Vec<u8> {
    let mut writer = Writer::start(Vec::new()).unwrap();
    writer.record(CONFIG, b"name = \"demo\"\n").unwrap();
    writer
        .record(NODES, b"control/feature-suspend 1\n")
        .unwrap();
    writer.record(STATIC_DATA_END, &[]).unwrap();
    writer.pages(&batch()).unwrap();
    writer.params(&[(1, 0x39001), (17, 0x39000)]).unwrap();
    writer.record(HVM_CONTEXT, &[1, 2, 3, 4]).unwrap();
    writer.end().unwrap()
}

/// Returns all records, or what is wrong.
fn read(bytes: &[u8]) -> Result<Vec<Record>, String> {
    let mut reader = Reader::start(bytes).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    loop {
        let record = reader.record().map_err(|error| error.to_string())?;
        records.push(record.clone());
        if record == Record::End {
            return Ok(records);
        }
    }
}

#[test]
fn a_stream_comes_back_as_it_went() {
    let bytes = stream();
    assert_eq!(&bytes[..12], b"\xff\xff\xff\xff\xff\xff\xff\xffXENF");
    assert!(bytes.len().is_multiple_of(8));
    let node = ("control/feature-suspend".to_owned(), "1".to_owned());
    let expected = [
        Record::Config("name = \"demo\"\n".to_owned()),
        Record::Nodes(vec![node]),
        Record::StaticDataEnd,
        Record::Pages(batch()),
        Record::Params(vec![(1, 0x39001), (17, 0x39000)]),
        Record::Context(vec![1, 2, 3, 4]),
        Record::Other,
        Record::End,
    ];
    assert_eq!(read(&bytes).unwrap(), expected);
}

#[test]
fn a_stream_that_is_cut_anywhere_says_where() {
    let bytes = stream();
    for length in (0..bytes.len()).step_by(4) {
        let error = read(&bytes[..length]).unwrap_err();
        assert!(error.contains("cut off behind byte"), "{length}: {error}");
    }
}

/// The sum finds what the form does not.
#[test]
fn a_stream_with_any_damaged_byte_is_refused() {
    let bytes = stream();
    let padding = |at: usize| (18..24).contains(&at);
    for at in (0..bytes.len()).filter(|at| at % 97 == 0 || *at < 256 || bytes.len() - at < 64) {
        // Bytes of the headers that are reserved, or tell who wrote it, are covered by the sum alone.
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        assert!(read(&damaged).is_err() || padding(at), "byte {at}");
    }
}

#[test]
fn records_of_wrong_form_are_refused_by_name() {
    let refused = |kind: u32, body: &[u8]| {
        let mut writer = Writer::start(Vec::new()).unwrap();
        writer.record(kind, body).unwrap();
        read(&writer.end().unwrap()).unwrap_err()
    };
    assert!(refused(0x77, &[]).contains("does not know"));
    assert!(refused(STATIC_DATA_END, &[1]).contains("should be empty"));
    assert!(refused(CONFIG, &[0xFF]).contains("no text"));
    assert!(refused(NODES, b"word\n").contains("without value"));
    assert!(refused(super::HVM_PARAMS, &[2, 0, 0, 0, 0, 0, 0, 0]).contains("count"));
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    assert!(refused(super::PAGE_DATA, &words(&[0])).contains("count"));
    assert!(refused(super::PAGE_DATA, &words(&[1025])).contains("count"));
    assert!(refused(super::PAGE_DATA, &words(&[1, 0x40000])).contains("missing"));
    assert!(refused(super::PAGE_DATA, &words(&[1, 5 << 60])).contains("type 0x5"));
    assert!(refused(super::PAGE_DATA, &words(&[1, 0xF << 60 | 1 << 30])).contains("beyond"));
    assert!(refused(super::PAGE_DATA, &words(&[1, 0xF << 60, 0])).contains("more than"));
    let mut writer = Writer::start(Vec::new()).unwrap();
    writer.begin(HVM_CONTEXT, 1 << 20).unwrap();
    assert!(
        read(&writer.end().unwrap())
            .unwrap_err()
            .contains("at most")
    );
    // One that may be ignored is.
    let mut writer = Writer::start(Vec::new()).unwrap();
    writer.record(0x8000_0077, &[1, 2]).unwrap();
    assert_eq!(
        read(&writer.end().unwrap()).unwrap(),
        [Record::Other, Record::Other, Record::End]
    );
}

#[test]
fn shared_info_is_found_in_a_context() {
    let mut context = Vec::new();
    for word in [1u32, 4, 0, 7, 28, 1, 2, 3, 4, 0x41234, 1, 0, 0, 0] {
        context.extend(word.to_le_bytes());
    }
    assert_eq!(super::shared_info_in(&context), Some(0x41234));
    assert_eq!(super::shared_info_in(&context[..30]), None);
    assert_eq!(super::shared_info_in(&[]), None);
}
