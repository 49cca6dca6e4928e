//! Names of files, as UEFI wants them: UTF-16 with a zero at the end, folders parted by backslashes.

/// Characters of the longest name, with its end.
pub const LONGEST: usize = 256;
/// A name for the firmware.
pub type Name = [u16; LONGEST];

const BACKSLASH: u16 = b'\\' as u16;

/// Returns the name of a file in a folder of the same notation; an empty folder is the volume's top. `None` when it is too
/// long.
pub fn join(folder: &Name, file: &[u8]) -> Option<Name> {
    let mut name = [0; LONGEST];
    let folder = folder.iter().copied().take_while(|letter| *letter != 0);
    let letters = folder
        .chain([BACKSLASH])
        .chain(file.iter().map(|byte| match byte {
            b'/' => BACKSLASH,
            byte => u16::from(*byte),
        }));
    for (count, letter) in letters.enumerate() {
        // The last place stays zero.
        *name.get_mut(..LONGEST - 1)?.get_mut(count)? = letter;
    }
    Some(name)
}

/// Returns the folder of a file whose name comes in parts (UEFI 10.3.5.4: the nodes of a file path), or the top.
pub fn folder_of(parts: impl Iterator<Item = u16>) -> Name {
    let mut name = [0; LONGEST];
    let mut end = 0;
    for (count, letter) in parts.enumerate() {
        let letter = if letter == u16::from(b'/') {
            BACKSLASH
        } else {
            letter
        };
        let Some(place) = name.get_mut(count) else {
            return [0; LONGEST];
        };
        if letter == BACKSLASH {
            end = count;
        }
        *place = letter;
    }
    for letter in name.iter_mut().skip(end) {
        *letter = 0;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, Name, folder_of, join};

    fn text(name: &Name) -> String {
        let end = name.iter().position(|letter| *letter == 0).expect("an end");
        String::from_utf16_lossy(&name[..end])
    }

    fn folder(path: &str) -> Name {
        folder_of(path.encode_utf16())
    }

    #[test]
    fn files_are_looked_for_beside_the_image() {
        for (image, wanted) in [
            ("\\EFI\\BOOT\\BOOTARM.EFI", "\\EFI\\BOOT\\krypton.cfg"),
            ("/EFI/BOOT/BOOTARM.EFI", "\\EFI\\BOOT\\krypton.cfg"),
            ("\\krypton.efi", "\\krypton.cfg"),
            ("krypton.efi", "\\krypton.cfg"),
            ("", "\\krypton.cfg"),
        ] {
            let name = join(&folder(image), b"krypton.cfg").expect("short");
            assert_eq!(text(&name), wanted, "{image}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_none() {
        let top = [0; LONGEST];
        assert!(join(&top, &[b'x'; LONGEST - 2]).is_some());
        assert!(join(&top, &[b'x'; LONGEST - 1]).is_none());
        assert_eq!(folder(&"x\\".repeat(LONGEST)), top);
    }
}
