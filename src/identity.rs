//! The identity of this build: the words that `xl info`, the banner and the log show.

use alloc::string::String;

use spin::Once;

/// After "4.17": what Debian's Xen 4.17.5 has there.
pub const EXTRA_VERSION: &str = ".5";
/// Guest types, as libxl looks for them.
pub const CAPABILITIES: &str = "xen-3.0-armv7l ";
/// Compiler that built the image.
pub const COMPILER: &str = match option_env!("KRYPTON_RUSTC") {
    Some(text) => text,
    None => "rustc",
};
/// Who built it: always the project, so that builds are reproducible.
pub const COMPILED_BY: &str = "krypton";
/// Where it was built.
pub const COMPILED_ON: &str = "reproducible";
/// When the commit was made.
pub const COMPILED_AT: &str = match option_env!("KRYPTON_DATE") {
    Some(text) => text,
    None => "",
};
/// The commit.
pub const CHANGESET: &str = match option_env!("KRYPTON_CHANGESET") {
    Some(text) => text,
    None => "unknown",
};
/// Version of the hypervisor itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

static COMMAND_LINE: Once<String> = Once::new();

/// Remembers the hypervisor's command line.
pub fn set_command_line(line: &str) {
    COMMAND_LINE.call_once(|| line.into());
}

/// Returns the hypervisor's command line.
pub fn command_line() -> &'static str {
    COMMAND_LINE.get().map_or("", |line| line)
}

/// Returns the linker's id of the image; empty on a host.
pub fn build_id() -> &'static [u8] {
    armv7::layout::build_id()
}
