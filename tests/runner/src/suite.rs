//! All tests in order, and the sum.

use std::io::{BufRead, BufReader};
use std::panic::resume_unwind;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::boards::{self, BoardTest};
use crate::faults::Fault;
use crate::options::{Hypervisor, Options};
use crate::session::Echo;
use crate::typed::{self, TYPED};
use crate::{
    Result, bench, build, card, crash, dom0, faults, guests, leftovers, project, tree, uboot_ways,
    uefi, words,
};

/// One test: its name, and what it does with the options of the run.
pub struct Test {
    name: String,
    body: Box<dyn Fn(&Options) -> Result + Send + Sync>,
    company: Company,
}

/// Whether a test bears another one beside it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    /// It keeps two cores busy, or makes what others need.
    Alone,
    /// It waits much, for itself or for one CPU after the other, or only builds: one core is enough.
    Beside,
}

/// Tests that run side by side.
const LANES: usize = 2;
/// CPUs that one lane can emulate, if they are not all busy.
const LIGHT_CPUS: u32 = 2;

impl Test {
    fn new(
        name: impl Into<String>,
        body: impl Fn(&Options) -> Result + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            body: Box::new(body),
            company: Company::Alone,
        }
    }

    fn beside_others(self) -> Self {
        self.beside_others_if(true)
    }

    fn beside_others_if(mut self, light: bool) -> Self {
        if light {
            self.company = Company::Beside;
        }
        self
    }
}

/// The scripts of tests/dom0 and the machines they run on. PCI above 4 GiB, QEMU's default, is out of reach for Debian's Xen
/// in QEMU, so Krypton alone is tested there.
const DOM0: [(&str, u32, u32, bool); 19] = [
    ("facts", 2, 1024, false),
    ("facts", 1, 1024, false),
    ("shell", 2, 1024, false),
    ("poweroff", 2, 1024, false),
    ("reboot", 2, 1024, false),
    ("net", 2, 1024, false),
    ("disks", 2, 1024, false),
    ("facts", 4, 2048, false),
    ("facts", 8, 2048, false),
    ("disks", 4, 4096, true),
    ("toolstack", 2, 1024, false),
    ("domains", 2, 1024, false),
    ("pools", 2, 1024, false),
    ("guests", 2, 1024, false),
    ("demo", 2, 1024, false),
    ("load", 2, 1024, false),
    ("many", 2, 2048, false),
    ("cycles", 2, 2048, false),
    ("stress", 2, 1024, false),
];

/// Scripts that keep all CPUs busy. With two CPUs, others seldom have work for both.
const BUSY: [&str; 3] = ["load", "many", "stress"];

