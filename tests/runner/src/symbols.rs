//! The symbol table in the image: function names out of the ELF file, for the hypervisor's own backtrace.
//!
//! arch/src/backtrace.rs reads the table and says how it is laid out.

use std::collections::BTreeMap;

use crate::Result;
use crate::image::{half, offset_of, word};

/// The place in the image that is set aside for the table.
const PLACE: &str = "krypton_symbol_table";
/// Characters that a name may have.
const LONGEST: usize = 32;
/// Between functions so many bytes are padding or literals; more are something else, which gets no name.
const PADDING: u32 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Function {
    start: u32,
    /// 0: up to the next one (a label in assembly).
    size: u32,
    name: String,
    /// Calls something, so that a return address can be in it.
    calls: bool,
}

/// Fills the table in an ELF file, if the file has a place for one.
pub fn fill(elf: &mut [u8]) -> Result {
    let symbols = Symbols::of(elf).ok_or("the ELF file has no readable symbols")?;
    let Some((place, space)) = symbols.place() else {
        return Ok(());
    };
    let table = fitting(symbols.functions(), space)?;
    elf[place..place + table.len()].copy_from_slice(&table);
    Ok(())
}

/// Returns the function at `address`, with the distance from its start.
pub fn name_at(elf: &[u8], address: u32) -> Option<String> {
    let symbols = Symbols::of(elf)?;
    let known = symbols.all().filter(|symbol| {
        !symbol.name.starts_with('$') && symbol.start() <= address && symbol.section != 0
    });
    // Of two at one address, the one with a size.
    let nearest = known.max_by_key(|symbol| (symbol.start(), symbol.size))?;
    let distance = address - nearest.start();
    if distance > nearest.size.max(0x1000) {
        return None;
    }
    Some(format!("{}+{distance:#x}", short_name(nearest.name)))
}

/// Returns the instructions of an ELF file by their virtual addresses, each as that of Arm state that [`hazards::decode`]
/// knows, or as 0. What is code, and of which state, is told by the mapping symbols `$a`, `$t` and `$d` (ELF for the Arm
/// architecture, IHI 0044 5.5.5).
pub fn code(elf: &[u8]) -> Option<BTreeMap<u32, u32>> {
    let symbols = Symbols::of(elf)?;
    let mut parts: Vec<(u32, &str)> = symbols
        .all()
        .filter_map(|symbol| Some((symbol.value, symbol.name.get(..2)?)))
        .filter(|(_, kind)| matches!(*kind, "$a" | "$t" | "$d"))
        .collect();
    parts.sort_unstable();
    let mut code = BTreeMap::new();
    for (index, (start, kind)) in parts.iter().enumerate() {
        let end = parts.get(index + 1).map_or(*start, |(next, _)| *next);
        let Some(offset) = offset_of(elf, *start, end - start) else {
            continue;
        };
        let bytes = elf.get(offset..offset + (end - start) as usize)?;
        match *kind {
            "$a" => {
                let words = bytes.chunks_exact(4).filter_map(|bytes| word(bytes, 0));
                code.extend((*start..).step_by(4).zip(words));
            }
            "$t" => code.extend(thumb(*start, bytes)),
            _ => {}
        }
    }
    Some(code)
}

/// Returns the instructions of Thumb code, as [`code`] does.
fn thumb(start: u32, bytes: &[u8]) -> Vec<(u32, u32)> {
    let mut code = Vec::new();
    let mut state = hazards::ItState::of(0);
    let mut at = 0;
    while let Some(first) = half(bytes, at) {
        let condition = state.next(first);
        // 32-bit instructions begin with 0b11101, 0b11110 or 0b11111 (DDI 0406C.d A6.1).
        let is_wide = first >> 11 >= 0b11101;
        let second = half(bytes, at + 2).filter(|_| is_wide);
        let word = second.map(|second| u32::from(first) << 16 | u32::from(second));
        code.push((
            start + at as u32,
            word.map_or(0, |word| hazards::of_thumb(word, condition)),
        ));
        at += if is_wide { 4 } else { 2 };
    }
    code
}

