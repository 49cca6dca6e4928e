use super::{ArrayVec, Console, DomId, Inputs, OpenLines, Received, Ring, Switched};

const CTRL_A: u8 = 1;

/// A console with the input at dom0, which has it alone.
fn console() -> Console {
    let mut inputs = Inputs::new();
    inputs.add(DomId::DOM0);
    inputs.switch_to_first();
    Console {
        line: None,
        ring: Ring::new(),
        input: ArrayVec::new_const(),
        inputs,
        switch_char: CTRL_A,
        presses: 0,
        open: OpenLines::new(),
        is_awaited: false,
        keep_domains: false,
    }
}

fn typed(console: &mut Console, bytes: &[u8]) -> Received {
    let mut received = Received::default();
    for byte in bytes {
        console.take(*byte, &mut received);
    }
    received
}

#[test]
fn three_presses_in_a_row_move_the_input_there_and_back() {
    let mut console = console();
    assert_eq!(
        typed(&mut console, &[CTRL_A; 3]).switched,
        Some(Switched(None))
    );
    let received = typed(&mut console, b"q");
    assert_eq!(received.keys.as_slice(), b"q");
    assert!(!received.for_dom0);
    let back = typed(&mut console, &[CTRL_A; 3]).switched;
    assert_eq!(back, Some(Switched(Some(DomId::DOM0))));
    assert!(typed(&mut console, b"ls").for_dom0);
    assert_eq!(console.input.as_slice(), b"ls");
}

#[test]
fn fewer_presses_are_input_like_any_other() {
    let mut console = console();
    let received = typed(&mut console, &[b'a', CTRL_A, CTRL_A, b'b', CTRL_A]);
    assert_eq!(received.switched, None);
    assert_eq!(console.input.as_slice(), &[b'a', CTRL_A, CTRL_A, b'b']);
}

#[test]
fn what_is_written_before_the_command_line_is_known_is_kept() {
    super::remember();
    let line = b"said too early for a UART";
    super::write_fmt(format_args!("{}", str::from_utf8(line).unwrap()));
    let mut out = [0; super::FIRST_RING as usize];
    let (count, _) = super::read_ring(super::ring_start(), &mut out);
    assert!(out[..count].windows(line.len()).any(|part| part == line));
}

#[test]
fn the_ring_keeps_what_domains_say_only_when_asked() {
    let kept = |keep_domains| {
        let mut console = console();
        console.keep_domains = keep_domains;
        assert!(console.ring.resize(4096));
        console.put(b"ours ");
        console.put_of_domain(DomId::DOM0, b"theirs ");
        console.put(b"ours");
        let mut out = [0; 64];
        let (count, _) = console.ring.read(console.ring.start(), &mut out);
        out[..count].to_vec()
    };
    assert_eq!(kept(false), b"ours ours");
    assert_eq!(kept(true), b"ours theirs ours");
}

/// A console whose ring has all that is written, with the input at domain 1.
fn shared() -> Console {
    let mut console = console();
    console.keep_domains = true;
    assert!(console.ring.resize(4096));
    console.inputs.add(DomId(1));
    console.inputs.switch();
    assert_eq!(console.inputs.focus(), Some(DomId(1)));
    console
}

fn kept(console: &Console) -> String {
    let mut out = [0; 4096];
    let (count, _) = console.ring.read(console.ring.start(), &mut out);
    String::from_utf8_lossy(&out[..count]).into_owned()
}

#[test]
fn what_is_typed_for_a_uart_is_answered_with_its_domain() {
    let mut console = shared();
    let received = typed(&mut console, b"ab");
    let (a, b) = ((DomId(1), b'a'), (DomId(1), b'b'));
    assert_eq!(received.for_uarts.as_slice(), [a, b]);
    assert!(!received.for_dom0 && received.keys.is_empty());
}

#[test]
fn no_line_is_cut_into_that_of_another_domain() {
    let mut console = shared();
    console.put_of_domain(DomId(1), b"prompt ");
    assert_eq!(console.put_of_domain(DomId::DOM0, b"dom0 says"), 9);
    console.put_of_domain(DomId::DOM0, b" more\n");
    console.put_of_domain(DomId(1), b"# ");
    console.end_open_line();
    console.put(b"ours\n");
    assert_eq!(kept(&console), "prompt \ndom0 says more\nprompt # \nours\n");
}

#[test]
fn a_line_that_was_interrupted_is_whole_in_the_end() {
    let mut console = shared();
    console.put_of_domain(DomId(1), b"hel");
    console.end_open_line();
    console.put(b"(XEN) DOM2: hello\n");
    console.put_of_domain(DomId(1), b"lo");
    console.put_of_domain(DomId(1), b"\nnext\n");
    assert_eq!(kept(&console), "hel\n(XEN) DOM2: hello\nhello\nnext\n");
}

#[test]
fn where_dom0_writes_alone_nothing_is_put_between() {
    let mut console = console();
    console.keep_domains = true;
    assert!(console.ring.resize(4096));
    console.put_of_domain(DomId::DOM0, b"login: ");
    console.end_open_line();
    console.put(b"ours\n");
    assert_eq!(kept(&console), "login: ours\n");
}

#[test]
fn input_that_nobody_reads_is_bounded() {
    let mut console = console();
    typed(&mut console, &[b'x'; super::INPUT_SIZE + 10]);
    assert!(console.input.is_full());
}
