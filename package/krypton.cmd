# U-Boot script: Debian as dom0 under Krypton, from the partition that it was found on. What it starts is in krypton.env, which
# update-krypton writes. Where something is missing it ends, and U-Boot goes on to Debian's own script or menu.
# At U-Boot's prompt, `setenv krypton off; boot` starts without Krypton.
test -n "${distro_bootpart}" || setenv distro_bootpart ${bootpart}
setenv krypton_folder
for folder in ${prefix} /boot/; do
    if test -z "${krypton_folder}" && test -e ${devtype} ${devnum}:${distro_bootpart} ${folder}krypton.env; then
        setenv krypton_folder ${folder}
    fi
done
if test "${krypton}" = off; then
    setenv krypton_folder
fi
setenv krypton_files
if test -n "${krypton_folder}"; then
    load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} ${krypton_folder}krypton.env \
    && env import -t ${ramdisk_addr_r} ${filesize} krypton_image krypton_version krypton_options krypton_dom0_options \
    && load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} ${krypton_folder}${krypton_image} \
    && load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} ${krypton_folder}vmlinuz-${krypton_version} \
    && setenv krypton_kernel_size ${filesize} \
    && setexpr krypton_kernel ${ramdisk_addr_r} + 0 \
    && setexpr krypton_initrd ${krypton_kernel} + ${krypton_kernel_size} \
    && setexpr krypton_initrd ${krypton_initrd} + fffff \
    && setexpr krypton_initrd ${krypton_initrd} \& fff00000 \
    && load ${devtype} ${devnum}:${distro_bootpart} ${krypton_initrd} ${krypton_folder}initrd.img-${krypton_version} \
    && setenv krypton_initrd_size ${filesize} \
    && setexpr krypton_fdt ${krypton_initrd} + ${filesize} \
    && setexpr krypton_fdt ${krypton_fdt} + fffff \
    && setexpr krypton_fdt ${krypton_fdt} \& fff00000 \
    && setenv krypton_files loaded
fi
# The board's device tree: the kernel package's, or what flash-kernel has put into the boot folder, or U-Boot's own.
setenv krypton_tree
if test -n "${krypton_files}"; then
    for file in ${krypton_folder}dtbs/${krypton_version}/${fdtfile} /usr/lib/linux-image-${krypton_version}/${fdtfile} \
        ${krypton_folder}dtb-${krypton_version}; do
        if test -z "${krypton_tree}" && test -n "${fdtfile}" && test -e ${devtype} ${devnum}:${distro_bootpart} ${file}; then
            load ${devtype} ${devnum}:${distro_bootpart} ${krypton_fdt} ${file} && setenv krypton_tree ${file}
        fi
    done
    if test -n "${krypton_tree}"; then
        fdt addr ${krypton_fdt}
    else
        fdt addr ${fdtcontroladdr} && fdt move ${fdtcontroladdr} ${krypton_fdt} 100000 && setenv krypton_tree ${fdtcontroladdr}
        fdt addr ${krypton_fdt}
    fi
fi
if test -n "${krypton_tree}"; then
    fdt resize 8192
    fdt set /chosen \#address-cells <1>
    fdt set /chosen \#size-cells <1>
    fdt set /chosen xen,xen-bootargs "${krypton_options}"
    fdt set /chosen xen,dom0-bootargs "${krypton_dom0_options}"
    fdt mknod /chosen krypton-kernel
    fdt set /chosen/krypton-kernel compatible "multiboot,kernel" "multiboot,module"
    fdt set /chosen/krypton-kernel reg <0x${krypton_kernel} 0x${krypton_kernel_size}>
    fdt mknod /chosen krypton-ramdisk
    fdt set /chosen/krypton-ramdisk compatible "multiboot,ramdisk" "multiboot,module"
    fdt set /chosen/krypton-ramdisk reg <0x${krypton_initrd} 0x${krypton_initrd_size}>
    setenv krypton_fdt_high ${fdt_high}
    setenv fdt_high 0xffffffff
    bootz ${kernel_addr_r} - ${krypton_fdt}
    setenv fdt_high ${krypton_fdt_high}
fi
echo Krypton was not started
