//! All tests in order, and the sum.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::ops::Add;
use std::panic::resume_unwind;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::boards::{self, BoardTest};
use crate::faults::Fault;
use crate::load_address::PLACES;
use crate::options::{Hypervisor, Options};
use crate::processors::{self, PROCESSORS};
use crate::session::Echo;
use crate::typed::{self, TYPED};
use crate::{
    Result, bench, build, card, crash, dom0, faults, guests, leftovers, load_address, project,
    session, tree, uboot_ways, uefi, words,
};

type Body = dyn Fn(&Options) -> Result<Sum> + Send + Sync;

/// One test: its name, and what it does with the options of the run.
pub struct Test {
    name: String,
    body: Box<Body>,
    /// Cores of the host that it keeps busy: two machines of two CPUs that wait much, or run one after the other, share two.
    cores: usize,
}

impl Test {
    fn new(
        name: impl Into<String>,
        body: impl Fn(&Options) -> Result + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            body: Box::new(move |options| {
                body(options).map(|()| Sum {
                    passed: 1,
                    failed: 0,
                })
            }),
            cores: 1,
        }
    }

    fn keeps_busy(mut self, cores: usize) -> Self {
        self.cores = cores;
        self
    }
}

/// CPUs of a machine that mostly keep one core busy.
const LIGHT_CPUS: u32 = 2;

/// The scripts of tests/dom0 and the machines they run on. PCI above 4 GiB, QEMU's default, is out of reach for Debian's Xen
/// in QEMU, so Krypton alone is tested there.
const DOM0: [(&str, u32, u32, bool); 20] = [
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
    ("last_words", 2, 1024, false),
    ("demo", 2, 1024, false),
    ("load", 2, 1024, false),
    ("many", 2, 2048, false),
    ("cycles", 2, 2048, false),
    ("stress", 2, 1024, false),
];

/// Scripts that keep all CPUs busy. With two CPUs, others seldom have work for more than one.
const BUSY: [&str; 3] = ["load", "many", "stress"];

/// What takes hours: a script, its machine's memory, and its count and seconds, unless the options say otherwise.
const SOAK: [(&str, u32, Option<u32>, Option<u32>); 3] = [
    ("cycles", 2048, Some(1000), None),
    ("load", 1024, Some(20), Some(300)),
    ("stress", 1024, None, Some(3600)),
];

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
    run(SOAK.iter().map(test).collect(), options)
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
        tests.push(Test::new("size", |_| build::is_small()));
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

