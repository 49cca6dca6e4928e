use alloc::string::{String, ToString};

use super::{Found, at, find};
use crate::platform::testing::{VEXPRESS, VIRT, compile, compile_with, tree};
use crate::platform::uart::Model;

#[test]
fn the_option_dtuart_wins_over_stdout_path() {
    let bytes = compile(VEXPRESS);
    let found = |spec| find(tree(&bytes), Some(spec)).unwrap();
    let aliased = found("serial0:115200n8");
    assert_eq!(
        (aliased.uart.options.as_str(), aliased.instead),
        ("115200n8", None)
    );
    let by_path = found("/bus/motherboard-bus/iofpga-bus/serial");
    assert_eq!(by_path.uart.reg.base(), 0x1c09_0000);
    assert_eq!(by_path.instead, None);
}

#[test]
fn a_wrong_dtuart_is_named_and_stdout_path_serves_instead() {
    let bytes = compile(VEXPRESS);
    for (spec, named) in [
        (
            "/bus/motherboard-bus/iofpga-bus/rtc",
            "Unknown UART \"arm,pl031\"",
        ),
        ("serial9", "\"serial9\""),
    ] {
        let found = find(tree(&bytes), Some(spec)).unwrap();
        assert_eq!(found.uart.reg.base(), 0x1c09_0000);
        let line = found.instead.unwrap().to_string();
        assert!(line.contains(named), "{line}");
    }
    let silent = [
        ("stdout-path", "other-path"),
        ("\"arm,pl011\"", "\"other\""),
    ];
    let silent = compile_with(VEXPRESS, &silent);
    let error = find(tree(&silent), Some("serial9")).unwrap_err();
    assert!(error.to_string().contains("\"serial9\""), "{error}");
}

#[test]
fn without_a_word_of_it_the_only_enabled_uart_is_the_console_and_of_several_the_choices_are_listed()
{
    const NODE: &str = "pl011@9000000 {";
    let found = |more: &str| {
        let nodes = alloc::format!("{more} {NODE}");
        let bytes = compile_with(VIRT, &[("stdout-path", "other-path"), (NODE, &nodes)]);
        find(tree(&bytes), None)
    };
    let uart = |at: u32, inside: &str| {
        alloc::format!(
            "serial@{at:x} {{ compatible = \"ns16550a\"; reg = <0 {at:#x} 0 0x100>; {inside} }};"
        )
    };
    let is_alone = |one: Found| {
        let line = one.instead.unwrap().to_string();
        one.uart.reg.base() == 0x0900_0000 && line.contains("no dtuart=")
    };
    assert!(is_alone(found("").unwrap()));
    assert!(is_alone(
        found(&uart(0xa00_0000, "status = \"disabled\";")).unwrap()
    ));
    assert!(is_alone(
        found(&uart(0xa00_0000, "bluetooth { };")).unwrap()
    ));
    let line = found(&uart(0xa00_0000, "")).unwrap_err().to_string();
    assert!(
        line.ends_with("there are /serial@a000000, /pl011@9000000"),
        "{line}"
    );
    let many: String = (0..20).map(|n| uart(0xa00_0000 + n * 0x1000, "")).collect();
    let line = found(&many).unwrap_err().to_string();
    assert_eq!(line.matches("/serial@").count(), 8, "{line}");
}

#[test]
fn dtuart_may_be_a_driver_s_name_and_an_address() {
    let bytes = compile(VIRT);
    let found = |spec| find(tree(&bytes), Some(spec)).unwrap();
    let described = found("pl011,0x9000000:115200n8").uart;
    assert_eq!(
        (described.path.as_str(), described.options.as_str()),
        ("/pl011@9000000", "115200n8")
    );
    assert_eq!(described.interrupt.unwrap().intid, 33);
    let other = found("uart8250,mmio32,0x30860000").uart;
    assert_eq!(other.model, Model::named("uart8250,mmio32").unwrap());
    assert_eq!(
        (other.reg.base(), other.reg.size(), other.interrupt),
        (0x3086_0000, 0x1000, None)
    );
    for (wrong, named) in [
        ("vt100,0x9000000", "no driver \"vt100\""),
        ("imx,x", "no address"),
    ] {
        let line = found(wrong).instead.unwrap().to_string();
        assert!(line.contains(named), "{line}");
    }
}

#[test]
fn a_uart_found_by_its_address_is_known_by_its_node() {
    let tree = tree(&compile(VIRT));
    let uart = at(tree, Model::Pl011, 0x0900_0000).unwrap();
    assert_eq!(uart.path, "/pl011@9000000");
    assert_eq!(uart.interrupt.unwrap().intid, 33);
    assert_eq!(at(tree, Model::Pl011, 0x0901_0000), None, "a clock");
    assert_eq!(at(tree, Model::Pl011, 0x1c09_0000), None);
}
