# U-Boot script: Krypton and dom0 on an Orange Pi PC, from the partition that it was found on (docs/uboot.md).
# One image tree (krypton.itb) is taken if it is there, and otherwise the parts: krypton.uImage, vmlinuz, initrd.gz,
# board.dtb. This board's tree has addresses and sizes of one cell.
setenv fdt_high 0xffffffff
setenv initrd_high 0xffffffff
if test -e ${devtype} ${devnum}:${distro_bootpart} krypton.itb; then
    load ${devtype} ${devnum}:${distro_bootpart} 0x60000000 krypton.itb
    bootm 0x60000000
else
    load ${devtype} ${devnum}:${distro_bootpart} 0x44000000 krypton.uImage
    load ${devtype} ${devnum}:${distro_bootpart} 0x48000000 vmlinuz
    setenv ksize 0x${filesize}
    load ${devtype} ${devnum}:${distro_bootpart} 0x4c000000 initrd.gz
    setenv isize 0x${filesize}
    load ${devtype} ${devnum}:${distro_bootpart} 0x43000000 board.dtb
    fdt addr 0x43000000
    fdt resize 8192
    fdt set /chosen \#address-cells <1>
    fdt set /chosen \#size-cells <1>
    fdt set /chosen xen,xen-bootargs "console=dtuart dtuart=serial0 dom0_mem=512M"
    fdt set /chosen xen,dom0-bootargs "console=hvc0 earlycon=xenboot"
    fdt mknod /chosen module@48000000
    fdt set /chosen/module@48000000 compatible "multiboot,kernel" "multiboot,module"
    fdt set /chosen/module@48000000 reg <0x48000000 ${ksize}>
    fdt mknod /chosen module@4c000000
    fdt set /chosen/module@4c000000 compatible "multiboot,ramdisk" "multiboot,module"
    fdt set /chosen/module@4c000000 reg <0x4c000000 ${isize}>
    bootm 0x44000000 - 0x43000000
fi
echo Krypton was not started
