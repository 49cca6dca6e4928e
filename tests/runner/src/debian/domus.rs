//! domUs as people make them: a Debian on a file and one on a logical volume, with devices that come and go, and xendomains.

use std::fs::File;
use std::time::Duration;

use super::{Guest, LOGIN, PATIENCE, free_port, machine, restart, under_krypton};
use crate::machine::{Bus, Disk, Format, Writes};
use crate::options::Options;
use crate::project::{made_by_setup, root};
use crate::session::{Echo, ScratchFolder, Session};
use crate::{Result, build};

/// RAM in MiB: dom0's 512, and room for two domUs.
const MEMORY_MIB: u32 = 2560;
/// Size of the disk that dom0 makes a volume group of.
const VOLUMES: u64 = 2 << 30;

/// Makes a second domU in dom0, on a logical volume, as a copy of the first one's disk. The addresses of their links follow
/// from their MACs.
const PREPARE: &str = r#"set -e
cat >/usr/local/bin/guest <<'END'
#!/bin/sh
# guest LAST-BYTE COMMAND: runs a command in the domU whose MAC ends so.
last=$1
shift
exec ssh -q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=60 \
    "root@fe80::216:3eff:fe00:$last%xenbr0" "$@"
END
chmod 755 /usr/local/bin/guest
pvcreate -q "$1" && vgcreate -q guests "$1" && lvcreate -q -y -L 1G -n volume guests
dd if=/srv/debian/disk.img of=/dev/guests/volume bs=1M conv=sparse status=none
sed -e 's/"debian"/"volume"/' -e 's#^disk = .*#disk = ["phy:/dev/guests/volume,xvda,w"]#' -e 's/:02"/:03"/' \
    /etc/xen/debian.cfg >/etc/xen/volume.cfg
"#;

/// The steps in dom0: the fact that each one shows, and its commands.
const STEPS: [(&str, &str); 7] = [
    (
        "both have 4 vCPUs and nothing to complain about",
        "for last in 2 3; do test $(guest $last nproc) = 4 && test $(guest $last systemctl is-system-running) = running || exit 1; done",
    ),
    (
        "a disk comes and goes",
        "truncate -s 16M /srv/extra.img && xl block-attach debian format=raw,vdev=xvdb,access=rw,target=/srv/extra.img \
         && guest 2 'sleep 5; mke2fs -q -t ext4 /dev/xvdb && mount /dev/xvdb /mnt && date >/mnt/date && umount /mnt' \
         && xl block-detach debian xvdb && sleep 5 && guest 2 'test ! -e /dev/xvdb' \
         && ! losetup --list --noheadings | grep extra && e2fsck -fn /srv/extra.img",
    ),
    (
        "an interface comes and goes",
        "xl network-attach debian bridge=xenbr0 mac=00:16:3e:00:00:12 && sleep 5 && guest 2 'ip link show enX1' \
         && xl network-detach debian 1 && sleep 5 && guest 2 '! ip link show enX1'",
    ),
    (
        "50 MB go from dom0 to one, from there to the other, and back",
        "head -c 50000000 /dev/urandom >data && guest 2 'cat >data' <data && guest 2 'cat data' | guest 3 'cat >data' \
         && guest 3 'cat data' | cmp - data",
    ),
    (
        "one starts again from inside",
        "before=$(xl domid debian); guest 2 systemctl reboot; \
         until after=$(xl domid debian) && test \"$after\" != \"$before\" && guest 2 true; do sleep 5; done",
    ),
    (
        "all are shut down at once",
        "xl shutdown -w -a && until test $(xl list | wc -l) = 2 -a -z \"$(losetup --list --noheadings)\"; do sleep 5; done",
    ),
    (
        "xendomains starts what is to start with the machine",
        "mkdir -p /etc/xen/auto && ln -s /etc/xen/volume.cfg /etc/xen/auto/ && systemctl restart xendomains \
         && until guest 3 true; do sleep 5; done",
    ),
];

/// Runs the steps on the disk of `make debian`, then restarts the machine under the domU that xendomains has started.
pub fn test(options: &Options, echo: Echo) -> Result {
    crate::package::make(options)?;
    build::run(&mut std::process::Command::new(
        root().join("tests/setup/image.sh"),
    ))?;
    let disk = made_by_setup(root().join("target/debian/disk.img"))?;
    let scratch = ScratchFolder::new("volumes")?;
    let port = free_port()?;
    let options = Options {
        memory_mib: MEMORY_MIB,
        ..options.clone()
    };
    let mut machine = machine(&options, disk, Writes::Lost, port)?;
    // The last one is vda.
    machine.disks.insert(0, blank(&scratch)?);
    let mut session = Session::start(&machine, echo)?;
    let guest = Guest(port);
    let patience = options.timeout * PATIENCE;

    under_krypton(&mut session, &guest, patience)?;
    guest.run(&format!("set -- /dev/vdb\n{PREPARE}"))?;
    for name in ["debian", "volume"] {
        guest.run(&format!("xl create /etc/xen/{name}.cfg"))?;
    }
    for last in [2, 3] {
        guest.until(
            &format!("guest {last} systemctl is-system-running"),
            patience,
        )?;
    }
    for (name, step) in STEPS {
        within(&guest, step, patience).map_err(|error| format!("{name}: {error}"))?;
    }
    restart(&mut session, &guest, patience)?;
    session.wait_for_prompt(LOGIN, patience)?;
    guest.until("guest 3 systemctl is-system-running", patience)?;
    guest.run("systemctl is-system-running").map(drop)
}

/// Runs a step in dom0, which ends it when it takes too long.
fn within(guest: &Guest, step: &str, patience: Duration) -> Result<String> {
    guest.run(&format!(
        "timeout {} sh -c '{}'",
        patience.as_secs(),
        step.replace('\'', "'\\''")
    ))
}

/// Returns an empty disk.
fn blank(scratch: &ScratchFolder) -> Result<Disk> {
    let file = scratch.path().join("volumes.img");
    File::create(&file)
        .and_then(|created| created.set_len(VOLUMES))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(Disk {
        file,
        format: Format::Raw,
        bus: Bus::Mmio,
        writes: Writes::Kept,
    })
}