/// What is about the start alone, and about builds.
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
    tests.extend(faults());
    tests.extend(PROCESSORS.iter().map(|processor| {
        Test::new(format!("processor {}", processor.name), |options| {
            processors::test(processor, options, Echo::Hide)
        })
    }));
    tests.push(Test::new("processor that comes too late", |options| {
        processors::comes_too_late(options, Echo::Hide)
    }));
    tests.extend(PLACES.iter().map(|places| {
        let name = places.board.unwrap_or("virt");
        Test::new(format!("load addresses on {name}"), |options| {
            load_address::test(places, options, Echo::Hide)
        })
    }));
    tests.push(Test::new("uboot from the card of flash", |options| {
        card::test(options, Echo::Hide)
    }));
    tests.extend(TYPED.iter().map(|typed| {
        Test::new(format!("qemu {}", typed.name), |options| {
            typed::test(typed, options, Echo::Hide)
        })
        .keeps_busy(cores_for("", typed.cpus))
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
    let same = |other: &&BoardTest| other.board == *board && other.cpus == *cpus;
    let alone = boards::TESTS.iter().filter(same).count() == 1;
    Test::new(
        format!("board {board} {script} ({cpus} CPUs)"),
        move |options| boards::test(test, &options.fresh_if(alone), Echo::Hide),
    )
    .keeps_busy(cores_for(script, *cpus))
}

/// How many cores of the host a script of tests/dom0 keeps busy on so many CPUs.
fn cores_for(script: &str, cpus: u32) -> usize {
    if cpus > LIGHT_CPUS || BUSY.contains(&script) {
        cpus as usize
    } else {
        1
    }
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

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sum {
    passed: u32,
    failed: u32,
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
        }
    }
}

/// Runs the tests that the operands select, as many side by side as there are cores, and prints the sum.
pub fn run(mut tests: Vec<Test>, options: &Options) -> Result<ExitCode> {
    let wanted = &options.operands;
    tests.retain(|test| {
        wanted.is_empty() || wanted.iter().any(|word| test.name.contains(word.as_str()))
    });
    if tests.is_empty() {
        return Err("no test has such a name".into());
    }
    options.order.apply(&mut tests, |test| &test.name);
    let cores = match options.jobs {
        Some(jobs) => jobs as usize,
        None => thread::available_parallelism().map_or(1, usize::from),
    };
    let start = Instant::now();
    let mut done = side_by_side(tests, cores, options);
    print_longest(&mut done, start.elapsed());
    let sum = done.iter().fold(Sum::default(), |sum, done| sum + done.sum);
    println!("{} passed, {} failed", sum.passed, sum.failed);
    Ok(if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A test that has run.
struct Done {
    name: String,
    sum: Sum,
    took: Duration,
    /// Time that the host's CPUs spent in its machines.
    in_qemu: Duration,
}

/// How many of the longest tests the runner names at its end.
const LONGEST_SHOWN: usize = 10;

fn print_longest(done: &mut [Done], took: Duration) {
    done.sort_by_key(|done| std::cmp::Reverse(done.took));
    println!(
        "the longest of {} s, and the CPU time of their machines:",
        took.as_secs()
    );
    for test in done.iter().take(LONGEST_SHOWN) {
        println!(
            "{:>6} s {:>6} s  {}",
            test.took.as_secs(),
            test.in_qemu.as_secs(),
            test.name
        );
    }
}

/// Tests that wait, and cores that no test keeps busy.
struct Queue {
    waiting: VecDeque<Test>,
    free: usize,
}

impl Queue {
    /// Takes the first test that the free cores are enough for.
    fn take(&mut self, all: usize) -> Option<Test> {
        let fits = |test: &Test| test.cores.min(all) <= self.free;
        let test = self.waiting.remove(self.waiting.iter().position(fits)?)?;
        self.free -= test.cores.min(all);
        Some(test)
    }
}

/// Runs tests in their order, as many at once as there are cores for.
fn side_by_side(tests: Vec<Test>, cores: usize, options: &Options) -> Vec<Done> {
    let queue = Mutex::new(Queue {
        waiting: tests.into(),
        free: cores,
    });
    let changed = Condvar::new();
    // A lock is poisoned by a panic in this file only; tests run outside of it.
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let lane = || {
        let mut done = Vec::new();
        let mut guard = lock();
        while !guard.waiting.is_empty() {
            let Some(test) = guard.take(cores) else {
                guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(guard);
            done.push(perform(&test, options));
            guard = lock();
            guard.free += test.cores.min(cores);
            changed.notify_all();
        }
        done
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..cores).map(|_| scope.spawn(lane)).collect();
        lanes
            .into_iter()
            .flat_map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
}

/// Runs one test and tells how it went.
fn perform(test: &Test, options: &Options) -> Done {
    let start = Instant::now();
    session::take_cpu_time();
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
    let took = start.elapsed();
    let seconds = took.as_secs();
    let sum = match result {
        Ok(sum) => {
            println!("test {} ... ok ({seconds} s)", test.name);
            sum
        }
        Err(reason) => {
            println!("test {} ... FAILED ({seconds} s)\n{reason}", test.name);
            Sum {
                passed: 0,
                failed: 1,
            }
        }
    };
    Done {
        name: test.name.clone(),
        sum,
        took,
        in_qemu: session::take_cpu_time(),
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

/// `cargo test` of the workspace, which counts for as many tests as it has.
fn host_tests() -> Test {
    Test {
        name: "host".into(),
        body: Box::new(|_| cargo_test()),
        cores: 1,
    }
}

fn cargo_test() -> Result<Sum> {
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Sum, Test, counted, is_about_lost_time, side_by_side};
    use crate::options::Options;

    #[test]
    fn every_test_is_counted_in_whatever_lane_it_runs() {
        let passing = |name: &str| Test::new(name, |_| Ok(()));
        let failing = |name: &str| Test::new(name, |_| Err("it does".into()));
        let tests = vec![
            passing("a"),
            failing("b").keeps_busy(2),
            failing("c").keeps_busy(8),
            passing("d"),
            passing("e"),
        ];
        let done = side_by_side(tests, 2, &Options::default());
        let mut names: Vec<_> = done.iter().map(|done| done.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c", "d", "e"]);
        assert_eq!(
            done.iter().fold(Sum::default(), |sum, done| sum + done.sum),
            Sum {
                passed: 3,
                failed: 2
            }
        );
    }

    #[test]
    fn no_more_cores_are_kept_busy_than_there_are() {
        let busy = Arc::new(AtomicUsize::new(0));
        let test = |index: usize| {
            let cores = index % 3 + 1;
            let busy = busy.clone();
            let body = move |_: &Options| {
                let now = busy.fetch_add(cores, Ordering::SeqCst) + cores;
                std::thread::yield_now();
                busy.fetch_sub(cores, Ordering::SeqCst);
                (now <= 4).then_some(()).ok_or(format!("{now} cores"))
            };
            Test::new(index.to_string(), body).keeps_busy(cores)
        };
        let done = side_by_side((0..60).map(test).collect(), 4, &Options::default());
        assert_eq!(done.iter().map(|done| done.sum.passed).sum::<u32>(), 60);
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
