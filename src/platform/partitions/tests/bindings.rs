//! Memory at addresses of the machine, shared memory, pools, affinities and event channels, as nodes have them and as they
//! should not.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use armv7::cpu::CpuSet;

use super::{CELLS, KERNEL, PLACE, RAMDISK, made, outcomes, range, read_damaged};
use crate::platform::host_dt::HostInfo;
use crate::platform::partitions::channels::WRONG;
use crate::platform::partitions::pools::Members;
use crate::platform::partitions::{Config, Ending};
use crate::platform::testing::{VIRT, compile_with};

/// Returns the blob of the machine, whose CPUs have labels, with these nodes beside dom0's modules.
fn blob(nodes: &str) -> Vec<u8> {
    let nodes = format!("{nodes} {PLACE}");
    let labels = [("cpu@0 {", "c0: cpu@0 {"), ("cpu@1 {", "c1: cpu@1 {")];
    compile_with(VIRT, &[labels[0], labels[1], (PLACE, &nodes)])
}

fn host(nodes: &str) -> HostInfo {
    HostInfo::parse(&blob(nodes)).unwrap()
}

fn domain(name: &str, more: &str) -> String {
    format!(
        "{name} {{ compatible = \"xen,domain\"; {CELLS} memory = <0 0x8000>; cpus = <2>; {more} {KERNEL} {RAMDISK} }};"
    )
}

fn configs(host: &HostInfo) -> Vec<Result<Config, String>> {
    let domains = host.partitions.iter();
    domains.map(|partition| partition.config.clone()).collect()
}

fn only(nodes: &str) -> Result<Config, String> {
    configs(&host(nodes)).remove(0)
}

/// Returns why the only domain is left out.
fn refusal(nodes: &str) -> String {
    only(nodes).unwrap_err()
}

const STATIC: &str = "xen,static-mem = <0 0x70000000 0 0x1000000 0 0x90000000 0 0x1000000>;";

#[test]
fn ram_may_be_at_addresses_of_the_machine() {
    let host = host(&domain("domU0", STATIC));
    let config = configs(&host).remove(0).unwrap();
    let ranges = [
        range(0x7000_0000, 0x100_0000),
        range(0x9000_0000, 0x100_0000),
    ];
    assert_eq!(config.static_memory, ranges);
    assert!(!config.direct_map);
    // None of it is given to another domain.
    for range in ranges {
        assert!(!host.free_ram().iter().any(|free| free.overlaps(&range)));
    }
    let direct = domain("domU0", &format!("{STATIC} direct-map;"));
    assert!(only(&direct).unwrap().direct_map);
}

#[test]
fn a_domain_is_started_again_after_the_ends_that_it_names() {
    let with = |value: &str| only(&domain("domU0", &format!("krypton,restart-on{value};")));
    let words = " = \"watchdog\", \"crash\", \"reboot\", \"poweroff\", \"crash\"";
    let all = [
        Ending::Watchdog,
        Ending::Crash,
        Ending::Reboot,
        Ending::Poweroff,
    ];
    assert_eq!(with(words).unwrap().restart_on, all);
    assert_eq!(only(&domain("domU0", "")).unwrap().restart_on, []);
    for (value, why) in [
        (
            " = \"crash\", \"always\"",
            "krypton,restart-on: \"always\" is not known",
        ),
        (" = <1>", "krypton,restart-on: \"\" is not known"),
        ("", "krypton,restart-on: \"\" is not known"),
    ] {
        assert_eq!(with(value).unwrap_err(), why);
    }
    // Anybody may have that memory once the domain has ended.
    let kept = refusal(&domain(
        "domU0",
        &format!("{STATIC} krypton,restart-on = \"crash\";"),
    ));
    assert!(
        kept.starts_with("krypton,restart-on: not with xen,static-mem"),
        "{kept}"
    );
}

