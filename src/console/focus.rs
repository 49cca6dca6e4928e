//! The domains that take typed input, and the one that has it.

use core::fmt;

use arrayvec::ArrayVec;

use crate::id::DomId;

/// Domains that can take input: dom0 and those of as many modules as a boot has.
const MOST: usize = 33;

/// Where the input has moved to, as a line to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Switched(pub Option<DomId>);

impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(domain) => write!(f, "*** Serial input to DOM{}", domain.0)?,
            None => f.write_str("*** Serial input to Xen")?,
        }
        f.write_str(" (type 'CTRL-a' three times to switch input)")
    }
}

/// The domains that take input, and the one that has it.
pub(super) struct Inputs {
    /// In the order of their ids.
    domains: ArrayVec<DomId, MOST>,
    /// None is the hypervisor.
    focus: Option<DomId>,
    /// The domain that had the input when it ended, until somebody moves the input.
    owed: Option<DomId>,
}

impl Inputs {
    /// No domain; the hypervisor has the input.
    pub const fn new() -> Self {
        Self {
            domains: ArrayVec::new_const(),
            focus: None,
            owed: None,
        }
    }

    /// Returns who has the input.
    pub fn focus(&self) -> Option<DomId> {
        self.focus
    }

    /// Returns whether another domain than dom0 takes input.
    pub fn has_uarts(&self) -> bool {
        self.domains.last().is_some_and(|last| *last != DomId::DOM0)
    }

    /// Adds a domain; one beyond the most is left out of the round. If it had the input when it was taken out, and nobody
    /// has moved that since, it has the input again.
    pub fn add(&mut self, domain: DomId) -> Option<Switched> {
        if let Err(place) = self.domains.binary_search(&domain)
            && !self.domains.is_full()
        {
            self.domains.insert(place, domain);
        }
        let is_back = self.owed == Some(domain) && self.domains.contains(&domain);
        is_back.then(|| {
            self.owed = None;
            self.focus = Some(domain);
            Switched(self.focus)
        })
    }

    /// Takes a domain out. If it had the input, the first of the others has it.
    pub fn remove(&mut self, domain: DomId) -> Option<Switched> {
        self.domains.retain(|other| *other != domain);
        (self.focus == Some(domain)).then(|| {
            self.owed = Some(domain);
            self.switch_to_first()
        })
    }

    /// Gives the input to the first domain, or the hypervisor where there is none.
    pub fn switch_to_first(&mut self) -> Switched {
        self.focus = self.domains.first().copied();
        Switched(self.focus)
    }

    /// Moves the input: from the hypervisor to the first domain, from there to the next ones, and from the last back.
    pub fn switch(&mut self) -> Switched {
        let next = match self.focus {
            None => self.domains.first(),
            Some(focus) => self.domains.iter().find(|other| **other > focus),
        };
        self.focus = next.copied();
        self.owed = None;
        Switched(self.focus)
    }
}

#[cfg(test)]
mod tests {
    use super::{DomId, Inputs, MOST, Switched};

    fn inputs(ids: &[u16]) -> Inputs {
        let mut inputs = Inputs::new();
        for id in ids {
            assert_eq!(inputs.add(DomId(*id)), None);
        }
        inputs
    }

    #[test]
    fn the_input_goes_from_xen_to_each_domain_and_back() {
        let mut inputs = inputs(&[2, 0, 1, 2]);
        let mut walk = || inputs.switch().0.map(|domain| domain.0);
        let round = [walk(), walk(), walk(), walk(), walk()];
        assert_eq!(round, [Some(0), Some(1), Some(2), None, Some(0)]);
    }

    #[test]
    fn without_dom0_it_begins_at_the_first_domain_there_is() {
        assert_eq!(inputs(&[2, 1]).switch_to_first(), Switched(Some(DomId(1))));
        assert_eq!(inputs(&[]).switch_to_first(), Switched(None));
        assert_eq!(inputs(&[]).switch(), Switched(None));
    }

    #[test]
    fn a_domain_that_has_ended_is_passed_over() {
        let mut inputs = inputs(&[1, 2, 3]);
        inputs.switch_to_first();
        assert_eq!(inputs.remove(DomId(2)), None);
        assert_eq!(inputs.switch(), Switched(Some(DomId(3))));
        assert_eq!(inputs.remove(DomId(3)), Some(Switched(Some(DomId(1)))));
        assert_eq!(inputs.remove(DomId(1)), Some(Switched(None)));
    }

    #[test]
    fn a_domain_that_is_started_again_has_the_input_again_unless_it_was_moved() {
        let first = Some(Switched(Some(DomId(1))));
        for moves in [false, true] {
            let mut inputs = inputs(&[1, 2]);
            inputs.switch_to_first();
            assert_eq!(inputs.remove(DomId(1)), Some(Switched(Some(DomId(2)))));
            assert_eq!(inputs.remove(DomId(1)), None);
            if moves {
                inputs.switch();
            }
            assert_eq!(inputs.add(DomId(1)), first.filter(|_| !moves));
            // Once only.
            inputs.switch();
            assert_eq!(inputs.add(DomId(1)), None);
        }
    }

    #[test]
    fn only_other_domains_than_dom0_have_uarts_and_not_more_than_the_most() {
        assert!(!inputs(&[0]).has_uarts() && !inputs(&[]).has_uarts());
        let mut many = inputs(&[0, 1]);
        assert!(many.has_uarts());
        for id in 0..100 {
            many.add(DomId(id));
        }
        assert_eq!(many.domains.len(), MOST);
    }

    #[test]
    fn the_lines_are_those_of_xen() {
        assert_eq!(
            Switched(Some(DomId(3))).to_string(),
            "*** Serial input to DOM3 (type 'CTRL-a' three times to switch input)"
        );
        let xen = Switched(None).to_string();
        assert!(
            xen.starts_with("*** Serial input to Xen (type 'CTRL-a'"),
            "{xen}"
        );
    }
}
