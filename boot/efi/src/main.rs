//! The image's start under UEFI firmware (UEFI 2.10), position independent: it runs in the firmware's identity map, with its
//! services, and ends them.
//!
//! It finds the device tree and, unless modules are in that already, `krypton.cfg` beside the image and what that names;
//! then it leaves boot services. boot/efi.S turns the MMU off and goes on as for any other boot loader. All that can go
//! wrong comes before the boot services end: a message on the firmware's console, and a clean return.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("krypton-efi is a part of Krypton's image: build that with `make build`");
    std::process::exit(2);
}

#[cfg(target_os = "none")]
mod cpu;
#[cfg(target_os = "none")]
mod firmware;

#[cfg(target_os = "none")]
mod image {
    use core::panic::PanicInfo;

    use dt::Blob;
    use krypton_efi::config::{self, Config};
    use krypton_efi::tree::{self, Kind, Module, Refused};
    use uefi_raw::table::system::SystemTable;
    use uefi_raw::{Handle, Status};

    use crate::cpu;
    use crate::firmware::{Firmware, Folder, Trouble};

    core::arch::global_asm!(include_str!("start.S"), options(raw));

    const CONFIG: &[u8] = b"krypton.cfg";
    /// A kernel, a RAM disk.
    const MODULES: usize = 2;

    /// Returns a status in the low word and, if it is 0, the device tree's address in the high one; the boot services have
    /// ended then, and all that the hypervisor reads is in memory.
    ///
    /// # Safety
    /// `handle` and `table` are what the firmware gave the image; the image is at `image`, `size` bytes with its BSS.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn efi_main(
        handle: Handle,
        table: *mut SystemTable,
        image: usize,
        size: usize,
    ) -> u64 {
        // SAFETY: the caller's promise.
        let firmware = unsafe { Firmware::new(handle, table) };
        match prepare(&firmware) {
            Ok(tree) => {
                cpu::clean(image, size);
                (tree.as_ptr() as u64) << 32
            }
            Err(trouble) => {
                firmware.print(&[b"Krypton: ", trouble.name, trouble.text, b"\r\n"]);
                trouble.status.0 as u64
            }
        }
    }

    fn prepare(firmware: &Firmware) -> Result<&'static [u8], Trouble<'static>> {
        if !cpu::is_in_hyp() {
            return Err(Trouble {
                name: b"",
                text: b"needs HYP mode: the firmware runs in another one, or the CPU has none",
                status: Status::UNSUPPORTED,
            });
        }
        let given = firmware.device_tree();
        let has_modules = |tree| Blob::check(tree).is_ok_and(|tree| tree::has_modules(&tree));
        let tree = match given {
            Some(tree) if has_modules(tree) => {
                firmware.print(&[b"Krypton: boot modules of the device tree\r\n"]);
                tree
            }
            _ => with_files(firmware, given)?,
        };
        firmware.exit_boot_services()?;
        cpu::clean(tree.as_ptr() as usize, tree.len());
        Ok(tree)
    }

    /// Returns the device tree with what the configuration file says.
    fn with_files(
        firmware: &Firmware,
        given: Option<&'static [u8]>,
    ) -> Result<&'static [u8], Trouble<'static>> {
        let (folder, file) = firmware.find(CONFIG)?;
        let config = Config::parse(file).map_err(|error| {
            Trouble::new(
                CONFIG,
                match error {
                    config::Error::NoSection => b": no section of the name that default has",
                    config::Error::NoKernel => b": no kernel in it",
                },
            )
        })?;
        let (name, tree) = match config.tree {
            Some(name) => (name, folder.read(name)?),
            None => (
                &b"device tree"[..],
                given.ok_or(Trouble::new(
                    CONFIG,
                    b": no dtb in it, and none from the firmware",
                ))?,
            ),
        };
        let tree = Blob::check(tree).map_err(|error| {
            Trouble::new(
                name,
                match error {
                    dt::Error::NoTree(_) => b": no device tree",
                    _ => b": damaged",
                },
            )
        })?;
        let mut modules = [None; MODULES];
        modules[0] = Some(load(
            &folder,
            config.kernel,
            Kind::Kernel,
            config.kernel_arguments,
        )?);
        if let Some(name) = config.ramdisk {
            modules[1] = Some(load(&folder, name, Kind::Ramdisk, None)?);
        }

        let room = firmware.allocate(tree::copy_room(&tree, config.options, &modules))?;
        let length = tree::with_modules(&tree, config.options, &modules, room);
        let length = length.map_err(|refused| {
            Trouble::new(
                name,
                match refused {
                    Refused::Cells => b": cells of /chosen are neither 1 nor 2",
                    Refused::NoRoom => b": no room for a copy",
                },
            )
        })?;
        Ok(room.get(..length).unwrap_or_default())
    }

    fn load(
        folder: &Folder,
        name: &'static [u8],
        kind: Kind,
        arguments: Option<&'static [u8]>,
    ) -> Result<Module<'static>, Trouble<'static>> {
        let file = folder.read(name)?;
        folder.firmware.print(&[b"Krypton: ", name, b"\r\n"]);
        cpu::clean(file.as_ptr() as usize, file.len());
        Ok(Module {
            kind,
            address: file.as_ptr() as u32,
            size: file.len() as u32,
            arguments,
        })
    }

    /// There is nobody to tell: an assertion of our own failed in the firmware's world.
    #[panic_handler]
    fn panic(_: &PanicInfo<'_>) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
}
