//! The device tree's `/chosen`: the modules that a boot loader put there, and a copy of the tree with modules of ours.

use dt::{Blob, Cursor, Token, Writer};

/// Bytes that a copy needs beside those of the tree and the texts of modules and options.
const ADDED: usize = 1024;
/// Bytes of the names of properties among them.
const ADDED_NAMES: usize = 128;

/// A reason why there is no copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// `#address-cells` or `#size-cells` of `/chosen` is neither 1 nor 2.
    Cells,
    /// The copy does not fit.
    NoRoom,
}

/// A file in RAM.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Its use.
    pub kind: Kind,
    /// Where it is.
    pub address: u32,
    /// In bytes.
    pub size: u32,
    /// The command line that belongs to it.
    pub arguments: Option<&'a [u8]>,
}

/// The use of a module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// dom0's kernel.
    Kernel,
    /// dom0's initial RAM disk.
    Ramdisk,
}

impl Kind {
    fn compatible(self) -> &'static [u8] {
        match self {
            Self::Kernel => b"multiboot,kernel\0multiboot,module\0",
            Self::Ramdisk => b"multiboot,ramdisk\0multiboot,module\0",
        }
    }
}

/// Returns whether a boot loader put modules into the tree.
pub fn has_modules(tree: &Blob<'_>) -> bool {
    walk(tree).any(|(token, place)| {
        let value = match token {
            Token::Property { name, value } if tree.string(name) == Some("compatible") => value,
            _ => return false,
        };
        let mut kinds = value.split(|byte| *byte == 0);
        place == Place::BelowChosen
            && kinds.any(|kind| matches!(kind, b"multiboot,module" | b"xen,multiboot-module"))
    })
}

/// Returns the bytes to lend to [`with_modules`].
pub fn copy_room(tree: &Blob<'_>, options: Option<&[u8]>, modules: &[Option<Module<'_>>]) -> usize {
    let arguments = modules.iter().flatten().map(|module| module.arguments);
    let texts = arguments.chain([options]).flatten();
    let reserved = tree.reserved().count() * 16;
    let texts: usize = texts.map(<[u8]>::len).sum();
    tree.content_size() + reserved + names_room(tree) + texts + ADDED
}

/// Returns the bytes for names: those of the tree may share their endings, which the copy's do not.
fn names_room(tree: &Blob<'_>) -> usize {
    2 * tree.names_size() + ADDED_NAMES
}

/// Writes a copy of `tree` with the hypervisor's command line and modules in it to `out`, and returns its length.
pub fn with_modules(
    tree: &Blob<'_>,
    options: Option<&[u8]>,
    modules: &[Option<Module<'_>>],
    out: &mut [u8],
) -> Result<usize, Refused> {
    let chosen = Chosen::of(tree)?;
    let added = Added {
        options,
        modules,
        chosen: &chosen,
    };
    let mut to = Writer::new(out, names_room(tree));
    for (address, size) in tree.reserved() {
        to.reserve(address, size);
    }
    for (token, place) in walk(tree) {
        match token {
            Token::Begin(name) => {
                to.begin(name);
                if place == Place::Chosen {
                    added.write_properties(&mut to);
                }
            }
            Token::Property { name, value } => {
                let name = tree.string(name).unwrap_or_default();
                if !(place == Place::Chosen && REPLACED.contains(&name)) {
                    to.property(name, value);
                }
            }
            Token::End => {
                if place == Place::Chosen {
                    added.write_modules(&mut to);
                } else if place == Place::Root && !chosen.exists {
                    to.begin("chosen");
                    added.write_properties(&mut to);
                    added.write_modules(&mut to);
                    to.end();
                }
                to.end();
            }
            Token::Last => {}
        }
    }
    to.finish().ok_or(Refused::NoRoom)
}

/// Properties of `/chosen` that are left out of the copy: ours take their place, or they speak of another kernel's RAM disk.
const REPLACED: [&str; 5] = [
    "xen,xen-bootargs",
    "#address-cells",
    "#size-cells",
    "linux,initrd-start",
    "linux,initrd-end",
];

/// The additions to a tree.
struct Added<'a> {
    options: Option<&'a [u8]>,
    modules: &'a [Option<Module<'a>>],
    chosen: &'a Chosen,
}

impl Added<'_> {
    fn write_properties(&self, to: &mut Writer<'_>) {
        to.cells("#address-cells", &[self.chosen.address_cells]);
        to.cells("#size-cells", &[self.chosen.size_cells]);
        if let Some(options) = self.options {
            to.parts("xen,xen-bootargs", &[options, b"\0"]);
        }
    }

    fn write_modules(&self, to: &mut Writer<'_>) {
        for module in self.modules.iter().flatten() {
            let mut name = *b"module@00000000";
            for (at, letter) in name.iter_mut().rev().take(8).enumerate() {
                let digit = module.address >> (4 * at) & 0xf;
                *letter = b"0123456789abcdef"
                    .get(digit as usize)
                    .copied()
                    .unwrap_or(b'0');
            }
            to.begin(core::str::from_utf8(&name).unwrap_or_default());
            to.property("compatible", module.kind.compatible());
            // Both are below 4 GiB, and there are one or two cells.
            let high = |cells: u32| if cells == 2 { &[0; 4][..] } else { &[] };
            let (address, size) = (module.address.to_be_bytes(), module.size.to_be_bytes());
            let reg = [
                high(self.chosen.address_cells),
                &address,
                high(self.chosen.size_cells),
                &size,
            ];
            to.parts("reg", &reg);
            if let Some(arguments) = module.arguments {
                to.parts("bootargs", &[arguments, b"\0"]);
            }
            to.end();
        }
    }
}

/// `/chosen` as it is. What it does not say of the cells of modules' addresses and sizes is two.
struct Chosen {
    exists: bool,
    address_cells: u32,
    size_cells: u32,
}

impl Chosen {
    fn of(tree: &Blob<'_>) -> Result<Self, Refused> {
        let mut found = Self {
            exists: false,
            address_cells: 2,
            size_cells: 2,
        };
        for (token, place) in walk(tree) {
            if place != Place::Chosen {
                continue;
            }
            found.exists = true;
            let Token::Property { name, value } = token else {
                continue;
            };
            let cells = match tree.string(name) {
                Some("#address-cells") => &mut found.address_cells,
                Some("#size-cells") => &mut found.size_cells,
                _ => continue,
            };
            *cells = match dt::number(value) {
                Some(count @ 1..=2) => count as u32,
                _ => return Err(Refused::Cells),
            };
        }
        Ok(found)
    }
}

/// The node that a token belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Chosen,
    BelowChosen,
    Elsewhere,
}

/// Returns all tokens but the last, each with its node.
fn walk<'a>(tree: &Blob<'a>) -> Walk<'a> {
    Walk {
        cursor: tree.cursor(0),
        depth: 0,
        in_chosen: false,
    }
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    depth: u32,
    in_chosen: bool,
}

impl<'a> Iterator for Walk<'a> {
    type Item = (Token<'a>, Place);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        // The blob's check has found no fault.
        let token = self.cursor.read().ok()?;
        match token {
            Token::Begin(name) => {
                self.depth += 1;
                if self.depth == 2 {
                    self.in_chosen = name == "chosen";
                }
            }
            Token::Last => return None,
            _ => {}
        }
        let place = match self.depth {
            1 => Place::Root,
            2 if self.in_chosen => Place::Chosen,
            _ if self.in_chosen => Place::BelowChosen,
            _ => Place::Elsewhere,
        };
        if matches!(token, Token::End) {
            self.depth = self.depth.saturating_sub(1);
        }
        Some((token, place))
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
