//! Mapping of the board's registers (`platform::board`).

use alloc::string::ToString;

use armv7::addr::PhysAddr;
use armv7::hypmap;
use krypton::machine::{self, Ends, Steps};
use krypton::platform::BootError;
use krypton::platform::board::Step;
use krypton::platform::host_dt::{Conduit, HostInfo};

/// Performs the board's preparation steps, and maps the registers that restart and switch off the machine.
pub fn prepare_board(host: &HostInfo) {
    let ends = map(&host.board.off).zip(map(&host.board.reset));
    let (Some(prepare), Some((off, reset))) = (map(&host.board.prepare), ends) else {
        super::fail(&BootError::Corrupt("the board's registers".to_string()))
    };
    prepare.run(0);
    let psci = host.psci;
    machine::set_ends(Ends {
        psci: psci.is_some_and(|psci| psci.conduit == Conduit::Smc && psci.standard),
        off,
        reset,
    });
}

/// Maps the registers of `steps`. Returns `None` if one cannot be mapped.
pub fn map(steps: &[Step]) -> Option<Steps> {
    let mut mapped = Steps::default();
    for step in steps {
        mapped.add(hypmap::map_device(PhysAddr::new(step.at)?, 4)?, step.action);
    }
    Some(mapped)
}
