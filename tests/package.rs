//! The Debian package's parts that need no build: its manual page against the command line's options, and `update-krypton`
//! in a folder that looks like a Debian system.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// Returns what stands between two lines of a text.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text
        .split_once(start)
        .unwrap_or_else(|| panic!("no {start}"));
    rest.split_once(end).map_or(rest, |(part, _)| part)
}

/// Returns the names of a function's match arms, which stand at this depth of the source.
fn arms(function: &str, depth: usize) -> BTreeSet<String> {
    let indent = format!("\n{}\"", " ".repeat(depth));
    function
        .split(&indent)
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn the_manual_page_has_every_option_and_no_other() {
    let source = text("src/cmdline.rs");
    let mut options = arms(
        between(&source, "    fn take(&mut self", "    fn take_flag"),
        12,
    );
    let flags = arms(
        between(&source, "    fn take_flag(&mut self", "\n    }\n"),
        12,
    );
    assert!(options.contains("dom0_mem") && flags.contains("noreboot"));
    options.extend(flags);
    let page = text("package/man/krypton.8");
    let section = between(&page, ".SH OPTIONS\n", ".SH ");
    let described: BTreeSet<_> = section
        .lines()
        .filter_map(|line| line.strip_prefix(".B "))
        .filter(|name| !name.contains(' '))
        .map(str::to_owned)
        .collect();
    assert_eq!(described, options);
}

#[test]
fn the_manual_page_has_every_option_without_effect() {
    let source = text("src/cmdline/value.rs");
    let list = between(&source, "const WITHOUT_EFFECT: &[&str] = &[", "];");
    let options: BTreeSet<_> = list.split('"').skip(1).step_by(2).collect();
    let page = text("package/man/krypton.8").replace('\\', "");
    let mut listed: BTreeSet<_> = between(&page, ".SH OPTIONS WITHOUT EFFECT\n", ".SH ")
        .lines()
        .filter_map(|line| line.strip_prefix(".BR "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, _)| name.trim_end_matches('*'))
        .collect();
    // Only one of its values has none.
    listed.insert("bootscrub");
    assert_eq!(listed, options);
}

/// A folder that looks like a Debian system with one kernel, gone with this value.
struct System(PathBuf);

impl System {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("krypton-{name}-{}", std::process::id()));
        let system = Self(path);
        system.write("etc/fstab", "UUID=1234 / ext4 defaults 0 1\n");
        system.write("usr/lib/krypton/boot.scr", "Krypton's script");
        system.write("boot/krypton-0.9.0", "Krypton 0.9.0");
        system.write("boot/krypton-0.9.0.uImage", "U-Boot's");
        system.write(
            "etc/default/krypton.d/krypton.cfg",
            &text("package/root/etc/default/krypton.d/krypton.cfg"),
        );
        system.add_kernel("6.1.0-9-armmp", "CONFIG_XEN_DOM0=y\n");
        system
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn add_kernel(&self, version: &str, config: &str) {
        self.write(&format!("boot/vmlinuz-{version}"), "kernel");
        self.write(&format!("boot/initrd.img-{version}"), "RAM disk");
        self.write(&format!("boot/config-{version}"), config);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    /// Runs `update-krypton` on it; returns what it says.
    fn update(&self, arguments: &[&str]) -> String {
        let output = Command::new("sh")
            .arg(Path::new(ROOT).join("package/root/usr/sbin/update-krypton"))
            .arg("--root")
            .arg(&self.0)
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
        said
    }

    /// Returns the names of the files in /boot that start Krypton.
    fn started_by(&self) -> Vec<&str> {
        [
            "boot.scr.uimg",
            "boot/boot.scr.uimg",
            "boot/krypton.env",
            "boot/krypton.img",
        ]
        .into_iter()
        .filter(|name| self.has(name))
        .collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what is left is in the folder for such things
    }
}

#[test]
fn the_newest_kernel_for_dom0_starts_under_krypton() {
    let system = System::new("newest");
    system.add_kernel("6.1.0-10-armmp", "CONFIG_XEN_DOM0=y\n");
    system.add_kernel("6.12.0-1-armmp", "# CONFIG_XEN_DOM0 is not set\n");
    system.add_kernel("6.1.0-11-armmp", "CONFIG_XEN_DOM0=y\n");
    fs::remove_file(system.0.join("boot/initrd.img-6.1.0-11-armmp")).unwrap();
    system.update(&[]);
    let expected = "krypton_image=krypton.img\nkrypton_version=6.1.0-10-armmp\nkrypton_options=dom0_mem=512M\n\
                    krypton_dom0_options=root=UUID=1234 ro console=hvc0\n";
    assert_eq!(system.read("boot/krypton.env"), expected);
    assert_eq!(system.read("boot/krypton.img"), "Krypton 0.9.0");
    assert_eq!(system.read("boot/boot.scr.uimg"), "Krypton's script");
    assert!(!system.has("boot.scr.uimg"));
}

#[test]
fn a_removal_leaves_what_was_there_before() {
    let system = System::new("removal");
    system.write("boot/extlinux/extlinux.conf", "menu");
    system.write("boot/efi/EFI/debian/grubarm.efi", "another loader");
    system.update(&[]);
    assert_eq!(system.started_by().len(), 4);
    assert_eq!(
        system.read("boot/efi/EFI/BOOT/BOOTARM.EFI"),
        "Krypton 0.9.0"
    );
    let said = system.read("boot/efi/EFI/BOOT/krypton.cfg");
    assert!(
        said.contains("kernel=krypton-vmlinuz root=UUID=1234 ro console=hvc0\n"),
        "{said}"
    );
    system.update(&["--remove"]);
    assert!(system.started_by().is_empty());
    assert!(
        !system.has("boot/efi/EFI/BOOT/BOOTARM.EFI")
            && !system.has("boot/efi/EFI/BOOT/krypton.cfg")
            && !system.has("boot/efi/EFI/BOOT/krypton-initrd.img")
    );
    assert!(
        system.has("boot/extlinux/extlinux.conf") && system.has("boot/efi/EFI/debian/grubarm.efi")
    );
}

#[test]
fn files_of_other_loaders_stay() {
    let system = System::new("others");
    system.write("boot/boot.scr.uimg", "somebody's");
    system.write("boot/efi/EFI/BOOT/BOOTARM.EFI", "another loader");
    let said = system.update(&[]);
    assert_eq!(said.matches("stays").count(), 2, "{said}");
    system.update(&["--remove"]);
    assert_eq!(system.read("boot/boot.scr.uimg"), "somebody's");
    assert_eq!(
        system.read("boot/efi/EFI/BOOT/BOOTARM.EFI"),
        "another loader"
    );
}

#[test]
fn between_unpacking_and_configuring_the_old_one_starts() {
    let system = System::new("upgrade");
    system.update(&[]);
    // dpkg replaces the file in this way when it unpacks the next version.
    fs::rename(
        system.0.join("boot/krypton-0.9.0"),
        system.0.join("boot/krypton-0.10.0"),
    )
    .unwrap();
    system.write("boot/krypton-0.10.0", "Krypton 0.10.0");
    assert_eq!(system.read("boot/krypton.img"), "Krypton 0.9.0");
    assert_eq!(system.started_by().len(), 3);
    system.update(&[]);
    assert_eq!(system.read("boot/krypton.img"), "Krypton 0.10.0");
}

#[test]
fn without_a_kernel_for_dom0_or_by_the_administrators_word_krypton_does_not_start() {
    let system = System::new("none");
    system.update(&[]);
    system.write("boot/config-6.1.0-9-armmp", "");
    let said = system.update(&[]);
    assert!(
        said.contains("no kernel") && system.started_by().is_empty(),
        "{said}"
    );

    system.add_kernel("6.1.0-9-armmp", "CONFIG_XEN_DOM0=y\n");
    system.update(&[]);
    assert!(!system.started_by().is_empty());
    system.write("etc/default/krypton.d/local.cfg", "KRYPTON_DEFAULT=no\n");
    system.update(&[]);
    assert!(system.started_by().is_empty());
}
