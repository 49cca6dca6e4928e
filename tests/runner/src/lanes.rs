//! Tests side by side: as many at once as there are cores for, and what became of them.

use std::collections::VecDeque;
use std::ops::Add;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::{Result, project, session};

type Body = dyn Fn(&Options) -> Result<Sum> + Send + Sync;

/// One test: its name, and what it does with the options of the run.
pub struct Test {
    name: String,
    body: Box<Body>,
    /// Cores of the host that it keeps busy: two machines of two CPUs that wait much, or run one after the other, share two.
    cores: usize,
}

impl Test {
    /// A test that is one, and keeps one core busy.
    pub fn new(
        name: impl Into<String>,
        body: impl Fn(&Options) -> Result + Send + Sync + 'static,
    ) -> Self {
        Self::of_many(name, move |options| {
            body(options).map(|()| Sum {
                passed: 1,
                failed: 0,
            })
        })
    }

    /// A test that counts for as many as it says.
    pub fn of_many(
        name: impl Into<String>,
        body: impl Fn(&Options) -> Result<Sum> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            body: Box::new(body),
            cores: 1,
        }
    }

    /// The same test, which keeps so many cores busy.
    pub fn keeps_busy(mut self, cores: usize) -> Self {
        self.cores = cores;
        self
    }
}

/// How many tests passed, and how many did not.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sum {
    pub passed: u32,
    pub failed: u32,
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
    keep_times(&done);
    print_complaints(&done);
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
    /// Reasons why it failed, or failed the first time.
    complaints: Vec<String>,
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

/// Writes the times of all tests, longest first, to `target/test-times`: seconds, CPU seconds of their machines, name.
fn keep_times(done: &[Done]) {
    let line = |test: &Done| {
        let (took, in_qemu) = (test.took.as_secs(), test.in_qemu.as_secs());
        format!("{took}\t{in_qemu}\t{}\n", test.name)
    };
    let times: String = done.iter().map(line).collect();
    let path = project::root().join("target/test-times");
    if let Err(error) = std::fs::write(&path, times) {
        println!("{}: {error}", path.display());
    }
}

/// Lines of a reason that the end of the run repeats.
const GIST_LINES: usize = 4;

/// Repeats in short what failed, so that the end of a long log tells it.
fn print_complaints(done: &[Done]) {
    for test in done {
        let word = if test.sum.failed > 0 {
            "FAILED"
        } else {
            "failed first"
        };
        for complaint in &test.complaints {
            println!("{word}: {}: {}", test.name, gist(complaint));
        }
    }
}

/// Returns the first line of a reason, and its first lines about a failed check.
fn gist(reason: &str) -> String {
    let mut lines = reason.lines();
    let first = lines.next().unwrap_or("no reason");
    let checks = lines.filter(|line| line.contains("FAIL"));
    let lines: Vec<_> = [first].into_iter().chain(checks).take(GIST_LINES).collect();
    lines.join("\n    ")
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
    let mut complaints = Vec::new();
    let mut result = (test.body)(options);
    if let Err(reason) = &result
        && is_about_lost_time(reason)
    {
        println!(
            "test {} ... once more: time was missed, which the host may have lost\n{reason}",
            test.name
        );
        complaints.push(reason.clone());
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
            complaints.push(reason);
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
        complaints,
    }
}

/// Returns whether Linux complains that a CPU did not get to its timers, or a line did not come in time: both go by the
/// clock on the wall, and a host that stands still, or is slow for a while, looks the same as a lost interrupt. That one
/// comes again.
fn is_about_lost_time(reason: &str) -> bool {
    let watchdog = ["soft lockup - CPU", "rcu: INFO: ", "blocked for more than"]
        .iter()
        .any(|complaint| reason.contains(complaint));
    let late = reason.lines().next().is_some_and(|line| {
        line.starts_with("no \"") && line.contains(" s in which the host stood still)")
    });
    watchdog || late
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Sum, Test, gist, is_about_lost_time, side_by_side};
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
    fn the_gist_names_failed_checks() {
        assert_eq!(
            gist("dom0 is up\nok a\nFAIL it answers\nlast"),
            "dom0 is up\n    FAIL it answers"
        );
        assert_eq!(
            gist("no \"TEST\" within 3 s\nok a"),
            "no \"TEST\" within 3 s"
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
}
