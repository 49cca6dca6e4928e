//! Runs the sentences of a theme and says which hold.
//!
//! The transcript is the interface to the runner: `guest: <theme>`, then `ok <sentence>` or `FAIL <sentence>: why` for
//! each, then `done: N ok, M failed`. After that the guest powers its domain off.

use core::fmt;
use core::panic::Location;

use crate::{hypercall, last_words, platform, psci};

/// The element of a table or loop that a check failed for.
pub struct At(pub Option<i64>);

impl fmt::Display for At {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        self.0.map_or(Ok(()), |at| write!(out, " at {at:#x}"))
    }
}

/// Why a sentence does not hold.
pub struct Failure {
    pub line: u32,
    pub what: &'static str,
    pub got: i64,
    pub wanted: i64,
    pub at: At,
}

/// Turns an unexpected error code of a call that a test only builds upon into a failed test.
#[track_caller]
pub fn expect<T>(result: Result<T, i32>) -> Result<T, Failure> {
    let line = Location::caller().line();
    result.map_err(|error| Failure { line, what: "the result", got: i64::from(error), wanted: 0, at: At(None) })
}

pub type Verdict = Result<(), Failure>;
pub type Test = (&'static str, fn() -> Verdict);

/// Declares the binary's entry and its tests, in the order in which they run. A test's sentence is its name without path.
#[macro_export]
macro_rules! suite {
    ($theme:literal: $($test:path),* $(,)?) => {
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() -> ! {
            $crate::harness::run($theme, &[$((stringify!($test), $test)),*])
        }
    };
}

/// Fails the test unless the condition holds; an optional last argument names the case.
#[macro_export]
macro_rules! ensure {
    ($condition:expr) => { $crate::ensure!(@ $condition, None) };
    ($condition:expr, $at:expr) => { $crate::ensure!(@ $condition, Some($at as i64)) };
    (@ $condition:expr, $at:expr) => {
        if !$condition {
            return Err($crate::harness::Failure {
                line: line!(), what: stringify!($condition), got: 0, wanted: 1, at: $crate::harness::At($at),
            });
        }
    };
}

/// Fails the test unless both integers are equal; an optional last argument names the case.
#[macro_export]
macro_rules! ensure_eq {
    ($got:expr, $wanted:expr) => { $crate::ensure_eq!(@ $got, $wanted, None) };
    ($got:expr, $wanted:expr, $at:expr) => { $crate::ensure_eq!(@ $got, $wanted, Some($at as i64)) };
    (@ $got:expr, $wanted:expr, $at:expr) => {
        match ($got as i64, $wanted as i64) {
            (got, wanted) if got == wanted => {}
            (got, wanted) => {
                return Err($crate::harness::Failure { line: line!(), what: stringify!($got), got, wanted, at: $crate::harness::At($at) });
            }
        }
    };
}

/// Returns whether the boot arguments want this test. `only=<text>` wants those whose name, with its module's, contains it;
/// `skip=<name>` (again and again) leaves that one out.
///
/// A sentence that a hypervisor answers with a hang has to be skipped there (README.md lists them for Xen).
fn is_wanted(path: &str) -> bool {
    let machine = platform::get();
    machine.arguments("only").all(|text| path.contains(text))
        && machine.arguments("skip").all(|name| name != sentence(path))
}

fn sentence(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// Runs the wanted tests and powers off.
pub fn run(theme: &str, tests: &[Test]) -> ! {
    last_words::speak();
    let (mut held, mut failed) = (0, 0);
    println!("guest: {theme}");
    for &(path, test) in tests.iter().filter(|(path, _)| is_wanted(path)) {
        let sentence = sentence(path);
        match test() {
            Ok(()) => {
                held += 1;
                println!("ok {sentence}");
            }
            Err(failure) => {
                failed += 1;
                report(sentence, &failure);
            }
        }
    }
    println!("done: {held} ok, {failed} failed");
    power_off()
}

fn report(sentence: &str, failure: &Failure) {
    let Failure { line, what, got, wanted, at } = failure;
    println!("FAIL {sentence}: line {line}{at}: {what} is {got} ({got:#x}), wanted {wanted} ({wanted:#x})");
}

const SCHEDOP_SHUTDOWN: u32 = 2;
const SHUTDOWN_POWEROFF: u32 = 0;
/// As the kernel of a domain that panics.
pub const SHUTDOWN_CRASH: u32 = 3;

/// Ends the domain: the hypercall where there is one, PSCI otherwise.
pub fn power_off() -> ! {
    if platform::known().is_none_or(|machine| machine.is_guest()) {
        shut_down(SHUTDOWN_POWEROFF);
    }
    psci::call(psci::SYSTEM_OFF, 0, 0, 0);
    loop {
        crate::cp15::wfi();
    }
}

/// SCHEDOP_shutdown, which comes back only where there is no hypervisor.
pub fn shut_down(mut reason: u32) -> u32 {
    hypercall::call_with(hypercall::SCHED_OP, SCHEDOP_SHUTDOWN, &mut reason) as u32
}
