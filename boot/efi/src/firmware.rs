//! The firmware's services, as safe functions. They are there as long as a [`Firmware`] has not left boot services.

use core::ffi::c_void;
use core::{ptr, slice};

use krypton_efi::path::{self, Name};
use uefi_raw::protocol::device_path::{DevicePathProtocol, DeviceSubType, DeviceType};
use uefi_raw::protocol::file_system::{
    FileAttribute, FileMode, FileProtocolV1, SimpleFileSystemProtocol,
};
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::{AllocateType, BootServices, MemoryDescriptor, MemoryType};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Handle, PhysicalAddress, Status, guid};

/// The configuration table that is a flattened device tree (Embedded Base Boot Requirements 2.3).
const DEVICE_TREE: Guid = guid!("b1b621d5-f19c-41a5-830b-d9152c69aae0");
const PAGE: usize = 4096;
/// The first words of a device tree say how long it is.
const TREE_START: usize = 8;
/// Entries that the memory map may gain while room for it is made.
const SPARE_DESCRIPTORS: usize = 8;

/// Why the boot ends, in words for the console.
#[derive(Clone, Copy)]
pub struct Trouble<'a> {
    /// Its subject, often a file.
    pub name: &'a [u8],
    /// The fault.
    pub text: &'a [u8],
    /// The status for the firmware.
    pub status: Status,
}

impl<'a> Trouble<'a> {
    /// Something that does not fit what the hypervisor needs.
    pub fn new(name: &'a [u8], text: &'a [u8]) -> Self {
        Self {
            name,
            text,
            status: Status::LOAD_ERROR,
        }
    }
}

/// The firmware, until its boot services end.
pub struct Firmware {
    handle: Handle,
    table: *mut SystemTable,
    services: *mut BootServices,
}

impl Firmware {
    /// # Safety
    /// Both are what the firmware entered this image with, and its boot services have not ended.
    pub unsafe fn new(handle: Handle, table: *mut SystemTable) -> Self {
        // SAFETY: the firmware's table is there and has this field.
        let services = unsafe { (*table).boot_services };
        Self {
            handle,
            table,
            services,
        }
    }

    /// Prints texts on the firmware's console.
    pub fn print(&self, texts: &[&[u8]]) {
        // SAFETY: the firmware's table is there until boot services end.
        let console = unsafe { (*self.table).stdout };
        for byte in texts.iter().flat_map(|text| text.iter()) {
            let letter = [u16::from(*byte), 0];
            // SAFETY: the console is there as long as boot services are; the text ends with a zero.
            let _ = unsafe { ((*console).output_string)(console, letter.as_ptr()) };
        }
    }

