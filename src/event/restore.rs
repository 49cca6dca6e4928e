//! The ports of a saved domain, as a new domain gets them (docs/migration-format.md, PORTS).

use armv7::frame::PageRef;

use super::ports::State;
use super::virq::VirqMap;
use super::{EventTable, EventVirq, Notify, Port};
use crate::abi::event_channel as abi;
use crate::id::DomId;

impl<P: PageRef> EventTable<P> {
    /// Opens the ports of a record, or only checks that it can. Those that the toolstack has opened stay as they are, and are
    /// raised, as their peer may have sent before. Returns the first port that is wrong; after a check without one, nothing
    /// fails.
    pub fn restore(&mut self, words: &[u32], opens: bool) -> Result<Notify, u32> {
        let mut notify = Notify::NONE;
        let mut virqs = self.virqs.clone();
        for (number, entry) in (0..).zip(words.as_chunks().0) {
            notify |= self
                .restore_one(Port(number), *entry, opens, &mut virqs)
                .ok_or(number)?;
        }
        if opens {
            self.virqs = virqs;
        }
        Ok(notify)
    }

    fn restore_one(
        &mut self,
        port: Port,
        [how, detail]: [u32; 2],
        opens: bool,
        virqs: &mut VirqMap,
    ) -> Option<Notify> {
        let status = how & 0xFF;
        if status == abi::STATUS_CLOSED {
            return Some(Notify::NONE);
        }
        let vcpu = self.vcpu(how >> 8 & 0xFF).ok()?;
        let remote = match DomId((how >> 16) as u16) {
            DomId::SELF => self.dom,
            remote => remote,
        };
        if port.0 >= self.limit() {
            return None;
        }
        let is_free = self.ports.reach(port).ok()?;
        let state = match status {
            abi::STATUS_UNBOUND | abi::STATUS_INTERDOMAIN if !is_free => {
                let channel = self.ports.get_mut(port).filter(|c| c.is_usable())?;
                if !opens {
                    return Some(Notify::NONE);
                }
                channel.vcpu = vcpu;
                return Some(self.delivery.raise(port, channel));
            }
            abi::STATUS_UNBOUND => State::Unbound { remote },
            abi::STATUS_INTERDOMAIN if remote == self.dom => State::Interdomain {
                dom: remote,
                port: Port(detail),
            },
            abi::STATUS_VIRQ => {
                let virq = EventVirq::new(detail)?;
                if virqs.port(virq, vcpu).is_some() {
                    return None;
                }
                virqs.bind(virq, vcpu, port);
                State::Virq(virq)
            }
            abi::STATUS_IPI => State::Ipi,
            _ => return None,
        };
        if !is_free {
            return None;
        }
        if opens {
            self.ports.open(port, state, vcpu);
        }
        Some(Notify::NONE)
    }
}
