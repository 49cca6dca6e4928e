//! Lets an ARM C compiler compare `src/abi` with Debian's Xen headers (package libxen-dev).
//!
//! Every structure, field and number of ours becomes a `_Static_assert`; nothing is run. The headers are found in
//! `KRYPTON_XEN_HEADERS` (the folder that holds `xen/xen.h`), or where the set-up script unpacks Debian's packages:
//! `debian/root` in the cache folder (`KRYPTON_CACHE`, else `krypton` in `XDG_CACHE_HOME` or `~/.cache`). The compiler is `KRYPTON_ARM_CC` or
//! `arm-linux-gnueabihf-gcc`; without it the test says so and passes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use krypton::abi::layout::{Constant, Field, Layout};
use krypton::abi::{
    console, domctl, event_channel, grant_table, hvm, hypfs, memory, platform, sched, shared_info,
    sysctl, vcpu, version,
};

const LAYOUTS: &[&[Layout]] = &[
    console::LAYOUTS,
    domctl::LAYOUTS,
    event_channel::LAYOUTS,
    grant_table::LAYOUTS,
    hvm::LAYOUTS,
    hypfs::LAYOUTS,
    memory::LAYOUTS,
    platform::LAYOUTS,
    sched::LAYOUTS,
    shared_info::LAYOUTS,
    sysctl::LAYOUTS,
    vcpu::LAYOUTS,
    version::LAYOUTS,
];

const CONSTANTS: &[&[Constant]] = &[
    console::CONSTANTS,
    domctl::CONSTANTS,
    event_channel::CONSTANTS,
    event_channel::fifo::CONSTANTS,
    grant_table::CONSTANTS,
    hvm::CONSTANTS,
    hypfs::CONSTANTS,
    memory::CONSTANTS,
    platform::CONSTANTS,
    sched::CONSTANTS,
    sysctl::CONSTANTS,
    vcpu::CONSTANTS,
    version::CONSTANTS,
];

/// The integer types are the compiler's own, so that no C library has to be present.
const PROLOGUE: &str = "\
typedef __INT8_TYPE__ int8_t; typedef __UINT8_TYPE__ uint8_t;
typedef __INT16_TYPE__ int16_t; typedef __UINT16_TYPE__ uint16_t;
typedef __INT32_TYPE__ int32_t; typedef __UINT32_TYPE__ uint32_t;
typedef __INT64_TYPE__ int64_t; typedef __UINT64_TYPE__ uint64_t;
typedef __SIZE_TYPE__ size_t;
#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/hypfs.h>
#include <xen/io/console.h>
#include <xen/memory.h>
#include <xen/platform.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/vcpu.h>
#include <xen/version.h>
";

#[test]
fn structures_and_numbers_are_those_of_debians_headers() {
    let Some(compiler) = Compiler::find() else {
        return;
    };
    let mut program = String::from(PROLOGUE);
    for layout in LAYOUTS.iter().copied().flatten() {
        assert_layout(&mut program, layout);
    }
    for constant in CONSTANTS.iter().copied().flatten() {
        assert_that(&mut program, constant.c_name, constant.value);
    }
    if let Err(differences) = compiler.check("agreement", &program) {
        panic!("src/abi differs from the headers:\n{differences}");
    }
}

#[test]
fn a_difference_is_noticed() {
    let Some(compiler) = Compiler::find() else {
        return;
    };
    let wrong_offset = Layout {
        fields: &[Field {
            c_name: "status",
            offset: 38,
            size: 2,
        }],
        ..grant_table::Copy::LAYOUT
    };
    let mut program = String::from(PROLOGUE);
    assert_layout(&mut program, &wrong_offset);
    let differences = compiler
        .check("difference", &program)
        .expect_err("a field that is moved by two bytes must not pass");
    assert!(differences.contains("offsetof"), "{differences}");
}

fn assert_layout(program: &mut String, layout: &Layout) {
    let name = layout.c_name;
    assert_that(program, &format!("sizeof({name})"), layout.size as i64);
    assert_that(program, &format!("_Alignof({name})"), layout.align as i64);
    for field in layout.fields.iter().filter(|f| !f.c_name.is_empty()) {
        let member = field.c_name;
        let offset = format!("__builtin_offsetof({name}, {member})");
        assert_that(program, &offset, field.offset as i64);
        let size = format!("sizeof((({name} *)0)->{member})");
        assert_that(program, &size, field.size as i64);
    }
}

fn assert_that(program: &mut String, expression: &str, value: i64) {
    writeln!(
        program,
        "_Static_assert(({expression}) == {value}, \"{expression} is not {value}\");"
    )
    .expect("a string grows");
}

struct Compiler {
    command: String,
    headers: PathBuf,
}

impl Compiler {
    /// The compiler and the headers; `None` (and a message) without a compiler.
    fn find() -> Option<Self> {
        let command =
            env::var("KRYPTON_ARM_CC").unwrap_or_else(|_| "arm-linux-gnueabihf-gcc".into());
        match Command::new(&command).arg("--version").output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("SKIPPED: no {command}; install gcc-arm-linux-gnueabihf");
                return None;
            }
            other => other.expect("the ARM C compiler must start"),
        };
        let headers = headers().expect(
            "the ARM C compiler is there, but not Xen's headers: set KRYPTON_XEN_HEADERS to the folder that holds xen/xen.h",
        );
        Some(Self { command, headers })
    }

    /// Compiles `program`; `Err` holds what the compiler says.
    fn check(&self, name: &str, program: &str) -> Result<(), String> {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("abi_{name}.c"));
        fs::write(&file, program).expect("the target folder is writable");
        let output = Command::new(&self.command)
            .args(["-std=gnu11", "-ffreestanding", "-fsyntax-only"])
            .args(["-fmax-errors=0", "-D__XEN_TOOLS__", "-I"])
            .arg(&self.headers)
            .arg(&file)
            .output()
            .expect("the ARM C compiler must start");
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// The folder that holds `xen/xen.h`.
fn headers() -> Option<PathBuf> {
    let roots = match env::var_os("KRYPTON_XEN_HEADERS") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => vec![cache()?.join("debian/root/usr/include")],
    };
    roots
        .into_iter()
        .find(|root| root.join("xen/xen.h").is_file())
}

fn cache() -> Option<PathBuf> {
    let below = |name, rest: &str| Some(PathBuf::from(env::var_os(name)?).join(rest));
    below("KRYPTON_CACHE", "")
        .or_else(|| below("XDG_CACHE_HOME", "krypton"))
        .or_else(|| below("HOME", ".cache/krypton"))
}
