//! physinfo, getdomaininfo and getvcpuinfo: the state of the machine, its domains and vCPUs.

use armv7::features;

use super::cpupool;
use crate::abi::domctl::{self as abi, ArchDomainConfig, DomainInfo};
use crate::abi::sysctl::{PHYSCAP_GNTTAB_V1, PHYSCAP_HAP, PHYSCAP_HVM, PHYSCAP_VPMU, PhysInfo};
use crate::domain::{Domain, Life, State};
use crate::mem::account::Account;
use crate::mem::memory;
use crate::sched;
use crate::time;
use crate::vcpu::{RunState, Vcpu, halt};

/// The size of a guest physical address, in bits.
const GPADDR_BITS: u8 = 40;
/// `shared_info_frame` of a domain that has not mapped it.
const NO_FRAME: u64 = u64::MAX;
/// `shutdown_code` of a domain that has set none.
const NO_CODE: u32 = u32::MAX;

/// Returns the machine's `physinfo`.
pub fn machine() -> PhysInfo {
    let memory = memory();
    let monitors = match features::has_monitors() {
        true => PHYSCAP_VPMU,
        false => 0,
    };
    PhysInfo {
        threads_per_core: 1,
        cores_per_socket: 1,
        nr_cpus: cpupool::cpus().len(),
        max_cpu_id: cpupool::nr_cpus().saturating_sub(1),
        nr_nodes: 1,
        max_node_id: 0,
        cpu_khz: time::clock().hz() / 1000,
        capabilities: PHYSCAP_HVM | PHYSCAP_HAP | PHYSCAP_GNTTAB_V1 | monitors,
        total_pages: memory.total_pages().into(),
        free_pages: memory.guest_pages().into(),
        outstanding_pages: memory.claimed_pages().into(),
        max_mfn: memory.max_page().saturating_sub(1).into(),
        ..PhysInfo::ZERO
    }
}

/// The state of a vCPU for the toolstack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VcpuView {
    /// It is online.
    pub online: bool,
    /// It is blocked until an event.
    pub blocked: bool,
    /// It is running.
    pub running: bool,
    /// The CPU time that it has used, in nanoseconds.
    pub cpu_ns: u64,
    /// The CPU on which it runs, waits or last ran.
    pub cpu: u32,
}

/// Returns the state of a vCPU.
pub fn vcpu(vcpu: &Vcpu) -> VcpuView {
    let scheduler = sched::lock();
    let running = scheduler.is_on_cpu(vcpu.unit);
    let cpu = scheduler
        .cpu_of(vcpu.unit)
        .map_or(0, armv7::cpu::CpuId::raw);
    drop(scheduler);
    let [ran, ..] = vcpu.runstate.lock().spent(time::now());
    const _: () = assert!(RunState::Running as usize == 0);
    VcpuView {
        online: vcpu.is_online(),
        blocked: vcpu.halted() & halt::BLOCKED != 0,
        running,
        cpu_ns: time::clock().ns(ran).0,
        cpu,
    }
}

/// Returns the flags (`DOMINF_*`) of a domain with the vCPUs `views`.
fn flags(state: &State, views: impl Iterator<Item = VcpuView>) -> u32 {
    let mut flags = abi::DOMINF_HVM_GUEST | abi::DOMINF_HAP;
    let (mut online, mut waiting, mut running) = (0, 0, 0);
    for view in views.filter(|view| view.online) {
        online += 1;
        waiting += u32::from(view.blocked);
        running += u32::from(view.running);
    }
    let mut set = |condition: bool, flag: u32| flags |= if condition { flag } else { 0 };
    set(online > 0 && waiting == online, abi::DOMINF_BLOCKED);
    set(running > 0, abi::DOMINF_RUNNING);
    set(state.life == Life::Dead, abi::DOMINF_DYING);
    set(state.shutdown.is_some(), abi::DOMINF_SHUTDOWN);
    set(state.pause_count > 0, abi::DOMINF_PAUSED);
    set(state.debugged, abi::DOMINF_DEBUGGED);
    flags | state.shutdown.or(state.shutdown_code).unwrap_or(NO_CODE) << abi::DOMINF_SHUTDOWN_SHIFT
}

