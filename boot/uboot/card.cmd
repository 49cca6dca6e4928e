# U-Boot script: Krypton and dom0, from the partition that it was found on (docs/uboot.md). `cargo xtask uboot` puts the board's
# numbers and line in place of what stands between at signs.
# One image tree (krypton.itb) is taken if it is there, and otherwise the parts: krypton.uImage, vmlinuz, initrd.gz,
# board.dtb. Modules have addresses and sizes of one cell.
setenv fdt_high 0xffffffff
setenv initrd_high 0xffffffff
if test -e ${devtype} ${devnum}:${distro_bootpart} krypton.itb; then
    load ${devtype} ${devnum}:${distro_bootpart} 0x@20000000@ krypton.itb
    bootm 0x@20000000@
else
    load ${devtype} ${devnum}:${distro_bootpart} 0x@04000000@ krypton.uImage
    load ${devtype} ${devnum}:${distro_bootpart} 0x@08000000@ vmlinuz
    setenv ksize 0x${filesize}
    load ${devtype} ${devnum}:${distro_bootpart} 0x@0c000000@ initrd.gz
    setenv isize 0x${filesize}
    load ${devtype} ${devnum}:${distro_bootpart} 0x@03000000@ board.dtb
    fdt addr 0x@03000000@
    fdt resize 8192
    fdt set /chosen \#address-cells <1>
    fdt set /chosen \#size-cells <1>
    fdt set /chosen xen,xen-bootargs "@XEN@"
    fdt set /chosen xen,dom0-bootargs "@DOM0@"
    fdt mknod /chosen module@@08000000@
    fdt set /chosen/module@@08000000@ compatible "multiboot,kernel" "multiboot,module"
    fdt set /chosen/module@@08000000@ reg <0x@08000000@ ${ksize}>
    fdt mknod /chosen module@@0c000000@
    fdt set /chosen/module@@0c000000@ compatible "multiboot,ramdisk" "multiboot,module"
    fdt set /chosen/module@@0c000000@ reg <0x@0c000000@ ${isize}>
    bootm 0x@04000000@ - 0x@03000000@
fi
echo Krypton was not started
