//! Which UART is the console: `dtuart=` on the command line, else `/chosen/stdout-path`.

use alloc::format;
use alloc::string::{String, ToString};

use super::BootError;
use super::blob::Blob;
use super::interrupt::{self, Interrupt};
use super::ranges::PhysRange;
use super::translate;
use super::tree::{Node, Tree};
use super::uart::Model;

/// The console's UART.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UartInfo {
    /// Path of its node: dom0 must not have it.
    pub path: String,
    /// Which driver serves it.
    pub model: Model,
    /// Its registers.
    pub reg: PhysRange,
    /// Its interrupt; without one input is polled.
    pub interrupt: Option<Interrupt>,
    /// What followed the path, as in `115200n8`.
    pub options: String,
}

/// Finds the console: `dtuart` if given, else what the tree says.
pub fn find(blob: &Blob<'_>, dtuart: Option<&str>) -> Result<UartInfo, BootError> {
    let fdt = blob.reader()?;
    let tree = Tree::new(blob, &fdt)?;
    let gic = super::gic::node(&tree);
    let found = of_tree(&tree, gic.as_ref(), dtuart);
    tree.check_budget()?;
    found
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
    let interrupt = gic.and_then(|gic| interrupt::of_gic(&node, gic).into_iter().next());
    Ok(UartInfo {
        path,
        model,
        reg,
        interrupt: interrupt.filter(|i| !i.is_private()),
        options: options.to_string(),
    })
}

/// A path, or an alias with or without the rest of a path.
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