/// Runs everything whose name contains one of the operands, or all of it; the host tests only with all of it.
pub fn everything(options: &Options) -> Result<ExitCode> {
    let with_krypton = options.hypervisor == Hypervisor::Krypton;
    let mut tests = Vec::new();
    if with_krypton {
        tests.push(Test::new("image", build::image));
        tests.push(Test::new("size", |_| build::is_small()));
        tests.push(Test::new("panic", |options| {
            crash::reboots(options, Echo::Hide)
        }));
        tests.push(Test::new("panic noreboot", |options| {
            crash::stays(options, Echo::Hide)
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
    let host = if with_krypton && options.operands.is_empty() {
        host_tests()?
    } else {
        Sum::default()
    };
    run_after(host, tests, options)
}

/// What is about the start alone, and about builds.
fn starts() -> Vec<Test> {
    let mut tests = vec![
        Test::new("trees", |_| tree::test()),
        Test::new("reproducible", |_| build::reproducible()),
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
    tests.extend(faults());
    let mut tests: Vec<_> = tests.into_iter().map(Test::beside_others).collect();
    tests.push(Test::new("uboot from the card of flash", |options| {
        card::test(options, Echo::Hide)
    }));
    tests.extend(TYPED.iter().map(|typed| {
        Test::new(format!("qemu {}", typed.name), |options| {
            typed::test(typed, options, Echo::Hide)
        })
        .beside_others_if(typed.cpus <= LIGHT_CPUS)
    }));
    tests
}

/// The bare-metal guests, and what one says where domains are not kept apart.
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

/// The boot faults.
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
    Test::new(format!("board {board} {script} ({cpus} CPUs)"), |options| {
        boards::test(test, options, Echo::Hide)
    })
    .beside_others_if(is_light(script, *cpus))
}

/// Whether a script of tests/dom0 on that many CPUs bears another test beside it.
fn is_light(script: &str, cpus: u32) -> bool {
    cpus <= LIGHT_CPUS && !BUSY.contains(&script)
}

/// The ways through U-Boot.
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
    Test::new(
        format!("dom0 {script} ({cpus} CPUs, {memory_mib} MiB{above})"),
        |options| {
            let options = Options {
                cpus: *cpus,
                memory_mib: *memory_mib,
                highmem: *highmem,
                ..options.clone()
            };
            dom0::test(script, &options, Echo::Hide)
        },
    )
    .beside_others_if(is_light(script, *cpus))
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Sum {
    passed: u32,
    failed: u32,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs the tests that the operands select.
pub fn run(tests: Vec<Test>, options: &Options) -> Result<ExitCode> {
    run_after(Sum::default(), tests, options)
}

fn run_after(mut sum: Sum, mut tests: Vec<Test>, options: &Options) -> Result<ExitCode> {
    let wanted = &options.operands;
    tests.retain(|test| {
        wanted.is_empty() || wanted.iter().any(|word| test.name.contains(word.as_str()))
    });
    if tests.is_empty() {
        return Err("no test has such a name".into());
    }
    let (alone, beside): (Vec<_>, Vec<_>) = tests
        .into_iter()
        .partition(|test| test.company == Company::Alone);
    for test in &alone {
        sum.add(perform(test, options));
    }
    sum.add(side_by_side(&beside, options));
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs tests in [`LANES`] threads, each taking the next one when it is done with one.
fn side_by_side(tests: &[Test], options: &Options) -> Sum {
    let waiting = Mutex::new(tests.iter());
    let next = || waiting.lock().ok()?.next();
    let lane = || {
        let mut sum = Sum::default();
        while let Some(test) = next() {
            sum.add(perform(test, options));
        }
        sum
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let mut sum = Sum::default();
        for lane in lanes {
            sum.add(lane.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        sum
    })
}

/// Runs one test and tells how it went.
fn perform(test: &Test, options: &Options) -> Sum {
    let start = Instant::now();
    let mut result = (test.body)(options);
    if let Err(reason) = &result
        && is_about_lost_time(reason)
    {
        println!(
            "test {} ... once more: time was missed, which the host may have lost\n{reason}",
            test.name
        );
        result = (test.body)(options);
    }
    let seconds = start.elapsed().as_secs();
    match &result {
        Ok(()) => println!("test {} ... ok ({seconds} s)", test.name),
        Err(reason) => println!("test {} ... FAILED ({seconds} s)\n{reason}", test.name),
    }
    Sum {
        passed: result.is_ok().into(),
        failed: result.is_err().into(),
    }
}

/// Whether Linux complains that a CPU did not get to its timers, or a line did not come in time: both go by the clock on the
/// wall, and a host that stands still, or is slow for a while, looks the same as a lost interrupt. That one comes again.
fn is_about_lost_time(reason: &str) -> bool {
    let watchdog = ["soft lockup - CPU", "rcu: INFO: ", "blocked for more than"]
        .iter()
        .any(|complaint| reason.contains(complaint));
    let late = reason.lines().next().is_some_and(|line| {
        line.starts_with("no \"") && line.contains(" s in which the host stood still)")
    });
    watchdog || late
}

/// `cargo test` of the workspace, and what it counted.
fn host_tests() -> Result<Sum> {
    let mut cargo = Command::new(build::cargo_program())
        .current_dir(project::root())
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
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
            sum.add(counted);
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
    use super::{Sum, Test, counted, is_about_lost_time, side_by_side};
    use crate::options::Options;

    #[test]
    fn every_test_is_counted_in_whatever_lane_it_runs() {
        let passing = |name: &str| Test::new(name, |_| Ok(()));
        let failing = |name: &str| Test::new(name, |_| Err("it does".into()));
        let tests = [
            passing("a").beside_others(),
            failing("b").beside_others(),
            failing("c").beside_others(),
            passing("d").beside_others(),
            passing("e").beside_others(),
        ];
        assert_eq!(
            side_by_side(&tests, &Options::default()),
            Sum {
                passed: 3,
                failed: 2
            }
        );
    }

    #[test]
    fn only_lost_time_gets_a_second_look() {
        assert!(is_about_lost_time(
            "[  307.594993] watchdog: BUG: soft lockup - CPU#1 stuck for 257s! [stress-ng-vm:135]"
        ));
        assert!(!is_about_lost_time("Unable to handle kernel NULL pointer"));
        assert!(is_about_lost_time(
            "no \"TEST stress \" within 300 s (and 0 s in which the host stood still)\nlast lines"
        ));
        assert!(!is_about_lost_time("FAIL it answers ping"));
    }

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
