//! Event channels between domains of the boot, at the ports that the tree says.

use alloc::format;

use crate::domain::{Domain, registry};
use crate::event::{Binding, End, Port};
use crate::id::DomId;
use crate::loader::Refused;
use crate::platform::partitions::channels;

/// Opens a domain's end of a channel, for the other end's domain alone.
pub fn open(domain: &Domain, end: &channels::End) -> Result<(), Refused> {
    let mut events = domain.events.lock();
    let opened = events.alloc_unbound_at(Port(end.port), DomId(end.peer));
    opened.map_err(|error| {
        let (path, port) = (&end.path, end.port);
        Refused(format!(
            "{path}: xen,evtchn: port {port} cannot be opened: {error:?}"
        ))
    })
}

/// Connects ends that are open with their other ends, where those are open too.
pub fn connect(ends: &[channels::End]) {
    for end in ends {
        if registry::get(DomId(end.domain)).is_some() && !accept(end) {
            let (path, peer) = (&end.path, DomId(end.peer));
            log::error!("BOOT: {path} is not connected: {peer} has no such port");
        }
    }
}

/// Connects both ends of channels of which this domain was made again: the other ends have been unbound since it ended.
pub fn reconnect(ends: &[channels::End]) {
    for end in ends {
        if !(accept(end) && accept(&end.other())) {
            let (path, peer) = (&end.path, DomId(end.peer));
            log::warn!("{path} is not connected: {peer} has closed its port, or is not there");
        }
    }
}

/// Connects an end that is open with the other end, if that is open too. Returns whether it did.
fn accept(end: &channels::End) -> bool {
    let Some(domain) = registry::get(DomId(end.domain)) else {
        return false;
    };
    let peer = End {
        dom: DomId(end.peer),
        port: Port(end.peer_port),
    };
    let is_open = is_open_for(peer, domain.id);
    is_open && domain.events.lock().accept(Port(end.port), peer).is_ok()
}

/// Returns whether an end of a channel is open for a domain, or connected to it already.
fn is_open_for(end: End, other: DomId) -> bool {
    let Some(domain) = registry::get(end.dom) else {
        return false;
    };
    let status = domain.events.lock().status(end.port);
    match status.map(|status| status.binding) {
        Ok(Binding::Unbound(remote)) => remote == other,
        Ok(Binding::Interdomain(remote)) => remote.dom == other,
        _ => false,
    }
}
