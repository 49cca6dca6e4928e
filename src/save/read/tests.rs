use proptest::prelude::*;

use super::super::records::{Fields, Header, Place, Shape, Type, VcpuState};
use super::super::{DomainState, Writer};
use super::{Wrong, image};

const SHAPE: Shape = Shape {
    vcpus: 3,
    shared_banks: 2,
    monitors: true,
};

fn header() -> Header {
    Header::new(SHAPE, 62_500_000, core::array::from_fn(|n| n as u32 + 7))
}

fn vcpu_state(n: u32) -> VcpuState {
    VcpuState {
        online: n != 2,
        async_abort: n == 1,
        virtual_control: 1,
        virtual_compare: 0x1_0000_0000 + u64::from(n),
        physical_distance: (-5i64) as u64,
        vmcr: 0xF800_0001,
        info: Place {
            gfn: 0x40000 + n,
            offset: 64,
        },
        ..VcpuState::default()
    }
}

fn domain_state() -> DomainState {
    DomainState {
        counter: 0x1234_5678_9ABC,
        time: u64::MAX / 3,
        shared_info: 0x4_1234,
        forwarding: true,
        runstate_flag: true,
        fifo: true,
        watchdog: false,
        maps_grants: true,
    }
}

/// An image in which every word of a list is different.
fn good() -> Vec<u32> {
    let mut writer = Writer::new(&SHAPE).unwrap();
    let mut next = 0x0100_0000;
    for kind in Type::ALL {
        for n in 0..kind.instances(&SHAPE) {
            match kind {
                Type::Header => writer.fields(kind, n, &mut header()),
                Type::Domain => writer.fields(kind, n, &mut domain_state()),
                Type::Vcpu => writer.fields(kind, n, &mut vcpu_state(n)),
                _ => writer.record(kind, n, |show| {
                    for _ in 0..kind.words() {
                        show(&mut next.clone());
                        next += 1;
                    }
                }),
            }
        }
    }
    writer.finish()
}

#[test]
fn an_image_comes_back_as_it_went() {
    let words = good();
    assert_eq!(words.len(), Writer::words_of(&SHAPE));
    let image = image(&words, SHAPE, &header()).unwrap();
    assert_eq!(image.domain, domain_state());
    let mut next = 0x0100_0000;
    let mut is_next = |words: &[u32]| {
        for word in words {
            assert_eq!(*word, next);
            next += 1;
        }
    };
    (0..2).for_each(|n| is_next(image.shared(n)));
    image.vcpus().for_each(|n| is_next(image.vcpu(n).cpu));
    image.vcpus().for_each(|n| is_next(image.vcpu(n).vfp));
    image
        .vcpus()
        .for_each(|n| is_next(image.vcpu(n).interrupts));
    image.vcpus().for_each(|n| is_next(image.vcpu(n).monitors));
    for n in image.vcpus() {
        assert_eq!(image.vcpu(n).state, vcpu_state(n));
    }
}

/// Returns an image with a record of ports, of so many words, before its end.
fn with_ports(ports: &[u32]) -> Vec<u32> {
    let mut words = good();
    let end = words.split_off(words.len() - 2);
    words.extend([Type::Ports as u32, 4 * ports.len() as u32]);
    [words, ports.to_vec(), end].concat()
}

#[test]
fn the_record_of_ports_may_be_there_and_as_long_as_it_is() {
    assert_eq!(
        image(&good(), SHAPE, &header())
            .unwrap()
            .body(Type::Ports, 0),
        []
    );
    for length in [0, 1, 2, 8192] {
        let ports: Vec<u32> = (0..length).collect();
        let words = with_ports(&ports);
        let image = image(&words, SHAPE, &header()).unwrap();
        assert_eq!(image.body(Type::Ports, 0), ports);
        assert_eq!(image.domain, domain_state());
    }
    let once = with_ports(&[3, 4]);
    let at = once.len() - 6;
    let twice = [&once[..once.len() - 2], &once[at..]].concat();
    assert_eq!(fault(&twice).fault, "it is there twice");
    let mut second = once;
    second[at] |= 1 << 16;
    assert_eq!(fault(&second).fault, "more of them than there are");
}

fn fault(words: &[u32]) -> Wrong {
    image(words, SHAPE, &header())
        .err()
        .expect("it is no image")
}

#[test]
fn an_image_that_is_cut_anywhere_is_refused() {
    let words = good();
    for length in 0..words.len() {
        assert!(fault(&words[..length]).missing, "{length}");
    }
    let mut more = words.clone();
    more.push(0);
    assert!(!fault(&more).missing);
}

/// Where the records begin.
fn places(words: &[u32]) -> Vec<usize> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < words.len() {
        all.push(at);
        at += 2 + words[at + 1] as usize / 4;
    }
    all
}

#[test]
fn each_record_that_is_left_out_or_doubled_is_named() {
    let words = good();
    for at in places(&words) {
        let kind = words[at] & 0xFFFF;
        if kind == 0 {
            continue;
        }
        let end = at + 2 + words[at + 1] as usize / 4;
        let without = [&words[..at], &words[end..]].concat();
        let wrong = fault(&without);
        assert!(wrong.missing);
        assert_eq!((wrong.kind, wrong.instance), (kind, words[at] >> 16));
        let twice = [&words[..end], &words[at..]].concat();
        let wrong = fault(&twice);
        assert_eq!((wrong.kind, wrong.instance), (kind, words[at] >> 16));
        assert_eq!(wrong.fault, "it is there twice");
    }
}

#[test]
fn every_other_descriptor_is_refused() {
    let words = good();
    for at in places(&words) {
        for bit in 0..64 {
            let mut damaged = words.clone();
            damaged[at + bit / 32] ^= 1 << (bit % 32);
            assert!(
                image(&damaged, SHAPE, &header()).is_err(),
                "record at {at}, bit {bit}"
            );
        }
    }
}

#[test]
fn what_is_not_for_here_is_refused_by_name() {
    let words = good();
    let because = |here: Header| image(&words, SHAPE, &here).err().map(|wrong| wrong.fault);
    assert_eq!(because(header()), None);
    let mut here = header();
    here.identity[14] ^= 1;
    assert_eq!(because(here), Some("another processor by MVFR0"));
    let mut here = header();
    here.frequency = 24_000_000;
    assert_eq!(because(here), Some("another frequency of the counter"));
    for word in 0..Header::WORDS {
        let mut damaged = good();
        damaged[2 + word] ^= 4;
        // A flag is what is not zero.
        assert_eq!(fault_at(&damaged), word != 5, "word {word}");
    }
}

fn fault_at(words: &[u32]) -> bool {
    image(words, SHAPE, &header()).is_err()
}

proptest! {
    #[test]
    fn words_that_may_be_anything_are_answered(words in prop::collection::vec(any::<u32>(), 0..400)) {
        let _ = image(&words, SHAPE, &header());
    }

    #[test]
    fn an_image_with_any_damage_is_answered(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 1..6)) {
        let mut words = good();
        for (place, word) in places {
            let length = words.len();
            words[place.index(length)] = word;
        }
        if let Ok(image) = image(&words, SHAPE, &header()) {
            for n in image.vcpus() {
                prop_assert_eq!(image.vcpu(n).cpu.len(), Type::Cpu.words());
            }
        }
    }
}
