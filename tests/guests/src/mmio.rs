//! Device registers, one single-register load or store per access.
//!
//! `read_volatile` may become a post-indexed or paired access, whose stage 2 abort carries no syndrome (HSR.ISV = 0,
//! DDI 0406C.d B3.13.6): a hypervisor then cannot emulate it. Hence the assembly.

use core::arch::asm;

macro_rules! accessors {
    ($($read:ident, $write:ident, $suffix:literal;)*) => {
        $(
            #[inline(always)]
            pub fn $read(address: u32) -> u32 {
                let value: u32;
                // SAFETY: addresses come from the device tree and lie in the Device part of the identity map; where a
                // test goes beyond that, it does so under `exception::catch`.
                unsafe { asm!(concat!("ldr", $suffix, " {}, [{}]"), out(reg) value, in(reg) address, options(nostack, preserves_flags)) }
                value
            }

            #[inline(always)]
            pub fn $write(address: u32, value: u32) {
                // SAFETY: as for reads.
                unsafe { asm!(concat!("str", $suffix, " {}, [{}]"), in(reg) value, in(reg) address, options(nostack, preserves_flags)) }
            }
        )*
    };
}

accessors! {
    read8, write8, "b";
    read16, write16, "h";
    read32, write32, "";
}
