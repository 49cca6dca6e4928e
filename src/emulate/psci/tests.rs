use proptest::prelude::{any, proptest};

use super::{Action, CpuOn, EntryState, Power, View, call, status, vmpidr};
use crate::id::{MAX_VCPUS, VcpuId};

/// A domain of `count` vCPUs; those in the set `on` are on.
struct Domain {
    count: u32,
    on: u32,
    hardened: bool,
}

impl View for Domain {
    fn power(&self, id: VcpuId) -> Option<Power> {
        let id = u32::from(id.raw());
        (id < self.count).then_some(if self.on & 1 << id != 0 {
            Power::On
        } else {
            Power::Off
        })
    }
    fn hardens_branch_predictor(&self) -> bool {
        self.hardened
    }
}

const TWO: Domain = Domain {
    count: 2,
    on: 0b01,
    hardened: false,
};

fn r0(status: i32) -> Action {
    Action::Return(status as u32)
}

fn vcpu(n: u32) -> VcpuId {
    VcpuId::new(n).unwrap()
}

#[test]
fn linux_finds_psci_1_1_and_smccc_1_1() {
    assert_eq!(call(0x8400_0000, [0; 3], &TWO), Action::Return(0x0001_0001));
    assert_eq!(call(0x8400_0006, [0; 3], &TWO), Action::Return(2));
    assert_eq!(
        call(0x8400_000A, [0x8000_0000, 0, 0], &TWO),
        r0(status::SUCCESS)
    );
    assert_eq!(call(0x8000_0000, [0; 3], &TWO), Action::Return(0x0001_0001));
    assert_eq!(
        call(0x8400_000A, [0x8400_0001, 0, 0], &TWO),
        r0(status::SUCCESS)
    );
    assert_eq!(
        call(0x8400_000A, [0x8400_000E, 0, 0], &TWO),
        r0(status::NOT_SUPPORTED)
    );
    assert_eq!(
        call(0x8400_000A, [0x8400_0012, 0, 0], &TWO),
        r0(status::NOT_SUPPORTED)
    );
}

#[test]
fn the_hypervisor_service_names_xen() {
    assert_eq!(call(0x8500_FF00, [0; 3], &TWO), Action::Return(3));
    let uid = Action::ReturnAll([0xDC12_18A7, 0x6943_98C6, 0xD179_CF9A, 0x67E6_DE8D]);
    assert_eq!(call(0x8500_FF01, [0; 3], &TWO), uid);
    assert_eq!(
        call(0x8500_FF03, [7, 8, 9], &TWO),
        Action::ReturnAll([0, 1, 8, 9])
    );
    assert_eq!(call(0x8500_FF02, [0; 3], &TWO), r0(status::NOT_SUPPORTED));
}

#[test]
fn the_standard_service_tells_its_identity() {
    let Action::ReturnAll(words) = call(0x8400_FF01, [0; 3], &TWO) else {
        panic!("no UID")
    };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, "f863386f4b394cbd9220ce1641e59f6f");
    assert_eq!(
        call(0x8400_FF03, [0; 3], &TWO),
        Action::ReturnAll([0, 1, 0, 0])
    );
}

#[test]
fn cpu_on_starts_a_vcpu_that_is_off_in_the_right_instruction_set() {
    let on = |entry, state, context| CpuOn {
        vcpu: vcpu(1),
        entry,
        state,
        context,
        already_on: status::ALREADY_ON as u32,
    };
    let arm = call(0x8400_0003, [1, 0x4000_0000, 77], &TWO);
    assert_eq!(arm, Action::CpuOn(on(0x4000_0000, EntryState::Arm, 77)));
    let thumb = call(0x8400_0003, [0x8000_0001, 0xFFFF_FFFF, 0], &TWO);
    assert_eq!(thumb, Action::CpuOn(on(0xFFFF_FFFE, EntryState::Thumb, 0)));
}

#[test]
fn cpu_on_refuses_what_is_on_or_not_there() {
    assert_eq!(call(0x8400_0003, [0, 0, 0], &TWO), r0(status::ALREADY_ON));
    for target in [2, 7, 8, 15, 16, 0x100, 0x1_0000, 0xFFFF_FFFF] {
        assert_eq!(
            call(0x8400_0003, [target, 0, 0], &TWO),
            r0(status::INVALID_PARAMETERS),
            "{target:#x}"
        );
    }
}

