//! Where modules and kept RAM of domains may be in the machine.

use alloc::string::String;
use alloc::vec::Vec;

use super::Partition;
use crate::platform::places::{Places, Sharing, Taken, add};
use crate::platform::ranges::PhysRange;

/// Leaves out domains with modules, RAM or shared memory that are not in the machine's RAM, or that share a byte with
/// something else. A module that is the same range as another domain's is one file that serves both, and so is shared
/// memory of one id. None of it may be in `others`.
pub fn check(partitions: &mut [Partition], ram: &[PhysRange], others: &Places<'_>) {
    let mut before = Vec::new();
    let mut wrong = Vec::new();
    for partition in partitions.iter() {
        let known = before.len();
        let why = check_one(partition, ram, others, &mut before).err();
        if why.is_some() {
            before.truncate(known);
        }
        wrong.push(why);
    }
    for (partition, why) in partitions.iter_mut().zip(wrong) {
        if let Some(why) = why {
            partition.config = Err(why);
        }
    }
}

fn check_one<'a>(
    partition: &'a Partition,
    ram: &[PhysRange],
    others: &Places<'_>,
    before: &mut Vec<Taken<'a>>,
) -> Result<(), String> {
    let Ok(config) = &partition.config else {
        return Ok(());
    };
    let mut add = |taken| add(taken, ram, others, before);
    for module in config.modules() {
        add(Taken {
            path: &module.path,
            property: "",
            range: module.range,
            sharing: Sharing::File,
        })?;
    }
    for range in &config.static_memory {
        add(Taken {
            path: &partition.path,
            property: ": xen,static-mem",
            range: *range,
            sharing: Sharing::None,
        })?;
    }
    for shared in &config.shared {
        add(Taken {
            path: &shared.path,
            property: ": xen,shared-mem",
            range: shared.host,
            sharing: Sharing::Id(&shared.id),
        })?;
    }
    Ok(())
}
