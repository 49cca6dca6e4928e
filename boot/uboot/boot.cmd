# U-Boot script: Krypton, a dom0 kernel and its RAM disk from the first partition of the boot device (docs/boot.md).
# Made into boot.scr by: mkimage -A arm -O linux -T script -C none -d boot.cmd boot.scr
load ${devtype} ${devnum}:${distro_bootpart} 0x44000000 krypton.uImage
load ${devtype} ${devnum}:${distro_bootpart} 0x50000000 vmlinuz
setenv ksize 0x${filesize}
load ${devtype} ${devnum}:${distro_bootpart} 0x54000000 initrd.gz
setenv isize 0x${filesize}
fdt addr ${fdtcontroladdr}
fdt move ${fdtcontroladdr} 0x4f000000 0x100000
fdt addr 0x4f000000
fdt resize 8192
fdt set /chosen \#address-cells <2>
fdt set /chosen \#size-cells <2>
fdt set /chosen xen,xen-bootargs "console=dtuart dtuart=/pl011@9000000 dom0_mem=384M"
fdt set /chosen xen,dom0-bootargs "console=hvc0"
fdt mknod /chosen module@50000000
fdt set /chosen/module@50000000 compatible "multiboot,kernel" "multiboot,module"
fdt set /chosen/module@50000000 reg <0x0 0x50000000 0x0 ${ksize}>
fdt mknod /chosen module@54000000
fdt set /chosen/module@54000000 compatible "multiboot,ramdisk" "multiboot,module"
fdt set /chosen/module@54000000 reg <0x0 0x54000000 0x0 ${isize}>
setenv fdt_high 0xffffffff
bootm 0x44000000 - 0x4f000000
