//! The kernel image: boot as a list, then the loop.
//!
//! boot/head.S turns the MMU on and calls [`hyp_main`], which runs on the boot CPU with interrupts masked, as all of our
//! code does. Each step either succeeds or ends the boot with one line that says why (`boot::fail`).
#![cfg_attr(target_os = "none", no_std, no_main)]
// A failure is handled where it happens: a dropped error may be a page that somebody still reaches.
#![cfg_attr(
    not(test),
    deny(clippy::let_underscore_must_use, clippy::unused_result_ok)
)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("krypton is a bare-metal image: build it with `make build`");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod boot;

#[cfg(target_os = "none")]
mod image {
    use alloc::vec::Vec;
    use core::panic::PanicInfo;

    use armv7::addr::PhysAddr;
    use armv7::cpu::CpuId;
    use krypton::{console, log, trap};

    use crate::boot;

    core::arch::global_asm!(
        include_str!("../boot/head.S"),
        include_str!("../boot/efi.S"),
        include_str!("../boot/secondary.S"),
        include_str!("../boot/secure.S"),
        options(raw)
    );

    /// Code on its own (build.rs), with the alignment of code.
    #[repr(C, align(4))]
    pub struct Code<const SIZE: usize>([u8; SIZE]);

    /// Entered by boot/efi.S: what runs under UEFI firmware.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = ".boot.efi")]
    pub static EFI_STUB: Code<{ include_bytes!(concat!(env!("OUT_DIR"), "/efi.bin")).len() }> =
        Code(*include_bytes!(concat!(env!("OUT_DIR"), "/efi.bin")));

    /// Entered by boot/head.S: where the boot loader put the device tree and the image, the CPU's mode, and what that was
    /// at entry.
    #[unsafe(no_mangle)]
    extern "C" fn hyp_main(tree: u32, load: u32, cpsr: u32, entry_cpsr: u32) -> ! {
        armv7::heap::init_early();
        armv7::hypmap::init(PhysAddr::new(load.into()).unwrap_or_default());
        log::init();
        let loaded = boot::find_tree(tree, load);
        let mut nodes = Vec::new();
        let tree = boot::read_tree(&loaded, &mut nodes);
        let options = boot::read_options(&tree);
        let uart = boot::start_console(&tree, options);
        boot::check_cpu(cpsr, entry_cpsr);
        let mut host = boot::read_machine(&tree, options);
        boot::prepare_board(&host);
        boot::greet(&host);
        boot::set_up_cpu(CpuId::BOOT);
        boot::set_up_memory(&mut host, &loaded);
        boot::keep_output(options);
        let gic = boot::set_up_interrupts(&mut host, uart.as_ref());
        let cpus = boot::start_cpus(&host, options, gic);
        let ready = boot::set_up_time(&host, options, cpus);
        boot::scrub_memory(options);
        let dom0 = boot::load_dom0(&host, &tree, options, uart.as_ref(), gic, cpus, ready);
        drop(nodes);
        boot::drop_boot(&host);
        if !options.conswitch_stay {
            ::log::info!("{}", console::give_input_to_dom0());
        }
        ::log::info!("Freed boot modules; {dom0} starts");
        boot::queue_console(options);
        boot::release_secondaries();
        trap::run(&trap::Cpu {
            id: CpuId::BOOT,
            gic,
            ready,
        })
    }

    /// Entered by boot/secondary.S on every other CPU.
    #[unsafe(no_mangle)]
    extern "C" fn hyp_secondary(cpu: u32) -> ! {
        let cpu = CpuId::new(cpu).unwrap_or(CpuId::BOOT);
        boot::check_kind(cpu);
        boot::set_up_cpu(cpu);
        trap::run(&boot::join(cpu))
    }

    #[panic_handler]
    fn panic(info: &PanicInfo<'_>) -> ! {
        boot::speak_up();
        krypton::panic::report(info)
    }
}
