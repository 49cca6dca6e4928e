//! Selection of the console's UART: `dtuart=` on the command line, else `/chosen/stdout-path`, else one that is found
//! at a well-known machine's address ([`super::rescue`]).

use alloc::format;
use alloc::string::{String, ToString};

use dt::{Node, Tree};

use super::BootError;
use super::interrupt::{self, Interrupt};
use super::ranges::PhysRange;
use super::translate;
use super::tree::check_budget;
use super::uart::Model;

/// The console's UART.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UartInfo {
    /// Path of its node, which dom0 must not get.
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
    let asked_for = found(dtuart, None).or_else(|error| match dtuart {
        Some(_) => found(None, Some(error.clone())).map_err(|_| error),
        None => Err(error),
    });
    check_budget(tree)?;
    asked_for
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
    let node = resolve(tree, name)
        .ok_or_else(|| BootError::Uart(format!("no node \"{name}\" in the tree")))?;
    let path = node.path();
    let model = Model::of(&node).ok_or_else(|| {
        let compatible = node.string("compatible").unwrap_or("");
        BootError::Uart(format!("Unknown UART \"{compatible}\" at {path}"))
    })?;
    let reg = translate::reg_ranges(&node)
        .next()
        .flatten()
        .ok_or_else(|| BootError::Uart(format!("no usable reg at {path}")))?;
    Ok(describe(&node, gic, model, reg, options))
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
