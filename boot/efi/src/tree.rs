//! The device tree's `/chosen`: whether it has boot modules, and a copy of a tree with modules in it (Devicetree
//! Specification 0.4, chapter 5: the flattened format).

use core::ops::Range;

/// Bytes that [`with_modules`] may add to a tree, besides the texts of the modules and the options.
pub const ADDED: usize = 1024;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_SIZE: usize = 40;
const VERSION: u32 = 17;
const OLDEST_COMPATIBLE: u32 = 16;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOTHING: u32 = 4;
const END: u32 = 9;

/// The tree is none, or is damaged, or there is no room for the copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken;

/// A file in RAM.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Where it is.
    pub address: u32,
    /// In bytes.
    pub size: u32,
    /// The command line that belongs to it.
    pub arguments: Option<&'a [u8]>,
}

/// What a module is for.
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

/// The size of the tree that begins with these bytes.
pub fn size(start: &[u8]) -> Result<usize, Broken> {
    if word(start, 0)? != MAGIC {
        return Err(Broken);
    }
    Ok(word(start, 4)? as usize)
}

/// Whether the boot loader put modules into the tree.
pub fn has_modules(tree: &[u8]) -> Result<bool, Broken> {
    Ok(Survey::of(&Blob::new(tree)?)?.has_modules)
}

/// Writes a copy of `tree` with the hypervisor's command line and modules in it to `out`, and says how long it is.
pub fn with_modules(
    tree: &[u8],
    options: Option<&[u8]>,
    modules: &[Option<Module<'_>>],
    out: &mut [u8],
) -> Result<usize, Broken> {
    let blob = Blob::new(tree)?;
    let survey = Survey::of(&blob)?;
    let mut to = Writer {
        out,
        length: 0,
        first_name: blob.strings.len(),
    };
    to.skip(HEADER_SIZE)?;
    to.put(blob.reservations)?;
    let structure = to.length;
    let added = Added {
        options,
        modules,
        cells: survey.cells,
    };

    let mut inside = Place::default();
    for item in blob.items() {
        let (item, range) = item?;
        if item == Item::End && (inside.is_chosen() || inside.is_root() && !survey.has_chosen) {
            if inside.is_root() {
                to.begin(b"chosen")?;
                added.write_properties(&mut to)?;
                added.write_modules(&mut to)?;
                to.word(END_NODE)?;
            } else {
                added.write_modules(&mut to)?;
            }
        }
        let is_replaced = matches!(item, Item::Property { name, .. } if REPLACED.contains(&name));
        if !(is_replaced && inside.is_chosen()) {
            to.put(blob.structure.get(range).ok_or(Broken)?)?;
        }
        inside.pass(item)?;
        if item == Item::Begin(b"chosen") && inside.is_chosen() {
            added.write_properties(&mut to)?;
        }
    }
    to.word(END)?;
    let strings = to.length;
    to.put(blob.strings)?;
    to.put(NAMES)?;

    let length = to.length;
    let header = [
        MAGIC,
        number(length)?,
        number(structure)?,
        number(strings)?,
        number(HEADER_SIZE)?,
        VERSION,
        OLDEST_COMPATIBLE,
        blob.boot_cpu,
        number(length.wrapping_sub(strings))?,
        number(strings.wrapping_sub(structure))?,
    ];
    for (to, from) in to.out.chunks_exact_mut(4).zip(header) {
        to.copy_from_slice(&from.to_be_bytes());
    }
    Ok(length)
}

/// Properties of `/chosen` that are left out of the copy: ours take their place, or they speak of another kernel's RAM disk.
const REPLACED: [&[u8]; 5] = [
    b"xen,xen-bootargs",
    b"#address-cells",
    b"#size-cells",
    b"linux,initrd-start",
    b"linux,initrd-end",
];

/// What goes behind the tree's own names of properties.
const NAMES: &[u8] = b"xen,xen-bootargs\0#address-cells\0#size-cells\0compatible\0reg\0bootargs\0";

/// What is added.
struct Added<'a> {
    options: Option<&'a [u8]>,
    modules: &'a [Option<Module<'a>>],
    cells: Cells,
}

