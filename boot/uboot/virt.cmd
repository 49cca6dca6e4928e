# U-Boot script: Krypton and dom0 on QEMU's `virt` board, from the partition that it was found on (docs/uboot.md).
# One image tree (krypton.itb) is taken if it is there, and otherwise the parts: krypton.uImage, vmlinuz, initrd.gz.
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
    fdt addr ${fdtcontroladdr}
    fdt move ${fdtcontroladdr} 0x43000000 0x100000
    fdt addr 0x43000000
    fdt resize 8192
    fdt set /chosen \#address-cells <2>
    fdt set /chosen \#size-cells <2>
    fdt set /chosen xen,xen-bootargs "console=dtuart dtuart=/pl011@9000000 dom0_mem=512M"
    fdt set /chosen xen,dom0-bootargs "console=hvc0 earlycon=xenboot"
    fdt mknod /chosen module@48000000
    fdt set /chosen/module@48000000 compatible "multiboot,kernel" "multiboot,module"
    fdt set /chosen/module@48000000 reg <0x0 0x48000000 0x0 ${ksize}>
    fdt mknod /chosen module@4c000000
    fdt set /chosen/module@4c000000 compatible "multiboot,ramdisk" "multiboot,module"
    fdt set /chosen/module@4c000000 reg <0x0 0x4c000000 0x0 ${isize}>
    bootm 0x44000000 - 0x43000000
fi
echo Krypton was not started
