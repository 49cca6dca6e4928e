//! The configuration file, in the format of Xen's `xen.cfg` (Xen's docs/misc/efi.pandoc): sections in brackets with lines
//! `key=value`.
//!
//! `default` in `[global]` names the section to boot; what that does not say, `[global]` may. Without a default, headers
//! do not matter: the first line with the key counts.

/// The boot configuration. Names are of files beside the configuration file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config<'a> {
    /// dom0's kernel.
    pub kernel: &'a [u8],
    /// dom0's command line: the rest of the kernel's line.
    pub kernel_arguments: Option<&'a [u8]>,
    /// dom0's initial RAM disk.
    pub ramdisk: Option<&'a [u8]>,
    /// A device tree in place of the firmware's.
    pub tree: Option<&'a [u8]>,
    /// The hypervisor's command line.
    pub options: Option<&'a [u8]>,
}

/// A fault of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// `default` names a section that is not there.
    NoSection,
    /// Nothing names a kernel.
    NoKernel,
}

const GLOBAL: &[u8] = b"global";

impl<'a> Config<'a> {
    /// Reads a file.
    pub fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let default = lines(file)
            .find(|line| line.section == GLOBAL && line.key == b"default")
            .map(|line| line.value);
        if let Some(name) = default
            && !headers(file).any(|header| header == name)
        {
            return Err(Error::NoSection);
        }
        let find = |key: &[u8]| {
            let within = |section: Option<&[u8]>| {
                lines(file)
                    .find(|line| line.key == key && section.is_none_or(|it| it == line.section))
                    .map(|line| line.value)
            };
            match default {
                Some(_) => within(default).or_else(|| within(Some(GLOBAL))),
                None => within(None),
            }
        };
        let (kernel, kernel_arguments) = first_word(find(b"kernel").unwrap_or_default());
        if kernel.is_empty() {
            return Err(Error::NoKernel);
        }
        // A file name ends at a blank, as Xen has it for all of them.
        let name_of = |key| find(key).map(|value| first_word(value).0);
        Ok(Self {
            kernel,
            kernel_arguments,
            ramdisk: name_of(b"ramdisk"),
            tree: name_of(b"dtb"),
            options: find(b"options"),
        })
    }
}

struct Line<'a> {
    section: &'a [u8],
    key: &'a [u8],
    /// Not empty.
    value: &'a [u8],
}

fn rows(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| matches!(byte, b'\n' | b'\r' | 0))
        .map(<[u8]>::trim_ascii)
        .filter(|row| !matches!(row.first(), None | Some(b'#' | b';')))
}

fn header(row: &[u8]) -> Option<&[u8]> {
    row.strip_prefix(b"[")?.strip_suffix(b"]")
}

fn headers(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    rows(file).filter_map(header)
}

fn lines(file: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut section: &[u8] = b"";
    rows(file).filter_map(move |row| {
        if let Some(name) = header(row) {
            section = name;
            return None;
        }
        let (key, value) = halves(row, |byte| byte == b'=');
        let value = value?.trim_ascii();
        (!value.is_empty()).then_some(Line {
            section,
            key: key.trim_ascii(),
            value,
        })
    })
}

/// Returns a word, and what follows it if anything does.
fn first_word(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (word, rest) = halves(text, |byte| byte.is_ascii_whitespace());
    (word, rest.map(<[u8]>::trim_ascii))
}

/// Returns what is before the first byte that `is_border`, and what is after it.
fn halves(text: &[u8], is_border: impl Fn(u8) -> bool) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |byte| is_border(*byte));
    (parts.next().unwrap_or_default(), parts.next())
}

#[cfg(test)]
mod tests {
    use super::{Config, Error};

    const FILE: &[u8] = b"# a comment\r\n[global]\r\ndefault=debian\r\noptions=console=dtuart\r\n\
        \r\n[other]\r\nkernel=other\r\nramdisk=other.gz\r\n\
        \r\n[debian]\r\nkernel=vmlinuz console=hvc0  root=/dev/vda\r\n ramdisk = initrd.gz \r\n";

    #[test]
    fn the_default_section_and_global_say_what_to_boot() {
        assert_eq!(
            Config::parse(FILE),
            Ok(Config {
                kernel: b"vmlinuz",
                kernel_arguments: Some(b"console=hvc0  root=/dev/vda"),
                ramdisk: Some(b"initrd.gz"),
                tree: None,
                options: Some(b"console=dtuart"),
            })
        );
    }

    #[test]
    fn without_a_default_the_first_line_with_the_key_counts() {
        let file = b"[a]\noptions=one\n[b]\nkernel=k\nkernel=l\noptions=two\ndtb=board.dtb";
        assert_eq!(
            Config::parse(file),
            Ok(Config {
                kernel: b"k",
                kernel_arguments: None,
                ramdisk: None,
                tree: Some(b"board.dtb"),
                options: Some(b"one"),
            })
        );
    }

    #[test]
    fn a_default_without_its_section_is_named() {
        let file = b"[global]\ndefault=x\n[y]\nkernel=k";
        assert_eq!(Config::parse(file), Err(Error::NoSection));
    }

    #[test]
    fn a_file_without_a_kernel_is_no_configuration() {
        for file in [
            &b""[..],
            b"\x7fELF\x01\0\0",
            b"[global]\nkernel=\n",
            b"[x]\noptions=kernel=1",
        ] {
            assert_eq!(Config::parse(file), Err(Error::NoKernel), "{file:?}");
        }
    }
}
