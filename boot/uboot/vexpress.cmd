# U-Boot script: Krypton and dom0 on Versatile Express with a V2P-CA15_A7 tile (TC2), from the partition that it was found
# on (docs/uboot.md). One image tree (krypton.itb) is taken if it is there, and otherwise the parts: krypton.uImage, vmlinuz,
# initrd.gz, board.dtb. U-Boot for this tile is 2021.04 or older.
setenv fdt_high 0xffffffff
setenv initrd_high 0xffffffff
if test -e ${devtype} ${devnum}:${distro_bootpart} krypton.itb; then
    load ${devtype} ${devnum}:${distro_bootpart} 0xa0000000 krypton.itb
    bootm 0xa0000000
else
    load ${devtype} ${devnum}:${distro_bootpart} 0x84000000 krypton.uImage
    load ${devtype} ${devnum}:${distro_bootpart} 0x88000000 vmlinuz
    setenv ksize 0x${filesize}
    load ${devtype} ${devnum}:${distro_bootpart} 0x8c000000 initrd.gz
    setenv isize 0x${filesize}
    load ${devtype} ${devnum}:${distro_bootpart} 0x83000000 board.dtb
    fdt addr 0x83000000
    fdt resize 8192
    fdt set /chosen \#address-cells <2>
    fdt set /chosen \#size-cells <2>
    fdt set /chosen xen,xen-bootargs "console=dtuart dtuart=serial0 dom0_mem=384M"
    fdt set /chosen xen,dom0-bootargs "console=hvc0 earlycon=xenboot"
    fdt mknod /chosen module@88000000
    fdt set /chosen/module@88000000 compatible "multiboot,kernel" "multiboot,module"
    fdt set /chosen/module@88000000 reg <0x0 0x88000000 0x0 ${ksize}>
    fdt mknod /chosen module@8c000000
    fdt set /chosen/module@8c000000 compatible "multiboot,ramdisk" "multiboot,module"
    fdt set /chosen/module@8c000000 reg <0x0 0x8c000000 0x0 ${isize}>
    bootm 0x84000000 - 0x83000000
fi
echo Krypton was not started
