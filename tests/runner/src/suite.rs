//! All tests in order, and the sum.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use crate::boards::{self, BoardTest};
use crate::faults::Fault;
use crate::lanes::{Sum, Test, run};
use crate::load_address::PLACES;
use crate::options::{Hypervisor, Options};
use crate::processors::{self, PROCESSORS};
use crate::ram::LAYOUTS;
use crate::refusals::REFUSALS;
use crate::session::{Echo, is_crowd};
use crate::typed::{self, TYPED};
use crate::{
    Result, bench, build, card, crash, crossbar, debian, dom0, elsewhere, faults, guests, hazards,
    leftovers, load_address, package, partitions, project, ram, refusals, tree, two, uboot_ways,
    uefi, words,
};

/// CPUs of a machine that mostly keep one core busy.
const LIGHT_CPUS: u32 = 2;

/// The scripts of tests/dom0 and the machines they run on. PCI above 4 GiB, QEMU's default, is out of reach for Debian's Xen
/// in QEMU, so Krypton alone is tested there.
const DOM0: [(&str, u32, u32, bool); 24] = [
    ("facts", 2, 1024, false),
    ("facts", 1, 1024, false),
    ("shell", 2, 1024, false),
    ("poweroff", 2, 1024, false),
    ("reboot", 2, 1024, false),
    ("net", 2, 1024, false),
    ("disks", 2, 1024, false),
    ("facts", 4, 2048, false),
    ("facts", 8, 2048, false),
    ("disks", 2, 4096, true),
    ("toolstack", 2, 1024, false),
    ("domains", 2, 1024, false),
    ("pools", 2, 1024, false),
    ("move", 2, 1024, false),
    ("transparent", 2, 1024, false),
    ("guests", 2, 1024, false),
    ("last_words", 2, 1024, false),
    ("flood", 2, 1024, false),
    ("hostile", 2, 1024, false),
    ("demo", 2, 1024, false),
    ("load", 2, 1024, false),
    ("many", 2, 2048, false),
    ("cycles", 2, 2048, false),
    ("stress", 2, 1024, false),
];

/// Scripts that keep all CPUs busy. With two CPUs, others seldom have work for more than one.
const BUSY: [&str; 4] = ["hostile", "load", "many", "stress"];

/// Tests that take hours: a script, its machine's memory, and its count and seconds, unless the options say otherwise.
const SOAK: [(&str, u32, Option<u32>, Option<u32>); 9] = [
    ("cycles", 2048, Some(1000), None),
    ("load", 1024, Some(20), Some(300)),
    ("move", 1024, Some(50), None),
    ("still", 1024, None, None),
    ("trixie", 1024, Some(2), None),
    ("systemd", 1024, None, None),
    ("stress", 1024, None, Some(3600)),
    ("fuzzer", 1024, Some(100), None),
    ("panic", 1024, None, None),
];

/// Scripts that a soak runs under the checker for caches and TLBs.
const WATCHED: [&str; 3] = ["facts", "toolstack", "demo"];

/// Inputs of each target of tests/fuzz in a soak: hours.
const FUZZ_RUNS: u32 = 20_000_000;

/// How often a domU moves to another machine and back in a soak.
const MOVES: u32 = 10;

