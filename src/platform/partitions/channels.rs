//! Event channels that connect domains from the boot (`xen,evtchn-v1`): each end is a node that names its port and the
//! other end.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dt::Node;

use super::{DOMAIN, fault};

/// Compatible of an end's node.
pub const CHANNEL: &str = "xen,evtchn-v1";
const PROPERTY: &str = "xen,evtchn";
/// Said of an end that cannot be.
pub(super) const WRONG: &str = "xen,evtchn: not a port of its own and the phandle of an end in another domain that names this one";

/// One end of a channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Its node.
    pub path: String,
    /// The domain's place in the tree, from 1 on; 0 is dom0.
    pub domain: u16,
    /// Its port.
    pub port: u32,
    /// The other end's domain.
    pub peer: u16,
    /// The other end's port.
    pub peer_port: u32,
}

impl End {
    /// Returns the other end, under the name of this one's node.
    pub fn other(&self) -> Self {
        Self {
            path: self.path.clone(),
            domain: self.peer,
            port: self.peer_port,
            peer: self.domain,
            peer_port: self.port,
        }
    }
}

/// Returns the ends of channels that are children of a domain's node, or of `/chosen` for dom0.
pub fn of_domain(domain: &Node<'_>) -> Result<Vec<End>, String> {
    let mut ends: Vec<End> = Vec::new();
    for node in domain.children() {
        if !node.is_compatible(&[CHANNEL]) {
            continue;
        }
        let end = end(&node).filter(|end| ends.iter().all(|other| other.port != end.port));
        ends.push(end.ok_or_else(|| fault(node.name(), &WRONG))?);
    }
    Ok(ends)
}

/// Returns the end that a node is.
fn end(node: &Node<'_>) -> Option<End> {
    let tree = node.tree();
    let (port, phandle) = tuple(node)?;
    let peer = tree.by_phandle(phandle)?;
    let (peer_port, back) = tuple(&peer)?;
    let end = End {
        path: node.path().to_string(),
        domain: domain_of(node)?,
        port,
        peer: domain_of(&peer)?,
        peer_port,
    };
    let is_answered = tree.by_phandle(back).as_ref() == Some(node);
    (is_answered && end.domain != end.peer && peer.is_compatible(&[CHANNEL])).then_some(end)
}

/// Reads an end's port, and the phandle of the other end.
fn tuple(node: &Node<'_>) -> Option<(u32, u32)> {
    let value = node.property(PROPERTY)?;
    let (port, phandle) = value.split_first_chunk::<4>()?;
    let (port, phandle) = (u32::from_be_bytes(*port), phandle.try_into().ok()?);
    Some((port, u32::from_be_bytes(phandle))).filter(|_| port > 0)
}

/// Returns the place of an end's domain among those of the tree, from 1 on; 0 is dom0.
fn domain_of(node: &Node<'_>) -> Option<u16> {
    let above = node.parent()?;
    let chosen = node.tree().find("/chosen")?;
    let mut place = 0;
    for domain in chosen.children().filter(|node| node.is_compatible(DOMAIN)) {
        place += 1;
        if domain == above {
            return Some(place);
        }
    }
    (above == chosen).then_some(0)
}
