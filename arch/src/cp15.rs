//! Coprocessor registers of the hypervisor, by their architectural names.
//!
//! The access instructions are `aarch32-cpu`'s ([`SysReg`] and related traits). This file adds the registers that the
//! crate lacks or hides on a host (all of PL2). Its accesses are `nomem`: the compiler may move memory accesses across
//! them, so code that needs an order uses [`crate::barrier`].
//!
//! Nothing here is public: the rest of the project uses safe functions of other modules. Encodings: DDI 0406C.d B3.17
//! and B4.1. On a host each register is a cell of `host::cells`.

use aarch32_cpu::register::{SysReg, SysReg64};
#[cfg(target_arch = "arm")]
use aarch32_cpu::register::{SysRegRead, SysRegRead64, SysRegWrite, SysRegWrite64};

#[cfg(not(target_arch = "arm"))]
use crate::host::cells as store;

macro_rules! registers32 {
    ($coprocessor:literal: $($name:ident $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {$(
        pub(crate) struct $name;
        impl SysReg for $name {
            const CP: u32 = $coprocessor;
            const OP1: u32 = $op1;
            const CRN: u32 = $crn;
            const CRM: u32 = $crm;
            const OP2: u32 = $op2;
        }
        #[cfg(target_arch = "arm")]
        impl SysRegRead for $name {}
        #[cfg(target_arch = "arm")]
        impl SysRegWrite for $name {}
        #[cfg(not(target_arch = "arm"))]
        impl $name {
            const PLACE: usize = store::place($op1, $crn, $crm, $op2);
        }
        impl $name {
            #[inline(always)]
            #[allow(dead_code)]
            pub(crate) fn read() -> u32 {
                #[cfg(target_arch = "arm")]
                let value = <Self as SysRegRead>::read_raw();
                #[cfg(not(target_arch = "arm"))]
                let value = store::read(Self::PLACE);
                value
            }
            /// # Safety
            /// The caller knows what the value does to the machine.
            #[inline(always)]
            #[allow(dead_code)]
            pub(crate) unsafe fn write(value: u32) {
                #[cfg(target_arch = "arm")]
                // SAFETY: passed on to the caller.
                unsafe {
                    <Self as SysRegWrite>::write_raw(value)
                }
                #[cfg(not(target_arch = "arm"))]
                {
                    store::record(stringify!($name));
                    store::write(Self::PLACE, value);
                }
            }
        }
    )*};
}

macro_rules! registers64 {
    ($($name:ident $op1:literal $crm:literal;)*) => {$(
        pub(crate) struct $name;
        impl SysReg64 for $name {
            const CP: u32 = 15;
            const OP1: u32 = $op1;
            const CRM: u32 = $crm;
        }
        #[cfg(target_arch = "arm")]
        impl SysRegRead64 for $name {}
        #[cfg(target_arch = "arm")]
        impl SysRegWrite64 for $name {}
        #[cfg(not(target_arch = "arm"))]
        impl $name {
            const PLACE: usize = store::wide_place($op1, $crm);
        }
        impl $name {
            #[inline(always)]
            #[allow(dead_code)]
            pub(crate) fn read() -> u64 {
                #[cfg(target_arch = "arm")]
                let value = <Self as SysRegRead64>::read_raw();
                #[cfg(not(target_arch = "arm"))]
                let value = store::read_wide(Self::PLACE);
                value
            }
            /// # Safety
            /// The caller knows what the value does to the machine.
            #[inline(always)]
            #[allow(dead_code)]
            pub(crate) unsafe fn write(value: u64) {
                #[cfg(target_arch = "arm")]
                // SAFETY: passed on to the caller.
                unsafe {
                    <Self as SysRegWrite64>::write_raw(value)
                }
                #[cfg(not(target_arch = "arm"))]
                {
                    store::record(stringify!($name));
                    store::write_wide(Self::PLACE, value);
                }
            }
        }
    )*};
}

registers32! { 15:
    // Identification.
    Midr 0 0 0 0;
    Ctr 0 0 0 1;
    Mpidr 0 0 0 5;
    Revidr 0 0 0 6;
    IdPfr0 0 0 1 0;
    IdPfr1 0 0 1 1;
    IdDfr0 0 0 1 2;
    IdMmfr0 0 0 1 4;
    IdMmfr1 0 0 1 5;
    IdMmfr2 0 0 1 6;
    IdMmfr3 0 0 1 7;
    IdIsar0 0 0 2 0;
    IdIsar1 0 0 2 1;
    IdIsar2 0 0 2 2;
    IdIsar3 0 0 2 3;
    IdIsar4 0 0 2 4;
    Clidr 1 0 0 1;
    // Guest (PL1) state.
    Csselr 2 0 0 0;
    Sctlr 0 1 0 0;
    Actlr 0 1 0 1;
    Cpacr 0 1 0 2;
    Ttbcr 0 2 0 2;
    Dacr 0 3 0 0;
    Dfsr 0 5 0 0;
    Ifsr 0 5 0 1;
    Adfsr 0 5 1 0;
    Aifsr 0 5 1 1;
    Dfar 0 6 0 0;
    Ifar 0 6 0 2;
    Mair0 0 10 2 0;
    Mair1 0 10 2 1;
    Amair0 0 10 3 0;
    Amair1 0 10 3 1;
    Vbar 0 12 0 0;
    Isr 0 12 1 0;
    Fcseidr 0 13 0 0;
    Contextidr 0 13 0 1;
    Tpidrurw 0 13 0 2;
    Tpidruro 0 13 0 3;
    Tpidrprw 0 13 0 4;
    Cntkctl 0 14 1 0;
    CntvCtl 0 14 3 1;
    // Virtualized identification.
    Vpidr 4 0 0 0;
    Vmpidr 4 0 0 5;
    // PL2 control.
    Hcr 4 1 1 0;
    Hdcr 4 1 1 1;
    Hcptr 4 1 1 2;
    Hstr 4 1 1 3;
    Vtcr 4 2 1 2;
    Hsr 4 5 2 0;
    Hdfar 4 6 0 0;
    Hifar 4 6 0 2;
    Hpfar 4 6 0 4;
    Hvbar 4 12 0 0;
    Htpidr 4 13 0 2;
    // Address translation as at PL1 (stage 1 only): write the address, then read PAR.
    Ats1cpr 0 7 8 0;
    Ats1cpw 0 7 8 1;
    // Performance monitors.
    Pmcr 0 9 12 0;
    Pmcntenset 0 9 12 1;
    Pmcntenclr 0 9 12 2;
    Pmovsr 0 9 12 3;
    Pmselr 0 9 12 5;
    Pmccntr 0 9 13 0;
    Pmxevtyper 0 9 13 1;
    Pmxevcntr 0 9 13 2;
    Pmuserenr 0 9 14 0;
    Pmintenset 0 9 14 1;
    Pmintenclr 0 9 14 2;
    Pmovsset 0 9 14 3;
    // Caches and branch predictor.
    Icialluis 0 7 1 0;
    Dccmvac 0 7 10 1;
    Dccimvac 0 7 14 1;
    // TLB.
    Tlbiallhis 4 8 3 0;
    Tlbimvahis 4 8 3 1;
    Tlbiallis 0 8 3 0;
    Tlbimvais 0 8 3 1;
    // Generic timer.
    Cntfrq 0 14 0 0;
    Cnthctl 4 14 1 0;
    CnthpCtl 4 14 2 1;
    CntpCtl 0 14 2 1;
}

// ThumbEE (DDI 0406C.d A2.10). On a host it shares the cells of coprocessor 15, which has no register at this opc1.
registers32! { 14:
    Teecr 6 0 0 0;
    Teehbr 6 1 0 0;
}

registers64! {
    Ttbr0 0 2;
    Ttbr1 1 2;
    Par 0 7;
    Vttbr 6 2;
    Cntpct 0 14;
    CntvCval 3 14;
    Cntvoff 4 14;
    CnthpCval 6 14;
}