/// Runs what takes hours, one after the other.
pub fn soak(options: &Options) -> Result<ExitCode> {
    let test = |(script, memory_mib, count, seconds): &'static (&str, _, _, _)| {
        Test::new(format!("soak {script}"), move |options| {
            let options = Options {
                memory_mib: *memory_mib,
                count: options.count.or(*count),
                seconds: options.seconds.or(*seconds),
                ..options.clone()
            };
            dom0::test(script, &options, Echo::Hide)
        })
        .keeps_busy(usize::MAX)
    };
    let fuzz = Test::of_many("soak fuzz", |options| {
        cargo_test(&["-p", "fuzz"], options.count.unwrap_or(FUZZ_RUNS))
    });
    let chance = Test::new("soak guest fuzzer", |options| {
        guests::test_by_chance(options, Echo::Hide)
    });
    let hazards = WATCHED.iter().map(|script| {
        Test::new(format!("soak hazards {script}"), |options| {
            let options = Options {
                hazards: true,
                ..options.clone()
            };
            dom0::test(script, &options, Echo::Hide)
        })
        .keeps_busy(usize::MAX)
    });
    let package = Test::new("soak debian package", |options| {
        debian::package(options, Echo::Hide)
    });
    let restart = Test::new("soak restart", |options| {
        dom0::test_over_a_restart("restart", options, Echo::Hide)
    });
    let elsewhere = Test::new("soak elsewhere", |options| {
        elsewhere::test(options, Echo::Hide)
    });
    let two = Test::new("soak two machines", |options| {
        let options = Options {
            count: options.count.or(Some(MOVES)),
            ..options.clone()
        };
        two::test(&options, Echo::Hide)
    });
    let domus = Test::new("soak debian domus", |options| {
        debian::domus::test(options, Echo::Hide)
    });
    run(
        SOAK.iter()
            .map(test)
            .chain(boards::SOAK.iter().map(board_test))
            .chain(hazards)
            .chain(
                [
                    two,
                    restart,
                    elsewhere,
                    card_test(&card::BPI_M2_ULTRA),
                    package,
                    domus,
                    chance,
                    fuzz,
                ]
                .map(|test| test.keeps_busy(usize::MAX)),
            )
            .collect(),
        options,
    )
}

/// Runs everything whose name contains one of the operands, or all of it; the host tests only with all of it.
pub fn everything(options: &Options) -> Result<ExitCode> {
    let with_krypton = options.hypervisor == Hypervisor::Krypton;
    let mut tests = Vec::new();
    if with_krypton && options.operands.is_empty() {
        tests.push(host_tests());
    }
    if with_krypton {
        tests.push(Test::new("image", build::image));
        tests.push(Test::new("hazards", |options| {
            hazards::test(options, Echo::Hide)
        }));
        tests.push(Test::new("hazards of late invalidates", |options| {
            hazards::test_late(options, Echo::Hide)
        }));
        tests.push(Test::new("size", |_| build::is_small()));
        tests.push(Test::new("package", |options| {
            package::test(options)?;
            package::starts_by_script(options, Echo::Hide)?;
            package::starts_by_uefi(options, Echo::Hide)
        }));
        tests.push(Test::new("panic", |options| {
            crash::reboots(options, Echo::Hide)
        }));
        tests.push(Test::new("panic noreboot", |options| {
            crash::stays(options, Echo::Hide)
        }));
        tests.push(Test::new("panic before the console", |options| {
            crash::before_the_console(options, Echo::Hide)
        }));
        tests.push(Test::new("panic without a restart", |options| {
            crash::cannot_restart(options, Echo::Hide)
        }));
        tests.extend(crash::WITH_WATCHDOG.iter().map(|board| {
            Test::new(format!("panic on {}", board.0), |options| {
                crash::restarts_by_watchdog(*board, options, Echo::Hide)
            })
        }));
        tests.push(Test::new("options", |options| {
            words::test(options, Echo::Hide)
        }));
    }
    tests.extend(guests()?);
    if with_krypton {
        tests.push(Test::new("bench", |options| {
            bench::check(options, Echo::Hide)
        }));
    }
    tests.extend(
        DOM0.iter()
            .filter(|(.., highmem)| with_krypton || !highmem)
            .map(dom0_test),
    );
    if with_krypton {
        tests.extend(boards::TESTS.iter().map(board_test));
        tests.extend(starts());
    }
    run(tests, options)
}

/// Returns the test of a card that `make flash` makes.
fn card_test(card: &'static card::Card) -> Test {
    let name = format!("uboot from the card of flash {}", card.board);
    Test::new(name, |options| card::test(card, options, Echo::Hide))
}