#[test]
fn static_memory_must_be_pages_of_ram_that_nobody_has_and_as_much_as_memory_says() {
    for (cells, why) in [
        (
            "0 0x70000000 0 0x1000000",
            "xen,static-mem: 16384 KiB, where memory says 32768",
        ),
        (
            "0 0x70000800 0 0x2000000",
            "xen,static-mem: 0x2000000 bytes at 0x70000800 are no whole pages",
        ),
        (
            "0 0x70000000 0 0",
            "xen,static-mem: 0x0 bytes at 0x70000000 are no whole pages",
        ),
        (
            "0 0x70000000 0",
            "xen,static-mem: numbers are missing, or their cells cannot be",
        ),
        (
            "0xffffffff 0xfffff000 0 0x2000000",
            "xen,static-mem: 0x2000000 bytes at 0xfffffffffffff000",
        ),
        (
            "0 0x70000000 0 0x1000000 0 0x70fff000 0 0x1000000",
            "/chosen/domU0: xen,static-mem at 0x70fff000-0x71fff000 overlaps /chosen/domU0: xen,static-mem",
        ),
        (
            "0 0x20000000 0 0x2000000",
            "/chosen/domU0: xen,static-mem at 0x20000000-0x22000000 is not in RAM",
        ),
        (
            "0 0x60000000 0 0x2000000",
            "/chosen/domU0: xen,static-mem at 0x60000000-0x62000000 overlaps /chosen/domU0/module@60000000",
        ),
        // dom0's kernel.
        (
            "0 0x50400000 0 0x2000000",
            "/chosen/domU0: xen,static-mem at 0x50400000-0x52400000 overlaps /chosen/module@0x50000000",
        ),
    ] {
        let refused = refusal(&domain("domU0", &format!("xen,static-mem = <{cells}>;")));
        assert!(refused.starts_with(why), "{cells}: {refused}");
    }
    assert_eq!(
        made("direct-map;").unwrap_err(),
        "direct-map: xen,static-mem is missing"
    );
    let none = "#address-cells = <0>; xen,static-mem = <0 0>;";
    let none = domain("domU0", "").replace(CELLS, none);
    assert!(
        refusal(&none).starts_with("xen,static-mem: numbers are missing, or"),
        "{}",
        refusal(&none)
    );
    // Two domains with the same memory, and one with another's module.
    let nodes = domain("domU0", STATIC) + &domain("domU1", STATIC);
    let both = host(&nodes);
    let all = outcomes(&both);
    assert_eq!(all[0], Ok(()));
    assert!(
        all[1]
            .is_err_and(|why| why.contains("overlaps /chosen/domU0: xen,static-mem at 0x70000000")),
        "{all:?}"
    );
}

#[test]
fn memory_of_a_domain_that_is_left_out_is_free() {
    let host = host(&(domain("domU0", &format!("{STATIC} nr_spis;")) + &domain("domU1", "")));
    assert_eq!(outcomes(&host), [Err("nr_spis: not one cell"), Ok(())]);
    let memory = range(0x7000_0000, 0x100_0000);
    assert!(host.free_ram().iter().any(|free| free.contains(&memory)));
    assert_eq!(host.kept_ram(), []);
}

fn shared(id: &str, cells: &str, role: &str) -> String {
    format!(
        "shm@1 {{ compatible = \"xen,domain-shared-memory-v1\"; xen,shm-id = \"{id}\"; \
         xen,shared-mem = <{cells}>; {role} }};"
    )
}

const REGION: &str = "0 0x80000000 0 0x20000000 0 0x2000";

#[test]
fn memory_is_shared_by_those_who_name_it() {
    let owner = shared("ring", REGION, "role = \"owner\";");
    let borrower = shared(
        "ring",
        "0 0x80000000 0 0x24000000 0 0x2000",
        "role = \"borrower\";",
    );
    let host = host(&(domain("domU0", &owner) + &domain("domU1", &borrower)));
    let all = configs(&host);
    for (config, guest) in all.into_iter().zip([0x2000_0000, 0x2400_0000]) {
        let config = config.unwrap();
        let [region] = config.shared.as_slice() else {
            panic!("{config:?}");
        };
        assert_eq!(
            (region.id.as_str(), region.host),
            ("ring", range(0x8000_0000, 0x2000))
        );
        assert_eq!(region.guest, range(guest, 0x2000));
    }
    assert!(
        !host
            .free_ram()
            .iter()
            .any(|free| free.overlaps(&range(0x8000_0000, 0x2000)))
    );
}

