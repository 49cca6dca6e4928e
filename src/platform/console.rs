//! Selection of the console's UART: `dtuart=` on the command line, which names a node, or a driver and an address; else
//! `/chosen/stdout-path`; else the tree's only enabled UART; else one that is found at a well-known machine's address
//! ([`super::rescue`]).

use alloc::format;
use alloc::string::{String, ToString};

use dt::{Node, Tree};

use super::BootError;
use super::interrupt::{self, Interrupt};
use super::ranges::PhysRange;
use super::translate;
use super::tree::check_budget;
use super::uart::Model;

/// Size in bytes of the drivers' registers.
pub const REGISTERS: u64 = 0x1000;

/// The console's UART.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UartInfo {
    /// Path of its node, which dom0 must not get; the words of `dtuart=` if the tree has none.
    pub path: String,
    /// Its driver.
    pub model: Model,
    /// Its registers.
    pub reg: PhysRange,
    /// Its interrupt. Without one a timer sends, and input is not received.
    pub interrupt: Option<Interrupt>,
    /// Text after the path, such as `115200n8`.
    pub options: String,
}

/// The console, and the reason for the choice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its UART.
    pub uart: UartInfo,
    /// Reason why it is not the one of `dtuart`.
    pub instead: Option<BootError>,
}

/// Finds the console: by `dtuart` if that leads to a UART, else by the tree. An error is about the requested one.
pub fn find(tree: &Tree<'_>, dtuart: Option<&str>) -> Result<Found, BootError> {
    let gic = super::gic::node(tree);
    let found =
        |spec, instead| of_tree(tree, gic.as_ref(), spec).map(|uart| Found { uart, instead });
    let of_stdout = |error: BootError| match dtuart {
        Some(_) => found(None, Some(error.clone())).map_err(|_| error),
        None => Err(error),
    };
    let best = found(dtuart, None)
        .or_else(of_stdout)
        .or_else(|error| only(tree, gic.as_ref(), error));
    check_budget(tree)?;
    best
}

/// Returns the tree's only enabled UART for want of a better one, or an error that lists them. A UART with a node below is
/// the line to the device that it describes.
fn only<'a>(
    tree: &'a Tree<'a>,
    gic: Option<&Node<'a>>,
    error: BootError,
) -> Result<Found, BootError> {
    /// Paths that a line may show.
    const MOST: usize = 8;
    let is_candidate = |node: &Node<'_>| {
        Model::of(node).is_some()
            && node.children().next().is_none()
            && node.ancestors().all(|node| node.is_enabled())
    };
    let mut uarts = tree.all().filter(is_candidate);
    let (first, second) = (uarts.next(), uarts.next());
    match (first, second, error) {
        (Some(node), None, error) => Ok(Found {
            uart: of_node(&node, gic, "")?,
            instead: Some(error),
        }),
        (Some(first), Some(second), BootError::Uart(mut what)) => {
            what += "; there are ";
            let all = [first, second].into_iter().chain(uarts).take(MOST);
            for (n, node) in all.enumerate() {
                let comma = if n == 0 { "" } else { ", " };
                what += &format!("{comma}{}", node.path());
            }
            Err(BootError::Uart(what))
        }
        (_, _, error) => Err(error),
    }
}

/// Finds a UART by its address, if the tree does not name it as console: its node, which dom0 must not get, and its
/// interrupt.
pub fn at(tree: &Tree<'_>, model: Model, address: u64) -> Option<UartInfo> {
    let gic = super::gic::node(tree);
    let place = PhysRange::new(address, 1)?;
    tree.all().find_map(|node| {
        let reg = translate::reg_ranges(&node).next()??;
        let is_it = reg.contains(&place) && Model::of(&node).is_some();
        is_it.then(|| describe(&node, gic.as_ref(), model, reg, ""))
    })
}

pub(super) fn of_tree<'a>(
    tree: &'a Tree<'a>,
    gic: Option<&Node<'a>>,
    dtuart: Option<&str>,
) -> Result<UartInfo, BootError> {
    let chosen = tree.find("/chosen");
    let of_tree = chosen.and_then(|c| {
        let path = c.string("stdout-path");
        path.or_else(|| c.string("linux,stdout-path"))
    });
    let Some(spec) = dtuart.or(of_tree) else {
        let what = "no dtuart= on the command line and no stdout-path in the tree";
        return Err(BootError::Uart(what.to_string()));
    };
    let (name, options) = spec.split_once(':').unwrap_or((spec, ""));
    if let Some((model, address)) = name.rsplit_once(',')
        && !name.starts_with('/')
    {
        return of_name(tree, model, address, options);
    }
    let node = resolve(tree, name)
        .ok_or_else(|| BootError::Uart(format!("no node \"{name}\" in the tree")))?;
    of_node(&node, gic, options)
}

/// Describes the UART of a driver's name and an address, such as `imx` and `0x30860000`, in the tree or not.
fn of_name(
    tree: &Tree<'_>,
    name: &str,
    address: &str,
    options: &str,
) -> Result<UartInfo, BootError> {
    let spec = format!("{name},{address}");
    let model = Model::named(name)
        .ok_or_else(|| BootError::Uart(format!("no driver \"{name}\" of \"{spec}\"")))?;
    let digits = address.strip_prefix("0x").unwrap_or(address);
    let place = u64::from_str_radix(digits, 16).ok();
    let reg = place.and_then(|place| PhysRange::new(place, REGISTERS));
    let reg = reg.ok_or_else(|| BootError::Uart(format!("no address in \"{spec}\"")))?;
    let mut uart = at(tree, model, reg.base()).unwrap_or(UartInfo {
        path: spec,
        model,
        reg,
        interrupt: None,
        options: String::new(),
    });
    uart.options = options.to_string();
    Ok(uart)
}

fn of_node(node: &Node<'_>, gic: Option<&Node<'_>>, options: &str) -> Result<UartInfo, BootError> {
    let path = node.path();
    let model = Model::of(node).ok_or_else(|| {
        let compatible = node.string("compatible").unwrap_or("");
        BootError::Uart(format!("Unknown UART \"{compatible}\" at {path}"))
    })?;
    let reg = translate::reg_ranges(node)
        .next()
        .flatten()
        .ok_or_else(|| BootError::Uart(format!("no usable reg at {path}")))?;
    Ok(describe(node, gic, model, reg, options))
}

fn describe(
    node: &Node<'_>,
    gic: Option<&Node<'_>>,
    model: Model,
    reg: PhysRange,
    options: &str,
) -> UartInfo {
    let interrupt = gic.and_then(|gic| interrupt::of_gic(node, gic).into_iter().next());
    UartInfo {
        path: node.path().to_string(),
        model,
        reg,
        interrupt: interrupt.filter(|i| !i.is_private()),
        options: options.to_string(),
    }
}

/// Returns the node of a path, or of an alias optionally followed by a path.
fn resolve<'a>(tree: &'a Tree<'a>, name: &str) -> Option<Node<'a>> {
    if name.starts_with('/') {
        return tree.find(name);
    }
    let (alias, rest) = name.split_once('/').map_or((name, ""), |(a, r)| (a, r));
    let path = tree.find("/aliases")?.string(alias)?;
    match rest {
        "" => tree.find(path),
        rest => tree.find(&format!("{path}/{rest}")),
    }
}

#[cfg(test)]
mod tests;