/// Returns what is about the start alone, and about builds.
fn starts() -> Vec<Test> {
    let mut tests = vec![
        Test::new("trees", |_| tree::test()).keeps_busy(2),
        Test::new("reproducible", |_| build::reproducible()).keeps_busy(2),
        Test::new("boot loader's leftovers", |options| {
            leftovers::test(options, Echo::Hide)
        }),
        Test::new("secure state without CNTFRQ", |options| {
            leftovers::without_frequency(options, Echo::Hide)
        }),
    ];
    tests.extend(uboot_ways());
    tests.extend(uefi::WAYS.iter().map(|way| {
        Test::new(format!("uefi {}", way.name), |options| {
            uefi::test(way, options, Echo::Hide)
        })
    }));
    tests.push(Test::new("interrupt that a driver chooses", |options| {
        crossbar::test(options, Echo::Hide)
    }));
    tests.push(Test::new("partitions without dom0", |options| {
        partitions::without_dom0(options, Echo::Hide)
    }));
    tests.push(Test::new("partitions beside dom0", |options| {
        partitions::beside_dom0(options, Echo::Hide)
    }));
    tests.extend(faults());
    tests.extend(PROCESSORS.iter().map(|processor| {
        Test::new(format!("processor {}", processor.name), |options| {
            processors::test(processor, options, Echo::Hide)
        })
    }));
    tests.push(Test::new("processor that comes too late", |options| {
        processors::comes_too_late(options, Echo::Hide)
    }));
    tests.extend(REFUSALS.iter().map(|refusal| {
        let hyp = if refusal.in_hyp { " in HYP" } else { "" };
        Test::new(format!("refusal on {}{hyp}", refusal.board), |options| {
            refusals::test(refusal, options, Echo::Hide)
        })
    }));
    tests.extend(LAYOUTS.iter().map(|layout| {
        Test::new(format!("RAM {}", layout.name), |options| {
            ram::test(layout, options, Echo::Hide)
        })
    }));
    tests.push(Test::new("processor that registers start", |options| {
        processors::starts_by_registers(options, Echo::Hide)
    }));
    tests.extend(PLACES.iter().map(|places| {
        let name = places.board.unwrap_or("virt");
        Test::new(format!("load addresses on {name}"), |options| {
            load_address::test(places, options, Echo::Hide)
        })
    }));
    tests.push(card_test(&card::ORANGEPI_PC));
    tests.extend(TYPED.iter().map(|typed| {
        Test::new(format!("qemu {}", typed.name), |options| {
            typed::test(typed, options, Echo::Hide)
        })
        .keeps_busy(cores_for("", typed.cpus))
    }));
    tests
}

/// Returns the bare-metal guests, and what one says where domains are not kept apart.
pub fn guests() -> Result<Vec<Test>> {
    let test = |name: String| {
        Test::new(format!("guest {name}"), move |options| {
            guests::test(&name, options, Echo::Hide)
        })
    };
    let mut tests: Vec<_> = guests::names()?.into_iter().map(test).collect();
    tests.push(Test::new("guest domains (xsm=dummy)", |options| {
        let options = Options {
            append: format!("{} xsm=dummy", options.append),
            dom0_append: format!("{} rule=dummy", options.dom0_append),
            ..options.clone()
        };
        guests::test("domains", &options, Echo::Hide)
    }));
    Ok(tests)
}

/// Returns the boot faults.
pub fn faults() -> Vec<Test> {
    let test = |fault: &'static Fault| {
        Test::new(format!("fault {}", fault.name), |options| {
            faults::test(fault, options, Echo::Hide)
        })
    };
    faults::FAULTS.iter().map(test).collect()
}

fn board_test(test: &'static BoardTest) -> Test {
    let BoardTest {
        board,
        script,
        cpus,
        ..
    } = test;
    let same = |other: &&BoardTest| other.board == *board && other.cpus == *cpus;
    let alone = boards::TESTS.iter().filter(same).count() <= 1;
    Test::new(
        format!("board {board} {script} ({cpus} CPUs)"),
        move |options| boards::test(test, &options.fresh_if(alone), Echo::Hide),
    )
    .keeps_busy(cores_for(script, *cpus))
}