/// Returns the table of as many functions as fit into `space` bytes. First go those that call nothing, small ones before
/// large.
fn fitting(mut functions: Vec<Function>, space: usize) -> Result<Vec<u8>> {
    let mut useless_first: Vec<usize> = (0..functions.len()).collect();
    useless_first.sort_by_key(|index| {
        let function = &functions[*index];
        (function.calls, function.size, function.start)
    });
    let mut useless_first = useless_first.into_iter();
    loop {
        let table = encode(&functions);
        if table.len() <= space {
            return Ok(table);
        }
        let useless = useless_first
            .next()
            .ok_or("the symbol table does not fit even without names")?;
        functions[useless].name.clear();
    }
}

fn encode(functions: &[Function]) -> Vec<u8> {
    let mut entries: Vec<(u32, &str)> = Vec::new();
    for (index, function) in functions.iter().enumerate() {
        let next = functions.get(index + 1).map(|function| function.start);
        let has_name = |entry: &(u32, &str)| !entry.1.is_empty();
        if !function.name.is_empty() || entries.last().is_some_and(has_name) {
            entries.push((function.start, &function.name));
        }
        let end = function.start + function.size;
        if function.size > 0
            && next.is_none_or(|next| next >= end + PADDING)
            && entries.last().is_some_and(has_name)
        {
            entries.push((end, ""));
        }
    }
    let first = entries.first().map_or(0, |entry| entry.0);
    let mut table = Vec::from(first.to_le_bytes());
    table.extend((entries.len() as u32).to_le_bytes());
    let mut before = (first, "");
    for entry in entries {
        push_number(&mut table, (entry.0 - before.0) / 2);
        let shared = before
            .1
            .bytes()
            .zip(entry.1.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let own = &entry.1.as_bytes()[shared..];
        table.extend([shared as u8, own.len() as u8]);
        table.extend(own);
        before = entry;
    }
    table
}

fn push_number(table: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        table.push(number as u8 | 0x80);
        number >>= 7;
    }
    table.push(number as u8);
}

/// An ELF file's symbols, and the section with the code (System V ABI, chapter 4).
struct Symbols<'a> {
    elf: &'a [u8],
    symbols: &'a [u8],
    strings: &'a [u8],
    /// Number and address of `.text`, and its bytes.
    text: (u16, u32, &'a [u8]),
}

impl<'a> Symbols<'a> {
    fn of(elf: &'a [u8]) -> Option<Self> {
        const SYMTAB: u32 = 2;
        let (table, count) = (word(elf, 0x20)? as usize, half(elf, 0x30)?);
        let header = |index: u16| table + usize::from(index) * 40;
        let contents = |index: u16| -> Option<&'a [u8]> {
            let (start, size) = (
                word(elf, header(index) + 16)?,
                word(elf, header(index) + 20)?,
            );
            elf.get(start as usize..(start as usize).checked_add(size as usize)?)
        };
        let names = contents(half(elf, 0x32)?)?;
        let name = |index| string(names, word(elf, header(index))?);
        let symtab = (0..count).find(|index| word(elf, header(*index) + 4) == Some(SYMTAB))?;
        let text = (0..count).find(|index| name(*index) == Some(".text"))?;
        Some(Self {
            elf,
            symbols: contents(symtab)?,
            strings: contents(word(elf, header(symtab) + 24)?.try_into().ok()?)?,
            text: (text, word(elf, header(text) + 12)?, contents(text)?),
        })
    }

    fn all(&self) -> impl Iterator<Item = Symbol<'a>> {
        let strings = self.strings;
        self.symbols.chunks_exact(16).filter_map(move |symbol| {
            Some(Symbol {
                name: string(strings, word(symbol, 0)?)?,
                value: word(symbol, 4)?,
                size: word(symbol, 8)?,
                kind: symbol[12] & 0xF,
                is_global: symbol[12] >> 4 == 1,
                section: half(symbol, 14)?,
            })
        })
    }

    /// Returns where in the file the table is to go, and how many bytes there are for it.
    fn place(&self) -> Option<(usize, usize)> {
        let symbol = self.all().find(|symbol| symbol.name == PLACE)?;
        let offset = offset_of(self.elf, symbol.value, symbol.size)?;
        Some((offset, symbol.size as usize))
    }

    /// Returns the functions of `.text` by address, each address once.
    fn functions(&self) -> Vec<Function> {
        const UNTYPED: u8 = 0;
        const FUNCTION: u8 = 2;
        let (section, base, code) = self.text;
        let mut functions: Vec<Function> = self
            .all()
            .filter(|symbol| {
                // The linker script's own labels are global too.
                let is_label =
                    symbol.kind == UNTYPED && symbol.is_global && !symbol.name.starts_with("__");
                symbol.section == section && (symbol.kind == FUNCTION || is_label)
            })
            .map(|symbol| {
                let at = symbol.start().saturating_sub(base) as usize;
                let body = code.get(at..at + symbol.size as usize).unwrap_or_default();
                Function {
                    start: symbol.start(),
                    size: symbol.size,
                    name: short_name(symbol.name),
                    calls: symbol.size == 0 || has_call(body),
                }
            })
            .collect();
        functions.sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
        functions.dedup_by_key(|function| function.start);
        functions
    }
}

