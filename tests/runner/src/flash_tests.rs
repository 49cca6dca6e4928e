//! Tests of `flash`: the written, the untouched, and the refused.

use std::fs;
use std::io::Cursor;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::{
    Layout, PARTITION_START, Part, Target, in_use, is_yes, whole_disk, write_around_loaders,
};
use crate::disk;
use crate::session::ScratchFolder;

fn part(name: &str, number: &str) -> Part {
    Part {
        name: name.into(),
        number: number.into(),
        held: false,
    }
}

fn card() -> Vec<Part> {
    vec![part("sdz", "8:240"), part("sdz1", "8:241")]
}

const MOUNTINFO: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /data rw shared:2 - btrfs /dev/sdy1 rw
";

#[test]
fn a_disk_with_a_mounted_partition_is_refused() {
    assert_eq!(in_use(&card(), MOUNTINFO, ""), None);
    let mounted = format!("{MOUNTINFO}40 22 8:241 / /media/card rw - vfat /dev/sdz1 rw\n");
    assert_eq!(
        in_use(&card(), &mounted, "").unwrap(),
        "/dev/sdz1 is mounted on /media/card"
    );
}

#[test]
fn a_mount_is_found_by_number_or_by_name() {
    let root = [part("vda", "254:0"), part("vda1", "254:1")];
    assert_eq!(
        in_use(&root, MOUNTINFO, "").unwrap(),
        "/dev/vda1 is mounted on /"
    );
    let btrfs = [part("sdy", "8:224"), part("sdy1", "8:225")];
    assert_eq!(
        in_use(&btrfs, MOUNTINFO, "").unwrap(),
        "/dev/sdy1 is mounted on /data"
    );
}

#[test]
fn swap_and_what_others_are_made_of_is_refused() {
    let swaps = "Filename\tType\tSize\n/dev/sdz1 partition 100 0 -2\n";
    assert!(in_use(&card(), "", swaps).unwrap().contains("swap"));
    let mut parts = card();
    parts[1].held = true;
    assert!(in_use(&parts, "", "").unwrap().contains("another"));
}

#[test]
fn a_partition_in_the_place_of_a_disk_is_refused() {
    let sysfs = ScratchFolder::new("sysfs").unwrap();
    let disk = sysfs.path().join("sdz");
    let first = disk.join("sdz1");
    fs::create_dir_all(disk.join("holders")).unwrap();
    fs::create_dir_all(first.join("holders").join("dm-0")).unwrap();
    for (folder, number) in [(&disk, "8:240\n"), (&first, "8:241\n")] {
        fs::write(folder.join("dev"), number).unwrap();
        fs::write(folder.join("size"), "4096\n").unwrap();
    }
    fs::write(first.join("partition"), "1\n").unwrap();
    let (bytes, parts) = whole_disk("sdz", sysfs.path()).unwrap();
    assert_eq!(bytes, 2 << 20);
    let held = Part {
        held: true,
        ..part("sdz1", "8:241")
    };
    assert_eq!(parts, [part("sdz", "8:240"), held]);

    let error = whole_disk("sdz1", &disk).unwrap_err();
    assert!(error.contains("sdz1 is a partition"), "{error}");
}

#[test]
fn only_files_and_disks_are_written_to() {
    let folder = ScratchFolder::new("flash-test").unwrap();
    let of = |path: &Path| Target::of(path, Path::new("/nowhere"));
    let file = folder.path().join("card.img");
    assert!(of(&file).unwrap().question(Layout::Card).is_none());
    fs::write(&file, "old").unwrap();
    let question = of(&file).unwrap().question(Layout::Card).unwrap();
    assert!(question.contains("card.img will be overwritten"));

    let socket = folder.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for other in [folder.path(), &socket, Path::new("/dev/null")] {
        let error = of(other).unwrap_err();
        assert!(error.contains("neither a file nor a disk"), "{error}");
    }
}

#[test]
fn a_device_that_does_not_exist_is_no_new_file() {
    let error = Target::of(Path::new("/dev/sd-none"), Path::new("/nowhere")).unwrap_err();
    assert!(error.contains("no device /dev/sd-none"), "{error}");
}

#[test]
fn a_disk_that_is_too_small_stays_as_it_is() {
    let folder = ScratchFolder::new("flash-test").unwrap();
    let (image, card) = (folder.path().join("image"), folder.path().join("card"));
    fs::write(&image, [1; 2048]).unwrap();
    fs::write(&card, [2; 1024]).unwrap();
    let target = Target::Device {
        path: card.clone(),
        bytes: 1024,
        parts: Vec::new(),
    };
    assert!(
        target
            .write(&image, Layout::Card)
            .unwrap_err()
            .contains("are needed")
    );
    assert_eq!(fs::read(&card).unwrap(), [2; 1024]);
}

#[test]
fn the_loaders_before_the_partition_are_left_alone() {
    let start = PARTITION_START as usize;
    let mut image = vec![0; start];
    disk::write_partition_table(&mut image[..512], 8);
    image.extend([7; 4096]);
    let mut card = Cursor::new(vec![0xee; start + 8192]);
    write_around_loaders(&mut Cursor::new(&image), &mut card).unwrap();
    let card = card.into_inner();
    assert_eq!(card[..446], [0xee; 446]);
    assert_eq!(card[446..512], image[446..512]);
    assert!(card[512..start].iter().all(|byte| *byte == 0xee));
    assert_eq!(card[start..start + 4096], [7; 4096]);
    assert!(card[start + 4096..].iter().all(|byte| *byte == 0xee));
}

#[test]
fn only_a_whole_yes_is_one() {
    assert!(is_yes(&mut Cursor::new("yes\n")));
    for answer in ["", "y\n", "YES\n", "yes!\n", "no\n"] {
        assert!(!is_yes(&mut Cursor::new(answer)), "{answer:?}");
    }
}

#[test]
fn a_file_gets_a_partition_with_the_files_in_it() {
    let folder = ScratchFolder::new("flash-test").unwrap();
    let (content, image) = (folder.path().join("content"), folder.path().join("image"));
    let card = folder.path().join("card.img");
    fs::write(&content, "this is the script").unwrap();
    disk::make(&image, &[(content, "boot.scr".into())]).unwrap();
    let target = Target::of(&card, Path::new("/nowhere")).unwrap();
    target.check_unused().unwrap();
    target.write(&image, Layout::Card).unwrap();

    let bytes = fs::read(&card).unwrap();
    let start = PARTITION_START as usize;
    assert_eq!(bytes[446], 0x80, "the partition is the active one");
    assert_eq!(bytes[450], 0x0c, "and of the type for FAT");
    assert_eq!(bytes[454..458], 8192_u32.to_le_bytes());
    let sectors = u32::from_le_bytes(bytes[458..462].try_into().unwrap());
    assert_eq!(start + sectors as usize * 512, bytes.len());
    assert_eq!(bytes[510..512], [0x55, 0xaa]);
    assert_eq!(
        bytes[start + 510..start + 512],
        [0x55, 0xaa],
        "a boot sector"
    );
    let text = b"this is the script";
    assert!(
        bytes[start..]
            .windows(text.len())
            .any(|window| window == text)
    );
}