/// Returns a domain's `getdomaininfo`.
fn assemble(
    id: u16,
    state: &State,
    views: &[VcpuView],
    account: Option<Account>,
    cpupool: u32,
) -> DomainInfo {
    let account = account
        .map(|a| (a.total, a.limit, a.claim))
        .unwrap_or_default();
    DomainInfo {
        domain: id,
        pad1: 0,
        flags: flags(state, views.iter().copied()),
        tot_pages: account.0.into(),
        max_pages: account.1.into(),
        outstanding_pages: account.2.into(),
        shr_pages: 0,
        paged_pages: 0,
        shared_info_frame: state
            .shared_info_gfn
            .map_or(NO_FRAME, |gfn| gfn.raw().into()),
        cpu_time: views.iter().fold(0, |sum, view| sum + view.cpu_ns),
        nr_online_vcpus: views.iter().filter(|view| view.online).count() as u32,
        max_vcpu_id: (views.len() as u32)
            .checked_sub(1)
            .unwrap_or(abi::INVALID_MAX_VCPU_ID),
        ssidref: 0,
        handle: state.handle,
        cpupool,
        gpaddr_bits: GPADDR_BITS,
        pad2: [0; 7],
        arch_config: ArchDomainConfig::ZERO,
        pad3: 0,
    }
}

/// Handles getdomaininfo.
pub fn domain(domain: &Domain) -> DomainInfo {
    let views: arrayvec::ArrayVec<_, { crate::id::MAX_VCPUS as usize }> = domain
        .vcpus()
        .iter()
        .map(|v| vcpu(v))
        .take(crate::id::MAX_VCPUS.into())
        .collect();
    let account = memory().account(domain.id);
    let pool = cpupool::number_of(domain);
    assemble(domain.id.0, &domain.state.lock(), &views, account, pool)
}

#[cfg(test)]
mod tests {
    use super::{VcpuView, assemble, flags};
    use crate::abi::domctl as abi;
    use crate::domain::{Life, Params, State};

    fn state() -> State {
        State {
            life: Life::Alive,
            pause_count: 0,
            shutdown: None,
            shutdown_code: None,
            handle: [7; 16],
            params: Params::default(),
            shared_info_gfn: None,
            vcpu_info: [None; 8],
            suspend_port: 0,
            runstate_flag: false,
            time_offset: 0,
            debugged: false,
            unfinished: Vec::new(),
        }
    }

    const BLOCKED: VcpuView = VcpuView {
        online: true,
        blocked: true,
        running: false,
        cpu_ns: 5,
        cpu: 0,
    };
    const RUNNING: VcpuView = VcpuView {
        online: true,
        blocked: false,
        running: true,
        cpu_ns: 6,
        cpu: 1,
    };
    const OFFLINE: VcpuView = VcpuView {
        online: false,
        blocked: false,
        running: false,
        cpu_ns: 0,
        cpu: 0,
    };
    const MASK: u32 = 0xFF & !abi::DOMINF_HVM_GUEST;

    #[test]
    fn a_domain_is_blocked_when_all_its_online_vcpus_are() {
        let of = |views: &[VcpuView]| flags(&state(), views.iter().copied()) & MASK;
        assert_eq!(of(&[BLOCKED, OFFLINE]), abi::DOMINF_BLOCKED);
        assert_eq!(of(&[BLOCKED, RUNNING]), abi::DOMINF_RUNNING);
        assert_eq!(of(&[OFFLINE]), 0);
        assert_eq!(of(&[]), 0);
    }

    #[test]
    fn dying_is_told_only_of_the_dead() {
        let of = |life| flags(&State { life, ..state() }, [].into_iter()) & abi::DOMINF_DYING;
        assert_eq!((of(Life::Dying), of(Life::Dead)), (0, abi::DOMINF_DYING));
    }

    #[test]
    fn the_shutdown_code_is_in_the_upper_half() {
        let down = State {
            shutdown: Some(3),
            pause_count: 1,
            ..state()
        };
        let flags = flags(&down, [].into_iter());
        assert_eq!(flags >> 16, 3);
        assert_eq!(flags & MASK, abi::DOMINF_SHUTDOWN | abi::DOMINF_PAUSED);
    }

    #[test]
    fn times_are_summed_and_a_domain_without_vcpus_has_no_highest_one() {
        let info = assemble(3, &state(), &[BLOCKED, RUNNING, OFFLINE], None, 0);
        assert_eq!(
            (info.cpu_time, info.nr_online_vcpus, info.max_vcpu_id),
            (11, 2, 2)
        );
        assert_eq!(
            (info.domain, info.handle, info.shared_info_frame),
            (3, [7; 16], u64::MAX)
        );
        assert_eq!(assemble(3, &state(), &[], None, 0).max_vcpu_id, u32::MAX);
    }
}