struct Symbol<'a> {
    name: &'a str,
    value: u32,
    size: u32,
    kind: u8,
    is_global: bool,
    section: u16,
}

impl Symbol<'_> {
    /// Returns its address. Bit 0 of a function's value says that it is Thumb code.
    fn start(&self) -> u32 {
        self.value & !1
    }
}

fn string(table: &[u8], at: u32) -> Option<&str> {
    let rest = table.get(at as usize..)?;
    let length = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..length]).ok()
}

/// Returns whether there is a call in Thumb code. The functions that the assembler makes have no size, and are not asked.
fn has_call(code: &[u8]) -> bool {
    let halves: Vec<u16> = code
        .chunks_exact(2)
        .filter_map(|bytes| half(bytes, 0))
        .collect();
    halves
        .windows(2)
        .any(|pair| call::is_call([pair[0], pair[1]]))
}

/// Returns a symbol's name for people: demangled, without hash, generics, `krypton::`, and as many leading modules as it
/// takes.
pub fn short_name(symbol: &str) -> String {
    let full = format!("{:#}", rustc_demangle::demangle(symbol));
    let mut name = without_generics(&full).replace("{{closure}}", "{}");
    // Strips the number that a compiler puts behind a clone of a function.
    if let Some((front, back)) = name.rsplit_once('.')
        && back.bytes().all(|byte| byte.is_ascii_digit())
    {
        name.truncate(front.trim_end().len());
    }
    let mut short = name.strip_prefix("krypton::").unwrap_or(&name);
    while short.len() > LONGEST
        && let Some((_, rest)) = short.split_once("::")
    {
        short = rest;
    }
    short.chars().filter(char::is_ascii).take(LONGEST).collect()
}

/// `<a::B<T> as Trait>::f` and `a::<impl Trait for a::B<T>>::f` become `a::B::f`.
fn without_generics(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(open) = rest.find('<') {
        out.push_str(&rest[..open]);
        let (inner, behind) = split_at_close(&rest[open + 1..]);
        rest = behind;
        if out.is_empty() {
            let subject = at_top_level(inner, " as ").map_or(inner, |(subject, _)| subject);
            out = without_generics(plain(subject));
        } else if let Some(implementation) = inner.strip_prefix("impl ") {
            let subject = at_top_level(implementation, " for ")
                .map_or(implementation, |(_, subject)| subject);
            out = without_generics(plain(subject));
        } else if out.ends_with("::") {
            out.truncate(out.len() - 2);
        }
    }
    out + rest
}

/// Returns a type without `&`, `mut ` and `dyn `.
fn plain(subject: &str) -> &str {
    let mut plain = subject;
    while let Some(rest) = ["&", "mut ", "dyn ", "*const ", "*mut "]
        .iter()
        .find_map(|word| plain.strip_prefix(word))
    {
        plain = rest;
    }
    plain
}