    /// Returns the firmware's device tree.
    pub fn device_tree(&self) -> Option<&'static [u8]> {
        // SAFETY: the system table says how many configuration tables there are.
        let tables = unsafe {
            let table = &*self.table;
            slice::from_raw_parts(
                table.configuration_table,
                table.number_of_configuration_table_entries,
            )
        };
        let found = tables
            .iter()
            .find(|table| table.vendor_guid == DEVICE_TREE)?;
        let start: *const u8 = found.vendor_table.cast();
        // SAFETY: the table of this GUID is a device tree; it is ours from here on, as the firmware changes it no more.
        let size = dt::size(unsafe { slice::from_raw_parts(start, TREE_START) }).ok()?;
        // SAFETY: as above, and it is so long.
        Some(unsafe { slice::from_raw_parts(start, size) })
    }

    /// Memory below 4 GiB that is a page's multiple long and starts at one.
    pub fn allocate(&self, size: usize) -> Result<&'static mut [u8], Trouble<'static>> {
        let mut at: PhysicalAddress = u32::MAX.into();
        let pages = size.div_ceil(PAGE).max(1);
        // SAFETY: asks for memory, and `at` lives through the call.
        let status = unsafe {
            ((*self.services).allocate_pages)(
                AllocateType::MAX_ADDRESS,
                MemoryType::LOADER_DATA,
                pages,
                &raw mut at,
            )
        };
        check(status, b"memory", b": too little")?;
        let start = ptr::with_exposed_provenance_mut(at as usize);
        // SAFETY: 1. the firmware gave us these pages, mapped at their physical address. 2. nobody else has them. 3. any
        // bytes are valid. 4. they are never freed.
        Ok(unsafe { slice::from_raw_parts_mut(start, pages * PAGE) })
    }

    /// Reads a file beside the image or else at the top of its volume; says where the folder is.
    pub fn find(
        &self,
        file: &'static [u8],
    ) -> Result<(Folder<'_>, &'static [u8]), Trouble<'static>> {
        let image: *mut LoadedImageProtocol =
            self.protocol(self.handle, &LoadedImageProtocol::GUID, file)?;
        // SAFETY: the protocol's structure lives as long as the image.
        let (device, path) = unsafe { ((*image).device_handle, (*image).file_path) };
        let volume: *mut SimpleFileSystemProtocol =
            self.protocol(device, &SimpleFileSystemProtocol::GUID, file)?;
        let mut top = ptr::null_mut();
        // SAFETY: the volume's protocol is there as long as boot services are.
        let status = unsafe { ((*volume).open_volume)(volume, &raw mut top) };
        check(status, file, b": cannot open the volume of the image")?;

        let mut folder = Folder {
            firmware: self,
            top,
            name: path::folder_of(letters(path)),
        };
        match folder.read(file) {
            Ok(bytes) => Ok((folder, bytes)),
            Err(_) => {
                folder.name = path::folder_of([].into_iter());
                let bytes = folder.read(file)?;
                Ok((folder, bytes))
            }
        }
    }

    fn protocol<T>(
        &self,
        handle: Handle,
        guid: &Guid,
        wanted: &'static [u8],
    ) -> Result<*mut T, Trouble<'static>> {
        let mut found: *mut c_void = ptr::null_mut();
        // SAFETY: asks the firmware; everything lives through the call.
        let status = unsafe { ((*self.services).handle_protocol)(handle, guid, &raw mut found) };
        check(
            status,
            wanted,
            b": the image does not come from a volume with files",
        )?;
        Ok(found.cast())
    }

    /// Ends the boot services (UEFI 7.4.6): the memory map must be as it is when they end.
    pub fn exit_boot_services(&self) -> Result<(), Trouble<'static>> {
        const NAME: &[u8] = b"boot services";
        let mut size = 0;
        let _ = self.memory_map(ptr::null_mut(), &mut size);
        // One more than asked for: the memory for the map is in the map.
        let room = self.allocate(size + SPARE_DESCRIPTORS * 2 * size_of::<MemoryDescriptor>())?;
        let mut last = Status::ABORTED;
        // The firmware's own end may change the map once.
        for _ in 0..2 {
            let mut size = room.len();
            let key = self.memory_map(room.as_mut_ptr().cast(), &mut size);
            let key = key.map_err(|status| Trouble {
                name: NAME,
                text: b": no memory map",
                status,
            })?;
            // SAFETY: the handle is this image's. Nothing of the firmware is used once this succeeds.
            last = unsafe { ((*self.services).exit_boot_services)(self.handle, key) };
            if last == Status::SUCCESS {
                return Ok(());
            }
        }
        check(last, NAME, b": they do not end")
    }

    /// Fills `map`, of `size` bytes, and returns its key; sets the size to what it has or needs.
    fn memory_map(&self, map: *mut MemoryDescriptor, size: &mut usize) -> Result<usize, Status> {
        let (mut key, mut entry_size, mut version) = (0, 0, 0);
        // SAFETY: the firmware writes no more than `size` bytes to the map; the rest lives through the call.
        let status = unsafe {
            ((*self.services).get_memory_map)(
                size,
                map,
                &raw mut key,
                &raw mut entry_size,
                &raw mut version,
            )
        };
        match status {
            Status::SUCCESS => Ok(key),
            status => Err(status),
        }
    }
}

