//! The interrupt of a real device: a virtio balloon, whose queues QEMU serves within the write that notifies it, if the
//! machine has one and `-global virtio-mmio.ioeventfd=off`. Virtio 1.2, section 4.2.4 (legacy MMIO interface).

use guests::memory::Frame;
use guests::{cp15, gic, mmio, println};

use crate::measure::{row, until_taken, use_device_vectors};

/// The virt board's virtio slots, their interrupts from INTID 48 on.
const SLOTS: u32 = 32;
const FIRST_SLOT: u32 = 0x0a00_0000;
const SLOT_SIZE: u32 = 0x200;
const FIRST_INTID: u32 = 48;

const BALLOON: u32 = 5;
/// The balloon's queue of pages given back.
const DEFLATE: u32 = 1;

const DEVICE_ID: u32 = 0x08;
const GUEST_FEATURES: u32 = 0x20;
const GUEST_PAGE_SIZE: u32 = 0x28;
const QUEUE_SELECT: u32 = 0x30;
const QUEUE_SIZE: u32 = 0x38;
const QUEUE_ALIGN: u32 = 0x3c;
const QUEUE_FRAME: u32 = 0x40;
const QUEUE_NOTIFY: u32 = 0x50;
const STATUS: u32 = 0x70;
const STATUS_DRIVER_OK: u32 = 7;

const ENTRIES: u32 = 16;
/// The available ring follows the descriptors.
const AVAILABLE: u32 = ENTRIES * 16;

pub fn rows() {
    let mut slots = (0..SLOTS).map(|slot| (FIRST_SLOT + slot * SLOT_SIZE, FIRST_INTID + slot));
    let Some((device, intid)) = slots.find(|(device, _)| mmio::read32(device + DEVICE_ID) == BALLOON) else {
        println!("no virtio balloon in this machine");
        return;
    };
    let queue = set_up(device);
    use_device_vectors(device);
    gic::set_targets(intid, 1);
    gic::enable(intid);
    row("device_interrupt_taken", 1600, || {
        until_taken(|| {
            queue.write(AVAILABLE, queue.read(AVAILABLE).wrapping_add(1 << 16));
            cp15::dsb();
            mmio::write32(device + QUEUE_NOTIFY, DEFLATE);
        })
    });
    gic::disable(intid);
    mmio::write32(device + STATUS, 0);
    crate::measure::use_vectors();
}

/// Makes the queue, with one buffer in every entry of the ring.
fn set_up(device: u32) -> Frame {
    let queue = Frame::take_aligned(2);
    let buffer = Frame::take();
    queue.write(0, buffer.address());
    // Half a page number: the device finds nothing to do in it.
    queue.write(8, 2);
    mmio::write32(device + STATUS, 0);
    mmio::write32(device + STATUS, 3);
    mmio::write32(device + GUEST_FEATURES, 0);
    mmio::write32(device + GUEST_PAGE_SIZE, 4096);
    mmio::write32(device + QUEUE_SELECT, DEFLATE);
    mmio::write32(device + QUEUE_SIZE, ENTRIES);
    mmio::write32(device + QUEUE_ALIGN, 4096);
    mmio::write32(device + QUEUE_FRAME, queue.gfn() as u32);
    mmio::write32(device + STATUS, STATUS_DRIVER_OK);
    queue
}
