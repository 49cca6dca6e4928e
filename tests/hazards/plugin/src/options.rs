//! The plugin's arguments.

use hazards::Erratum;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    Off,
    Early,
    All,
}

pub struct Options {
    pub out: String,
    pub base: u64,
    pub size: u64,
    pub guests: Guests,
    pub erratum: Erratum,
    /// Addresses in the image of instructions that are not there.
    pub blind: Vec<u32>,
}

impl Options {
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self {
            out: "hazards.txt".into(),
            base: 0x4000_0000,
            size: 0x4000_0000,
            guests: Guests::Early,
            erratum: Erratum::None,
            blind: Vec::new(),
        };
        for word in words {
            let (name, value) = word
                .split_once('=')
                .ok_or_else(|| format!("\"{word}\" is no argument"))?;
            let wrong = || format!("\"{value}\" is no value of {name}");
            match name {
                "out" => options.out = value.into(),
                "ram" => {
                    let (base, size) = value.split_once(':').ok_or_else(wrong)?;
                    options.base = number(base).ok_or_else(wrong)?;
                    options.size = number(size).ok_or_else(wrong)?;
                }
                "guests" => {
                    options.guests = match value {
                        "off" => Guests::Off,
                        "early" => Guests::Early,
                        "all" => Guests::All,
                        _ => return Err(wrong()),
                    }
                }
                "erratum" => {
                    options.erratum = match value {
                        "none" => Erratum::None,
                        "repeat" => Erratum::Repeat,
                        "fence" => Erratum::RepeatAndFence,
                        _ => return Err(wrong()),
                    }
                }
                "blind" => {
                    let address = number(value).ok_or_else(wrong)?;
                    options.blind.push(address as u32);
                }
                _ => return Err(format!("no argument is called \"{name}\"")),
            }
        }
        Ok(options)
    }
}

/// Reads a number, hexadecimal after 0x.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