#[test]
fn shared_memory_that_cannot_be_is_named() {
    for (id, cells, role, why) in [
        ("", REGION, "", "xen,shm-id: not 1 to 15 characters"),
        (
            "sixteen-letters!",
            REGION,
            "",
            "xen,shm-id: not 1 to 15 characters",
        ),
        (
            "a",
            REGION,
            "role = \"boss\";",
            "role: neither \"owner\" nor \"borrower\"",
        ),
        (
            "a",
            "0 0x80000000 0 0x20000000 0",
            "",
            "xen,shared-mem: numbers are missing, or their cells cannot be",
        ),
        (
            "a",
            "0 0x80000000 0 0x20000100 0 0x2000",
            "",
            "xen,shared-mem: 0x2000 bytes at 0x20000100",
        ),
        (
            "a",
            "0 0x80000000 0 0x20000000 0 0x2000 0 0x90000000 0 0x30000000 0 0x2000",
            "",
            "xen,shared-mem: more than one range",
        ),
    ] {
        let refused = refusal(&domain("domU0", &shared(id, cells, role)));
        assert!(refused.starts_with(&format!("shm@1: {why}")), "{refused}");
    }
    let twice = shared("a", REGION, "") + &shared("b", "0 0x80001000 0 0x30000000 0 0x1000", "");
    assert!(
        refusal(&domain("domU0", &twice)).contains("overlaps /chosen/domU0/shm@1: xen,shared-mem")
    );
    // One id is one range, and two ids are two.
    for (id, cells) in [
        ("a", "0 0x81000000 0 0x20000000 0 0x2000"),
        ("b", "0 0x80001000 0 0x20000000 0 0x1000"),
    ] {
        let nodes =
            domain("domU0", &shared("a", REGION, "")) + &domain("domU1", &shared(id, cells, ""));
        let host = host(&nodes);
        let all = outcomes(&host);
        assert!(
            all[1].is_err_and(|why| why.contains("overlaps /chosen/domU0/shm@1: xen,shared-mem")),
            "{all:?}"
        );
    }
}

fn pool(label: &str, inside: &str) -> String {
    format!("{label}: {label} {{ compatible = \"xen,cpupool\"; {inside} }};")
}

#[test]
fn pools_are_there_from_the_boot_and_domains_choose_one() {
    let pools = pool("fast", "cpupool-cpus = <&c1>; cpupool-sched = \"null\";")
        + &pool("rest", "cpupool-cpus = <&c0>;");
    let host =
        host(&(pools + &domain("domU0", "domain-cpupool = <&fast>;") + &domain("domU1", "")));
    let members = |n: usize| host.pools[n].members.clone();
    let of = |cpu, dedicated| {
        Ok(Members {
            cpus: [cpu].to_vec(),
            dedicated,
        })
    };
    assert_eq!(members(0), of(1, Some(true)));
    assert_eq!(members(1), of(0, None));
    let chosen: Vec<_> = configs(&host)
        .into_iter()
        .map(|config| config.unwrap().pool)
        .collect();
    assert_eq!(chosen, [Some(0), None]);
}

#[test]
fn a_pool_that_cannot_be_is_named() {
    for (inside, why) in [
        ("", "cpupool-cpus: none"),
        ("cpupool-cpus = <77>;", "cpupool-cpus: 0x4d is no CPU"),
        (
            "cpupool-cpus = <&c0>; cpupool-sched = \"rtds\";",
            "cpupool-sched: neither \"credit2\" nor \"null\"",
        ),
    ] {
        assert_eq!(host(&pool("p", inside)).pools[0].members, Err(why.into()));
    }
    assert_eq!(
        made("domain-cpupool = <99>;").unwrap_err(),
        "domain-cpupool: no xen,cpupool has this phandle"
    );
    assert_eq!(
        made("domain-cpupool;").unwrap_err(),
        "domain-cpupool: no xen,cpupool has this phandle"
    );
}

fn vcpu(id: &str, cpus: &str) -> String {
    format!("vcpu{id} {{ compatible = \"xen,vcpu\"; id = <{id}>; {cpus} }};")
}