impl Added<'_> {
    fn write_properties(&self, to: &mut Writer<'_>) -> Result<(), Broken> {
        to.property(b"#address-cells", &[&self.cells.address.to_be_bytes()])?;
        to.property(b"#size-cells", &[&self.cells.size.to_be_bytes()])?;
        match self.options {
            Some(options) => to.property(b"xen,xen-bootargs", &[options, b"\0"]),
            None => Ok(()),
        }
    }

    fn write_modules(&self, to: &mut Writer<'_>) -> Result<(), Broken> {
        for module in self.modules.iter().flatten() {
            let mut name = *b"module@00000000";
            for (at, digit) in name.iter_mut().rev().take(8).enumerate() {
                let value = (module.address >> (4 * at) & 0xf) as u8;
                *digit = if value < 10 {
                    b'0' + value
                } else {
                    b'a' + value - 10
                };
            }
            to.begin(&name)?;
            to.property(b"compatible", &[module.kind.compatible()])?;
            // Both are below 4 GiB, and there are one or two cells.
            let zero = |cells: u32| if cells == 2 { &[0; 4][..] } else { &[] };
            to.property(
                b"reg",
                &[
                    zero(self.cells.address),
                    &module.address.to_be_bytes(),
                    zero(self.cells.size),
                    &module.size.to_be_bytes(),
                ],
            )?;
            if let Some(arguments) = module.arguments {
                to.property(b"bootargs", &[arguments, b"\0"])?;
            }
            to.word(END_NODE)?;
        }
        Ok(())
    }
}

/// How many cells of 32 bits an address and a size below `/chosen` have.
#[derive(Clone, Copy, Debug)]
struct Cells {
    address: u32,
    size: u32,
}

/// What is in a tree's `/chosen`.
struct Survey {
    has_chosen: bool,
    has_modules: bool,
    cells: Cells,
}