/// A folder of the volume that the image comes from.
pub struct Folder<'a> {
    /// Whose it is.
    pub firmware: &'a Firmware,
    top: *mut FileProtocolV1,
    name: Name,
}

impl Folder<'_> {
    /// Reads a file into memory of its own.
    pub fn read<'a>(&self, file: &'a [u8]) -> Result<&'static [u8], Trouble<'a>> {
        let name = path::join(&self.name, file).ok_or(Trouble::new(file, b": name too long"))?;
        let mut open: *mut FileProtocolV1 = ptr::null_mut();
        // SAFETY: the volume is open; the name ends with a zero.
        let status = unsafe {
            ((*self.top).open)(
                self.top,
                &raw mut open,
                name.as_ptr(),
                FileMode::READ,
                FileAttribute::empty(),
            )
        };
        check(status, file, b": not found")?;
        let contents = self.contents(open);
        // SAFETY: it is open, and not used again.
        let _ = unsafe { ((*open).close)(open) };
        contents.map_err(|status| Trouble {
            name: file,
            text: b": cannot be read",
            status,
        })
    }

    fn contents(&self, file: *mut FileProtocolV1) -> Result<&'static [u8], Status> {
        /// A position that stands for the end (UEFI 13.5.8).
        const END: u64 = u64::MAX;
        let mut size = 0;
        // SAFETY: the file is open.
        unsafe {
            result(((*file).set_position)(file, END))?;
            result(((*file).get_position)(file, &raw mut size))?;
            result(((*file).set_position)(file, 0))?;
        }
        let size = usize::try_from(size).map_err(|_| Status::OUT_OF_RESOURCES)?;
        let room = self
            .firmware
            .allocate(size)
            .map_err(|trouble| trouble.status)?;
        let mut read = 0;
        while let Some(rest) = room.get_mut(read..size)
            && !rest.is_empty()
        {
            let mut count = rest.len();
            // SAFETY: the file is open, and there is room for so many bytes.
            result(unsafe { ((*file).read)(file, &raw mut count, rest.as_mut_ptr().cast()) })?;
            if count == 0 {
                return Err(Status::END_OF_FILE);
            }
            read += count;
        }
        room.get(..size).ok_or(Status::DEVICE_ERROR)
    }
}

/// Returns the letters of the file path nodes of a device path (UEFI 10.3.5.4).
fn letters(path: *const DevicePathProtocol) -> impl Iterator<Item = u16> {
    const HEADER: usize = size_of::<DevicePathProtocol>();
    let mut node = path.cast::<u8>();
    let mut at = 0;
    core::iter::from_fn(move || {
        loop {
            if node.is_null() {
                return None;
            }
            // SAFETY: a device path is a row of nodes with their lengths, up to one of the type END.
            let header = unsafe { node.cast::<DevicePathProtocol>().read_unaligned() };
            let length = usize::from(u16::from_le_bytes(header.length));
            let is_file = (header.major_type, header.sub_type)
                == (DeviceType::MEDIA, DeviceSubType::MEDIA_FILE_PATH);
            if header.major_type == DeviceType::END || length < HEADER {
                return None;
            }
            if is_file && HEADER + at + 1 < length {
                // SAFETY: within the node.
                let letter = unsafe { node.add(HEADER + at).cast::<u16>().read_unaligned() };
                at += 2;
                if letter != 0 {
                    return Some(letter);
                }
            }
            // SAFETY: the next node is there, as this is not the last.
            node = unsafe { node.add(length) };
            at = 0;
        }
    })
}

fn result(status: Status) -> Result<(), Status> {
    match status {
        Status::SUCCESS => Ok(()),
        status => Err(status),
    }
}

fn check<'a>(status: Status, name: &'a [u8], text: &'a [u8]) -> Result<(), Trouble<'a>> {
    result(status).map_err(|status| Trouble { name, text, status })
}
