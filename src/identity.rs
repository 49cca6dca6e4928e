//! Identity of this build, shown by `xl info`, the banner and the log.

use alloc::string::String;

use spin::Once;

/// Version after "4.17": that of Debian's Xen 4.17.5.
pub const EXTRA_VERSION: &str = ".5";
/// Guest types, in libxl's format.
pub const CAPABILITIES: &str = "xen-3.0-armv7l ";
/// Version of the compiler.
pub const COMPILER: &str = match option_env!("KRYPTON_RUSTC") {
    Some(text) => text,
    None => "rustc",
};
/// Builder: a constant, so that builds are reproducible.
pub const COMPILED_BY: &str = "krypton";
/// Build host: a constant, so that builds are reproducible.
pub const COMPILED_ON: &str = "reproducible";
/// Date of the commit.
pub const COMPILED_AT: &str = match option_env!("KRYPTON_DATE") {
    Some(text) => text,
    None => "",
};
/// Id of the commit.
pub const CHANGESET: &str = match option_env!("KRYPTON_CHANGESET") {
    Some(text) => text,
    None => "unknown",
};
/// Krypton's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

static COMMAND_LINE: Once<String> = Once::new();

/// Sets the hypervisor's command line. Only the first call has an effect.
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