/// Returns how many cores of the host a script of tests/dom0 keeps busy on so many CPUs.
fn cores_for(script: &str, cpus: u32) -> usize {
    if !is_crowd(cpus) && (cpus > LIGHT_CPUS || BUSY.contains(&script)) {
        cpus as usize
    } else {
        1
    }
}

/// Returns the ways through U-Boot.
fn uboot_ways() -> Vec<Test> {
    let test = |way: &'static uboot_ways::Way| {
        Test::new(format!("uboot {}", way.name), |options| {
            uboot_ways::test(way, options, Echo::Hide)
        })
    };
    let mut tests: Vec<_> = uboot_ways::WAYS.iter().map(test).collect();
    tests.push(Test::new("uboot refuses damage", |options| {
        uboot_ways::refuses_damage(options, Echo::Hide)
    }));
    tests.push(Test::new("uboot wants a signature", |options| {
        uboot_ways::wants_signature(options, Echo::Hide)
    }));
    tests.extend(uboot_ways::STOOD_IN_FOR.iter().map(|board| {
        Test::new(format!("uboot script of {board}"), |options| {
            uboot_ways::runs_script_of(board, options, Echo::Hide)
        })
    }));
    tests.push(Test::new("uboot from NOR flash", |options| {
        uboot_ways::starts_from_nor(options, Echo::Hide)
    }));
    tests
}

fn dom0_test((script, cpus, memory_mib, highmem): &'static (&str, u32, u32, bool)) -> Test {
    let above = if *highmem { ", PCI above 4 GiB" } else { "" };
    // A snapshot that nobody else starts from costs more than it saves.
    let same = |other: &&(&str, u32, u32, bool)| {
        (other.1, other.2, other.3) == (*cpus, *memory_mib, *highmem)
    };
    let alone = DOM0.iter().filter(same).count() == 1;
    Test::new(
        format!("dom0 {script} ({cpus} CPUs, {memory_mib} MiB{above})"),
        move |options| {
            let options = Options {
                cpus: *cpus,
                memory_mib: *memory_mib,
                highmem: *highmem,
                ..options.fresh_if(alone)
            };
            dom0::test(script, &options, Echo::Hide)
        },
    )
    .keeps_busy(cores_for(script, *cpus))
}

/// `cargo test` of the workspace, which counts for as many tests as it has.
fn host_tests() -> Test {
    Test::of_many("host", |_| cargo_test(&["--workspace"], 0))
}

/// Runs `cargo test`; the targets of tests/fuzz with `runs` inputs each, where that is more than usual.
fn cargo_test(what: &[&str], runs: u32) -> Result<Sum> {
    let mut cargo = Command::new(build::cargo_program())
        .current_dir(project::root())
        .env("FUZZ_RUNS", runs.to_string())
        .args(["test", "--locked", "--no-fail-fast"])
        .args(what)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let mut sum = Sum::default();
    for line in BufReader::new(cargo.stdout.take().ok_or("cargo has no output")?)
        .lines()
        .map_while(|line| line.ok())
    {
        println!("{line}");
        if let Some(counted) = counted(&line) {
            sum = sum + counted;
        }
    }
    let status = cargo.wait().map_err(|error| format!("cargo: {error}"))?;
    // A test that does not compile is counted nowhere.
    if !status.success() && sum.failed == 0 {
        sum.failed = 1;
    }
    Ok(sum)
}

/// Reads `test result: ok. 12 passed; 0 failed; ...`.
fn counted(line: &str) -> Option<Sum> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = counts
        .split("; ")
        .map(|part| part.split(' ').next()?.parse().ok());
    Some(Sum {
        passed: numbers.next()??,
        failed: numbers.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::counted;
    use crate::lanes::Sum;

    #[test]
    fn the_sum_of_cargo_test_is_understood() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            counted(line),
            Some(Sum {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(counted("test a ... ok"), None);
    }
}
