//! The kernel image: the boot as a list of steps, then the main loop.
//!
//! boot/head.S turns the MMU on and calls [`hyp_main`], on the boot CPU with interrupts masked, as in all of the
//! hypervisor's code. A step that fails ends the boot with an error line (`boot::fail`).
#![cfg_attr(target_os = "none", no_std, no_main)]
// Errors must be handled: a dropped one may leave a page accessible.
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

    /// A separately built binary (build.rs), aligned as code.
    #[repr(C, align(4))]
    pub struct Code<const SIZE: usize>([u8; SIZE]);

    /// Entered by boot/efi.S: the part that runs under UEFI firmware.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = ".boot.efi")]
    pub static EFI_STUB: Code<{ include_bytes!(concat!(env!("OUT_DIR"), "/efi.bin")).len() }> =
        Code(*include_bytes!(concat!(env!("OUT_DIR"), "/efi.bin")));

    /// Entered by boot/head.S with the physical addresses of device tree and image, the CPSR, and the CPSR at the
    /// image's entry.
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
        let guests = boot::load_guests(&boot::Machine {
            host: &host,
            tree: &tree,
            options,
            uart: uart.as_ref(),
            gic,
            ready,
        });
        drop(nodes);
        boot::drop_boot(&host);
        if !options.conswitch_stay {
            ::log::info!("{}", console::give_input_to_a_domain());
        }
        ::log::info!("Freed boot modules; starting {guests}");
        boot::queue_console(options);
        boot::release_secondaries();
        trap::run(&trap::Cpu {
            id: CpuId::BOOT,
            gic,
            ready,
        })
    }

    /// Entered by boot/secondary.S on every secondary CPU.
    #[unsafe(no_mangle)]
    extern "C" fn hyp_secondary(cpu: u32, has_monitor: u32) -> ! {
        let cpu = CpuId::new(cpu).unwrap_or(CpuId::BOOT);
        if has_monitor != 0 {
            armv7::secure::set_entered(cpu);
        }
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
