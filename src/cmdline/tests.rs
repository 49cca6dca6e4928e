use super::{
    Bootscrub, Console, Level, MemopMaxOrder, Note, Options, Scheduler, Serrors, Threshold,
    Timestamps, Vwfi, Xsm,
};
use alloc::string::{String, ToString};
use proptest::prelude::{any, proptest};

fn clean(line: &str) -> Options {
    let (options, notes) = Options::parse(line);
    assert!(notes.is_empty(), "{line}: {notes:?}");
    options
}

#[test]
fn every_word_of_image_builder_s_line_but_bootscrub_has_an_effect() {
    let line =
        "console=dtuart dtuart=serial0 dom0_mem=1500M dom0_max_vcpus=1 vwfi=native sched=null";
    let options = clean(line);
    assert_eq!(options.sched, Scheduler::Null);
    assert_eq!(options.vwfi, Vwfi::Native);
}

#[test]
fn the_usual_line_of_a_qemu_run_is_taken_without_a_note() {
    let options = clean(
        "console=dtuart dtuart=/pl011@9000000 dom0_mem=512M dom0_max_vcpus=2 dom0_vcpus_pin \
         loglvl=all guest_loglvl=info/debug console_timestamps=boot noreboot console_to_ring \
         bootscrub=1 sched=credit2 vwfi=native debug_stack_lines=5 serrors=panic xsm=dummy gnttab_max_frames=128 \
         gnttab=max-ver:1 maxcpus=1 conring_size=64k conswitch=bx no-ext_regions",
    );
    assert_eq!(options.dom0_mem, Some(512 << 20));
    assert_eq!(options.dom0_max_vcpus, Some((2, 2)));
    assert!(options.dom0_vcpus_pin && options.noreboot && options.console_to_ring);
    assert_eq!(options.console, Console::Dtuart);
    assert_eq!(options.dtuart.as_deref(), Some("/pl011@9000000"));
    let all = Threshold {
        always: Level::Debug,
        limited: Level::Debug,
    };
    assert_eq!(options.loglvl, all);
    assert_eq!(options.guest_loglvl.always, Level::Info);
    assert_eq!(options.guest_loglvl.limited, Level::Debug);
    assert_eq!(options.console_timestamps, Timestamps::Boot);
    assert_eq!(options.bootscrub, Bootscrub::Boot);
    assert_eq!(options.debug_stack_lines, 5);
    assert_eq!(options.vwfi, Vwfi::Native);
    assert_eq!(options.sched, Scheduler::Credit2);
    assert_eq!(options.serrors, Serrors::Panic);
    assert_eq!(options.xsm, Xsm::Dummy);
    assert_eq!(options.gnttab_max_frames, 128);
    assert_eq!(options.maxcpus, Some(1));
    assert_eq!(options.conring_size, 64 << 10);
    assert_eq!((options.conswitch, options.conswitch_stay), (b'b', true));
    assert!(!options.ext_regions);
}

#[test]
fn an_empty_line_gives_the_defaults_of_xen() {
    let options = clean("  ");
    assert_eq!(options, Options::default());
    assert_eq!(options.dom0_mem, None);
    assert_eq!(options.xsm, Xsm::Silo);
    assert_eq!(options.gnttab_max_maptrack_frames, 1024);
}

#[test]
fn a_size_without_unit_counts_kib() {
    assert_eq!(clean("dom0_mem=524288").dom0_mem, Some(512 << 20));
    assert_eq!(clean("dom0_mem=1g").dom0_mem, Some(1 << 30));
    assert_eq!(
        clean("dom0_mem=0x20000000B").dom0_mem,
        Some(0x2_0000_000b << 10)
    );
    assert_eq!(clean("dom0_mem=1048576b").dom0_mem, Some(1 << 20));
}

#[test]
fn a_plain_dom0_size_wins_over_its_bounds() {
    assert_eq!(clean("dom0_mem=max:1G,512M").dom0_mem, Some(512 << 20));
    assert_eq!(clean("dom0_mem=512M,max:512M").dom0_mem, Some(512 << 20));
    assert_eq!(clean("dom0_mem=max:256M").dom0_mem, Some(256 << 20));
}