/// Returns what is before the `>` that closes an angle bracket, and what is behind it.
fn split_at_close(text: &str) -> (&str, &str) {
    depths(text)
        .find(|(at, depth)| *depth == 0 && text[*at..].starts_with('>') && !is_arrow(text, *at))
        .map_or((text, ""), |(at, _)| (&text[..at], &text[at + 1..]))
}

/// Returns what is before and behind `separator`, outside of angle brackets.
fn at_top_level<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let (at, _) =
        depths(text).find(|(at, depth)| *depth == 0 && text[*at..].starts_with(separator))?;
    Some((&text[..at], &text[at + separator.len()..]))
}

/// Returns each character's place, and in how many angle brackets it is.
fn depths(text: &str) -> impl Iterator<Item = (usize, i32)> {
    let mut depth = 0;
    text.char_indices().map(move |(at, character)| {
        let before = depth;
        match character {
            '<' => depth += 1,
            '>' if !is_arrow(text, at) => depth -= 1,
            _ => {}
        }
        (at, before)
    })
}

fn is_arrow(text: &str, at: usize) -> bool {
    text[..at].ends_with('-')
}

#[path = "../../../arch/src/backtrace/call.rs"]
mod call;

#[cfg(test)]
#[path = "../../../arch/src/backtrace/sample.rs"]
mod sample;

#[cfg(test)]
mod tests {
    use super::{Function, LONGEST, encode, fitting, sample, short_name, without_generics};

    fn functions() -> Vec<Function> {
        sample::FUNCTIONS
            .iter()
            .map(|(start, size, name)| Function {
                start: *start,
                size: *size,
                name: (*name).into(),
                calls: *name != "memcpy",
            })
            .collect()
    }

    #[test]
    fn the_table_is_the_one_that_the_hypervisor_reads() {
        assert_eq!(encode(&functions()), sample::TABLE);
    }

    #[test]
    fn what_calls_nothing_and_what_is_small_goes_first() {
        let names = |functions: Vec<Function>, space| {
            let table = fitting(functions, space).unwrap();
            assert!(table.len() <= space);
            String::from_utf8_lossy(&table).into_owned()
        };
        let full = sample::TABLE.len();
        let table = names(functions(), full - 1);
        assert!(!table.contains("memcpy") && table.contains("raise"));
        let table = names(functions(), full - 12);
        assert!(!table.contains("raise") && table.contains("unhalt"));
        assert!(fitting(functions(), 7).is_err());
    }

    #[test]
    fn both_manglings_are_read() {
        assert_eq!(
            short_name("_ZN7krypton3mem6Memory10get_direct17hcb444a354b2fed78E"),
            "mem::Memory::get_direct"
        );
        assert_eq!(
            short_name("_RNvMsa_NtCs1a_4core3fmtNtB5_9Formatter9write_str"),
            "core::fmt::Formatter::write_str"
        );
        assert_eq!(short_name("hyp_main"), "hyp_main");
    }

    #[test]
    fn generics_go_and_the_subject_stays() {
        for (full, short) in [
            (
                "<alloc::vec::Vec<T> as alloc::vec::Iter<T,C<I>>>::from_iter",
                "alloc::vec::Vec::from_iter",
            ),
            (
                "armv7::table::edit::<impl armv7::table::Table>::split_at",
                "armv7::table::Table::split_at",
            ),
            ("a::<impl core::fmt::Debug for b::C<T>>::fmt", "b::C::fmt"),
            (
                "<&mut F as core::ops::FnOnce<A>>::call_once",
                "F::call_once",
            ),
            ("a::b::<u32, fn(u8) -> u8>::c", "a::b::c"),
            ("a::b<T", "a::b"),
            ("a>b<", "a>b"),
        ] {
            assert_eq!(without_generics(full), short);
        }
    }

    #[test]
    fn long_names_lose_their_first_modules() {
        let short =
            short_name("_ZN7krypton7control9scheduler12a_longer_one9of_domain17h3550ee53f7629f40E");
        assert_eq!(
            short,
            "scheduler::a_longer_one::of_domain"
                .split_once("::")
                .unwrap()
                .1
        );
        assert!(short_name(&"x".repeat(99)).len() == LONGEST);
    }
}
