//! Reads real boards' trees: `KRYPTON_DTBS=<directory of .dtb files> cargo test --test boot_dt -- --ignored`.
//!
//! The blobs are other people's and not kept here; a Linux package for armhf has some thousand.

use std::time::{Duration, Instant};

use krypton::dom0::device_tree::{self, Config};
use krypton::dom0::devices;
use krypton::dom0::selection::Machine;
use krypton::platform::blob::Blob;
use krypton::platform::host_dt::HostInfo;
use krypton::platform::ranges::PhysRange;

const GIC_LINES: u32 = 160;

#[test]
#[ignore = "needs KRYPTON_DTBS"]
fn every_real_tree_is_read_or_refused_with_one_line() {
    let directory = std::env::var("KRYPTON_DTBS").expect("KRYPTON_DTBS names no directory");
    let (mut read, mut refused) = (0, 0);
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "dtb") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let start = Instant::now();
        match HostInfo::parse(&bytes) {
            Ok(host) => {
                read += 1;
                build(&name, &bytes, host);
            }
            Err(error) => {
                refused += 1;
                println!("{name}: {error}");
            }
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{name}");
    }
    println!("{read} read, {refused} refused");
    assert!(read > 0);
}

/// What dom0 would get; the result must be a tree again.
fn build(name: &str, bytes: &[u8], host: HostInfo) {
    let machine = Machine {
        host: &host,
        console: host.console.as_ref().ok(),
        gic_lines: GIC_LINES,
    };
    let blob = Blob::check(bytes).unwrap();
    let plan = devices::plan(&blob, &machine).unwrap();
    let config = Config {
        bootargs: "console=hvc0",
        ramdisk: None,
        memory: &host.ram[..1],
        vcpus: 2,
        grant: PhysRange::new(host.ram[0].base(), 0x4_0000).unwrap(),
        extended: &[],
        event_interrupt: host.event_interrupt().unwrap(),
    };
    let tree = device_tree::build(&blob, &machine, &config).unwrap();
    Blob::check(&tree.blob).unwrap();
    let lines = host.notes.iter().chain(&plan.notes).chain(&tree.notes);
    for line in lines {
        println!("{name}: {line}");
    }
    if let Err(error) = &host.console {
        println!("{name}: {error}");
    }
    println!(
        "{name}: {} regions, {} interrupts, {} bytes",
        plan.mmio.len(),
        plan.interrupts.len(),
        tree.blob.len()
    );
}