impl Survey {
    fn of(blob: &Blob<'_>) -> Result<Self, Broken> {
        let mut found = Self {
            has_chosen: false,
            has_modules: false,
            cells: Cells {
                address: 2,
                size: 2,
            },
        };
        let mut inside = Place::default();
        for item in blob.items() {
            let (item, _) = item?;
            inside.pass(item)?;
            found.has_chosen |= inside.is_chosen();
            let Item::Property { name, value } = item else {
                continue;
            };
            let cells = |value| match word(value, 0)? {
                count @ 1..=2 => Ok(count),
                _ => Err(Broken),
            };
            match name {
                b"#address-cells" if inside.is_chosen() => found.cells.address = cells(value)?,
                b"#size-cells" if inside.is_chosen() => found.cells.size = cells(value)?,
                b"compatible" if inside.below_chosen() => {
                    let mut names = value.split(|byte| *byte == 0);
                    found.has_modules |= names
                        .any(|name| matches!(name, b"multiboot,module" | b"xen,multiboot-module"));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Where in the tree a walk is.
#[derive(Default)]
struct Place {
    depth: u32,
    in_chosen: bool,
}

impl Place {
    fn pass(&mut self, item: Item<'_>) -> Result<(), Broken> {
        match item {
            Item::Begin(name) => {
                self.in_chosen |= self.depth == 1 && name == b"chosen";
                self.depth = self.depth.checked_add(1).ok_or(Broken)?;
            }
            Item::End => {
                self.depth = self.depth.checked_sub(1).ok_or(Broken)?;
                self.in_chosen &= self.depth > 1;
            }
            Item::Property { .. } | Item::Nothing => {}
        }
        Ok(())
    }

    fn is_root(&self) -> bool {
        self.depth == 1
    }

    fn is_chosen(&self) -> bool {
        self.in_chosen && self.depth == 2
    }

    fn below_chosen(&self) -> bool {
        self.in_chosen && self.depth > 2
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Item<'a> {
    Begin(&'a [u8]),
    Property { name: &'a [u8], value: &'a [u8] },
    Nothing,
    End,
}

/// The parts of a flattened tree.
struct Blob<'a> {
    reservations: &'a [u8],
    structure: &'a [u8],
    strings: &'a [u8],
    boot_cpu: u32,
}

impl<'a> Blob<'a> {
    fn new(tree: &'a [u8]) -> Result<Self, Broken> {
        let tree = tree.get(..size(tree)?).ok_or(Broken)?;
        let from = |at| tree.get(word(tree, at)? as usize..).ok_or(Broken);
        let part = |at, size| from(at)?.get(..word(tree, size)? as usize).ok_or(Broken);
        let reservations = from(16)?;
        // Pairs of 64-bit numbers; a pair of zeros is the last.
        let pairs = reservations
            .chunks_exact(16)
            .position(|pair| pair.iter().all(|byte| *byte == 0))
            .ok_or(Broken)?;
        Ok(Self {
            reservations: reservations.get(..(pairs + 1) * 16).ok_or(Broken)?,
            structure: part(8, 36)?,
            strings: part(12, 32)?,
            boot_cpu: word(tree, 28)?,
        })
    }

    /// The tokens in order, each with where it is in the structure block; without the one that ends it.
    fn items(&self) -> impl Iterator<Item = Result<(Item<'a>, Range<usize>), Broken>> {
        let (structure, strings) = (self.structure, self.strings);
        let mut at = 0;
        core::iter::from_fn(move || {
            let start = at;
            let item = next(structure, strings, &mut at).transpose()?;
            Some(item.map(|item| (item, start..at)))
        })
    }
}

/// The token at `at`, which moves on behind it; at the end `None`.
fn next<'a>(
    structure: &'a [u8],
    strings: &'a [u8],
    at: &mut usize,
) -> Result<Option<Item<'a>>, Broken> {
    let token = word(structure, *at)?;
    let rest = structure.get(*at + 4..).ok_or(Broken)?;
    let (item, used) = match token {
        BEGIN_NODE => {
            let name = until_zero(rest)?;
            (Item::Begin(name), name.len() + 1)
        }
        PROPERTY => {
            let length = word(rest, 0)? as usize;
            let name = strings.get(word(rest, 4)? as usize..).ok_or(Broken)?;
            let value = rest.get(8..).and_then(|rest| rest.get(..length));
            let (name, value) = (until_zero(name)?, value.ok_or(Broken)?);
            (Item::Property { name, value }, 8 + length)
        }
        END_NODE => (Item::End, 0),
        NOTHING => (Item::Nothing, 0),
        END => return Ok(None),
        _ => return Err(Broken),
    };
    // `used` bytes were there, and a slice is shorter than half of the address space.
    *at += 4 + used.next_multiple_of(4);
    Ok(Some(item))
}

fn until_zero(bytes: &[u8]) -> Result<&[u8], Broken> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Broken)?;
    bytes.get(..end).ok_or(Broken)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Broken> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    Ok(u32::from_be_bytes(*word.ok_or(Broken)?))
}

fn number(value: usize) -> Result<u32, Broken> {
    u32::try_from(value).map_err(|_| Broken)
}

struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
    /// Where in the copy's strings [`NAMES`] begin.
    first_name: usize,
}

impl Writer<'_> {
    fn skip(&mut self, size: usize) -> Result<&mut [u8], Broken> {
        let place = self
            .out
            .get_mut(self.length..)
            .and_then(|rest| rest.get_mut(..size));
        let place = place.ok_or(Broken)?;
        self.length += size;
        Ok(place)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.skip(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn word(&mut self, word: u32) -> Result<(), Broken> {
        self.put(&word.to_be_bytes())
    }

    fn pad(&mut self) -> Result<(), Broken> {
        let padding = self.length.wrapping_neg() % 4;
        self.skip(padding)?.fill(0);
        Ok(())
    }

    fn begin(&mut self, name: &[u8]) -> Result<(), Broken> {
        self.word(BEGIN_NODE)?;
        self.put(name)?;
        self.put(b"\0")?;
        self.pad()
    }

    /// A property of [`NAMES`]; its value comes in parts.
    fn property(&mut self, name: &[u8], parts: &[&[u8]]) -> Result<(), Broken> {
        let is_it = |rest: &[u8]| rest.starts_with(name);
        let at = (0..NAMES.len()).find(|at| NAMES.get(*at..).is_some_and(is_it));
        let name = self.first_name + at.ok_or(Broken)?;
        let length = parts.iter().map(|part| part.len()).sum();
        self.word(PROPERTY)?;
        self.word(number(length)?)?;
        self.word(number(name)?)?;
        for part in parts {
            self.put(part)?;
        }
        self.pad()
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