#[test]
fn a_vcpu_may_be_bound_to_cpus() {
    let affinity = |inside: &str| {
        let config = only(&domain("domU0", inside));
        config.map(|config| config.affinities.map(CpuSet::bits))
    };
    let all = CpuSet::ALL.bits();
    let bound = vcpu("1", "hard-affinity = \"0-1,3\";") + &vcpu("0", "");
    assert_eq!(
        affinity(&bound),
        Ok([all, 0b1011, all, all, all, all, all, all])
    );
    let list = |list: &str| {
        affinity(&vcpu("0", &format!("hard-affinity = \"{list}\";"))).map(|all| all[0])
    };
    assert_eq!(list("7"), Ok(0x80));
    for wrong in ["", "1-", "2-1", "8", "0,,1", "x"] {
        let why = list(wrong).unwrap_err();
        assert_eq!(
            why,
            "vcpu0: hard-affinity: no list of CPUs, such as \"0-2,5\""
        );
    }
    let beyond = affinity(&vcpu("2", "hard-affinity = \"0\";"));
    assert_eq!(
        beyond.unwrap_err(),
        "vcpu2: id: not the number of one of its vCPUs, or another node has it"
    );
    let twice = vcpu("0", "hard-affinity = \"0\";") + &vcpu("0", "hard-affinity = \"1\";");
    assert_eq!(
        affinity(&twice).unwrap_err(),
        "vcpu0: id: not the number of one of its vCPUs, or another node has it"
    );
}

fn channel(label: &str, inside: &str) -> String {
    format!("{label}: {label} {{ compatible = \"xen,evtchn-v1\"; xen,evtchn = <{inside}>; }};")
}

#[test]
fn two_ends_that_name_one_another_are_a_channel() {
    let one = domain("domU0", &(channel("a", "10 &b") + &channel("c", "11 &d")));
    let host = host(&(one + &domain("domU1", &channel("b", "12 &a")) + &channel("d", "13 &c")));
    let ends: Vec<_> = configs(&host)
        .into_iter()
        .flat_map(|config| config.unwrap().channels.clone())
        .chain(host.dom0_channels.clone())
        .map(|end| (end.domain, end.port, end.peer, end.peer_port))
        .collect();
    assert_eq!(
        ends,
        [
            (1, 10, 2, 12),
            (1, 11, 0, 13),
            (2, 12, 1, 10),
            (0, 13, 1, 11)
        ]
    );
}

#[test]
fn an_end_that_has_no_other_keeps_its_domain_from_being_made() {
    let wrong = |name| format!("{name}: {WRONG}");
    let of = |ends: &str| refusal(&domain("domU0", ends));
    for inside in ["10", "0 &a", "10 99", "10 &a"] {
        assert_eq!(of(&channel("a", inside)), wrong("a"), "{inside}");
    }
    let same = channel("a", "10 &b") + &channel("b", "11 &a");
    assert_eq!(of(&same), wrong("a"));
    let one_sided = channel("a", "10 &b") + &channel("c", "9 &b");
    let nodes = domain("domU0", &one_sided) + &domain("domU1", &channel("b", "11 &c"));
    assert_eq!(refusal(&nodes), wrong("a"));
    let twice = channel("a", "10 &b") + &channel("c", "10 &d");
    let peers = domain("domU1", &(channel("b", "11 &a") + &channel("d", "12 &c")));
    assert_eq!(refusal(&(domain("domU0", &twice) + &peers)), wrong("c"));
    let lost = host(&(domain("domU0", "") + &channel("d", "13 99")));
    let note = format!("BOOT: dom0's event channels are ignored: {}", wrong("d"));
    assert!(lost.notes.contains(&note), "{:?}", lost.notes);
}

#[test]
fn damaged_trees_with_all_of_it_are_refused_or_read_without_a_panic() {
    let first = STATIC.to_string()
        + "direct-map; domain-cpupool = <&fast>;"
        + &vcpu("1", "hard-affinity = \"0-1\";");
    let first = domain(
        "domU0",
        &(first + &channel("a", "10 &b") + &shared("ring", REGION, "")),
    );
    let second = channel("b", "12 &a") + &shared("ring", REGION, "role = \"owner\";");
    let pools = pool("fast", "cpupool-cpus = <&c1>; cpupool-sched = \"null\";");
    read_damaged(&blob(&(first + &domain("domU1", &second) + &pools)));
}