#[test]
fn psci_0_1_ids_are_served_without_newer_answers() {
    assert_eq!(call(1, [0; 3], &TWO), Action::CpuOff);
    assert_eq!(
        call(2, [0, 0, 0], &TWO),
        r0(status::INVALID_PARAMETERS),
        "0.1 has no ALREADY_ON"
    );
    let Action::CpuOn(on) = call(2, [1, 0x8000, 99], &TWO) else {
        panic!("not started")
    };
    assert_eq!((on.vcpu, on.entry, on.context), (vcpu(1), 0x8000, 0));
    assert_eq!(on.already_on, status::INVALID_PARAMETERS as u32);
}

#[test]
fn affinity_info_looks_at_the_whole_node() {
    let info = |target, level| call(0x8400_0004, [target, level, 0], &TWO);
    assert_eq!(info(0, 0), Action::Return(0));
    assert_eq!(info(1, 0), Action::Return(1));
    assert_eq!(
        info(1, 1),
        Action::Return(0),
        "cluster 0 has a CPU that is on"
    );
    assert_eq!(info(0x100, 1), Action::Return(1), "an empty cluster is off");
    assert_eq!(info(5, 2), Action::Return(0));
    assert_eq!(info(0, 3), r0(status::INVALID_PARAMETERS));
    assert_eq!(info(0, u32::MAX), r0(status::INVALID_PARAMETERS));
}

#[test]
fn power_calls_become_actions() {
    assert_eq!(call(0x8400_0001, [0x10000, 0, 0], &TWO), Action::Suspend);
    assert_eq!(call(0x8400_0002, [0x10000, 0, 0], &TWO), Action::CpuOff);
    assert_eq!(call(0x8400_0008, [0; 3], &TWO), Action::SystemOff);
    assert_eq!(call(0x8400_0009, [0; 3], &TWO), Action::SystemReset);
}

#[test]
fn the_64_bit_convention_is_not_for_32_bit_guests() {
    for function in [
        0xC400_0001,
        0xC400_0003,
        0xC400_0004,
        0xC000_0000,
        0xC600_FF01,
    ] {
        assert_eq!(
            call(function, [1, 0, 0], &TWO),
            r0(status::NOT_SUPPORTED),
            "{function:#x}"
        );
    }
    assert_eq!(
        call(0x8400_000A, [0xC400_0003, 0, 0], &TWO),
        r0(status::NOT_SUPPORTED)
    );
}

#[test]
fn the_branch_predictor_work_around_is_offered_only_when_active() {
    let features = |view: &Domain| call(0x8000_0001, [0x8000_8000, 0, 0], view);
    assert_eq!(features(&TWO), r0(status::NOT_SUPPORTED));
    assert_eq!(
        features(&Domain {
            hardened: true,
            ..TWO
        }),
        r0(status::SUCCESS)
    );
    assert_eq!(
        call(0x8000_0001, [0x8000_3FFF, 0, 0], &TWO),
        r0(status::NOT_SUPPORTED)
    );
    assert_eq!(call(0x8000_8000, [0; 3], &TWO), Action::Nothing);
}

#[test]
fn every_vcpu_is_found_by_the_mpidr_it_sees() {
    for id in (0..u32::from(MAX_VCPUS)).map(vcpu) {
        assert_eq!(super::vcpu_of(vmpidr(id)), Some(id));
    }
    assert_eq!(vmpidr(vcpu(3)), 0x8000_0003);
}

proptest! {
    #[test]
    fn no_call_acts_on_a_vcpu_that_does_not_exist(
        function in any::<u32>(),
        args in any::<[u32; 3]>(),
        count in 1..=8u32,
        on in any::<u32>(),
    ) {
        let domain = Domain { count, on, hardened: false };
        for function in [function, 0x8400_0000 | function & 0x1F] {
            if let Action::CpuOn(CpuOn { vcpu, .. }) = call(function, args, &domain) {
                assert_eq!(domain.power(vcpu), Some(Power::Off));
            }
        }
    }
}