#[test]
fn a_value_that_cannot_be_read_is_named_and_leaves_the_default() {
    for word in [
        "dom0_mem=lots",
        "dom0_mem=",
        "dom0_mem=0",
        "dom0_mem=99999999999T",
        "dom0_max_vcpus=0",
        "console=teletype",
        "dtuart",
        "conswitch=123",
        "conring_size=1",
        "loglvl=chatty",
        "maxcpus=0",
        "sched=fifo",
        "gnttab_max_frames=0",
        "gnttab=max-ver:7",
        "memop-max-order=99",
        "vwfi=maybe",
        "serrors=ignore",
        "console_timestamps=never",
        "debug_stack_lines=many",
        "bootscrub=later",
        "noreboot=perhaps",
        "xsm=",
    ] {
        let (options, notes) = Options::parse(word);
        assert_eq!(options, Options::default(), "{word}");
        assert_eq!(notes, [Note::BadValue(word.to_string())], "{word}");
        assert!(notes[0].to_string().contains(word));
    }
}

#[test]
fn a_tail_that_is_not_understood_is_named_and_the_beginning_counts() {
    let with_tail = |word: &str, tail: &str| {
        let (options, notes) = Options::parse(word);
        let expected = Note::Tail {
            option: word.to_string(),
            tail: tail.to_string(),
        };
        assert_eq!(notes, [expected]);
        assert!(notes[0].is_warning());
        options
    };
    for (word, tail, mib) in [
        ("dom0_mem=768M,max=768M", ",max=768M", 768),
        ("dom0_mem=1024MB", "B", 1024),
        ("dom0_mem=1GiB", "iB", 1024),
        ("dom0_mem=800M;", ";", 800),
        ("dom0_mem=512M,", ",", 512),
        ("dom0_mem=512M,max:1G,nodes=0", ",nodes=0", 512),
        ("dom0_mem=max:1GiB", "iB", 1024),
        ("dom0_mem=0x40000Kx", "x", 256),
    ] {
        assert_eq!(with_tail(word, tail).dom0_mem, Some(mib << 20), "{word}");
    }
    assert_eq!(with_tail("maxcpus=2,", ",").maxcpus, Some(2));
    assert_eq!(with_tail("maxcpus=2x", "x").maxcpus, Some(2));
    assert_eq!(with_tail("conring_size=64kB", "B").conring_size, 64 << 10);
    assert_eq!(
        with_tail("sched_ratelimit_us=500us", "us").sched_ratelimit_us,
        500
    );
    assert_eq!(
        with_tail("gnttab_max_frames=32;", ";").gnttab_max_frames,
        32
    );
    assert_eq!(with_tail("debug_stack_lines=5;", ";").debug_stack_lines, 5);
    assert_eq!(
        with_tail("dom0_max_vcpus=3-2", "-2").dom0_max_vcpus,
        Some((3, 3))
    );
    assert_eq!(
        with_tail("loglvl=info/chatty", "/chatty").loglvl.always,
        Level::Info
    );
    assert_eq!(
        with_tail("guest_loglvl=all;", ";").guest_loglvl.always,
        Level::Debug
    );
    assert_eq!(
        with_tail("memop-max-order=1,2,3,4,5", ",5")
            .memop_max_order
            .device,
        4
    );
    assert_eq!(
        with_tail("console=none,tty0", ",tty0").console,
        Console::None
    );
    assert_eq!(with_tail("vwfi=native;", ";").vwfi, Vwfi::Native);
    assert_eq!(with_tail("serrors=panic,", ",").serrors, Serrors::Panic);
    assert_eq!(with_tail("xsm=dummy;", ";").xsm, Xsm::Dummy);
    assert_eq!(
        with_tail("console_timestamps=boot,", ",").console_timestamps,
        Timestamps::Boot
    );
    assert_eq!(with_tail("bootscrub=1;", ";").bootscrub, Bootscrub::Boot);
    assert!(with_tail("noreboot=1;", ";").noreboot);
    assert_eq!(with_tail("conswitch=b,x", ",x").conswitch, b'b');
}

#[test]
fn a_number_out_of_bounds_is_not_cut_until_it_fits() {
    for word in [
        "gnttab_max_frames=2048",
        "memop-max-order=99",
        "conring_size=64M",
        "dom0_mem=0M,",
    ] {
        let (options, notes) = Options::parse(word);
        assert_eq!(options, Options::default(), "{word}");
        assert_eq!(notes, [Note::BadValue(word.to_string())]);
    }
}

#[test]
fn an_unknown_option_is_ignored_by_name() {
    let (options, notes) = Options::parse("frobnicate=1 dom0_mem=64M");
    assert_eq!(options.dom0_mem, Some(64 << 20));
    assert_eq!(
        notes[0].to_string(),
        "CMDLINE: ignored option \"frobnicate=1\""
    );
    assert!(!notes[0].is_warning());
}

