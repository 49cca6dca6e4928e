//! The kernel image.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("krypton is a bare-metal image: build it with `make build`");
    std::process::exit(2);
}
#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("../boot/head.S"), include_str!("../boot/secondary.S"), options(raw));

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn hyp_main(dtb: u32, load: u32, cpsr: u32) -> ! {
    use armv7::addr::PhysAddr;
    armv7::hypmap::init(PhysAddr::new(load as u64).unwrap());
    let u = armv7::hypmap::map_device(PhysAddr::new(0x0900_0000).unwrap(), 0x1000).unwrap();
    for b in b"hello from hyp_main\r\n" {
        u.write8(0, *b);
    }
    if cpsr & 0x1f == 0x1a {
        let bad = armv7::smp::init_cpu(armv7::cpu::CpuId::BOOT);
        for b in bad { if let Some(m) = b { for c in m.register.bytes() { u.write8(0, c); } } }
        armv7::hypmap::guard_stacks();
    let t = armv7::hypmap::map_device_tree(PhysAddr::new(dtb as u64).unwrap());
    if t.is_ok() { for b in b"tree\r\n" { u.write8(0, *b); } }
    let t = armv7::smp::probe_read(0x3300_0000);
    if t.is_none() { for b in b"probe\r\n" { u.write8(0, *b); } }
    }
    loop {}
}
#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn hyp_secondary(_cpu: u32) -> ! { loop {} }

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