#[test]
fn options_for_other_machines_do_not_disturb() {
    let line = "watchdog watchdog_timeout=5 reboot=acpi cpufreq=xen com1=115200,8n1 iommu=no \
                no-watchdog crash-debug-hwdom=r sched_credit2_x=1 flask=late sched=credit xsm=flask";
    let (options, notes) = Options::parse(line);
    assert_eq!(options, Options::default());
    assert!(
        notes.iter().all(|n| matches!(n, Note::NoEffect(_))),
        "{notes:?}"
    );
    assert_eq!(notes.len(), 12);
}

#[test]
fn an_option_that_changes_nothing_is_named() {
    for word in [
        "serial_tx_buffer",
        "bootscrub=0",
        "no-bootscrub",
        "bootscrub_chunk=128M",
        "sched=rtds",
        "sched_credit_tslice_ms=5",
        "crash-debug-panic=qd",
        "crash-debug-hwdom=0",
        "serial_tx_buffer=64k",
        "spec-ctrl=ssbd=force-disable",
        "xenheap_megabytes=64",
        "low_mem_virq_limit=64M",
        "tbuf_size=10",
    ] {
        let (options, notes) = Options::parse(word);
        assert_eq!(options, Options::default(), "{word}");
        assert_eq!(notes, [Note::NoEffect(word.to_string())]);
        assert_eq!(
            notes[0].to_string(),
            alloc::format!("CMDLINE: option \"{word}\" has no effect here")
        );
    }
}

#[test]
fn an_option_that_is_taken_without_a_word_changes_something() {
    for word in [
        "dom0_mem=64M",
        "dom0_max_vcpus=1",
        "dom0_vcpus_pin",
        "console=none",
        "dtuart=serial0",
        "conswitch=b",
        "conswitch=ax",
        "console_timestamps",
        "console_timestamps=raw",
        "console_to_ring",
        "conring_size=32k",
        "loglvl=all",
        "guest_loglvl=all",
        "noreboot",
        "sync_console",
        "maxcpus=1",
        "hmp-unsafe=1",
        "sched_ratelimit_us=500",
        "gnttab_max_frames=32",
        "gnttab_max_maptrack_frames=32",
        "memop-max-order=8",
        "bootscrub",
        "vwfi=native",
        "serrors=panic",
        "serrors=forward",
        "xsm=dummy",
        "ext_regions=0",
        "debug_stack_lines=0",
    ] {
        assert_ne!(clean(word), Options::default(), "{word}");
    }
}

#[test]
fn a_vcpu_range_clamps_the_number_of_cpus() {
    assert_eq!(clean("dom0_max_vcpus=4").dom0_vcpus(2), 4);
    assert_eq!(clean("dom0_max_vcpus=1-3").dom0_vcpus(2), 2);
    assert_eq!(clean("dom0_max_vcpus=-1").dom0_vcpus(4), 1);
    assert_eq!(clean("dom0_max_vcpus=3-").dom0_vcpus(2), 3);
    assert_eq!(clean("dom0_max_vcpus=100").dom0_vcpus(2), 8);
    assert_eq!(clean("").dom0_vcpus(2), 2);
    assert_eq!(clean("").dom0_vcpus(0), 1);
}

#[test]
fn orders_keep_what_is_left_out() {
    let orders = clean("memop-max-order=10,,5").memop_max_order;
    let expected = MemopMaxOrder {
        guest: 10,
        control: 18,
        hardware: 5,
        device: 10,
    };
    assert_eq!(orders, expected);
}

#[test]
fn a_quoted_value_may_hold_blanks() {
    let options = clean("dtuart=\"serial0:115200 8n1\" noreboot");
    assert_eq!(options.dtuart.as_deref(), Some("serial0:115200 8n1"));
    assert!(options.noreboot);
}

proptest! {
    #[test]
    fn any_line_is_parsed_without_a_panic(line in any::<String>()) {
        let _ = Options::parse(&line);
    }

    #[test]
    fn any_value_of_a_known_option_is_parsed_without_a_panic(
        name in "dom0_mem|dom0_max_vcpus|conswitch|loglvl|memop-max-order|gnttab|conring_size",
        value in "[-0-9a-zA-Z:,/\"é]{0,12}",
    ) {
        let _ = Options::parse(&alloc::format!("{name}={value}"));
    }
}
