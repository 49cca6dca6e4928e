#!/bin/sh
# Fetches Debian's armhf software by package name and unpacks it into the cache folder: dom0's kernel and programs,
# Debian's own hypervisor (to compare with) and Xen's public headers (for layout tests). Nothing of it is installed.
#
# Result: $cache/debian/root, the unpacked packages in one tree; $cache/debian/packages, what it was made of.
# Debian's versions are whatever apt resolves, so a point release changes nothing here. Delete the folder to refresh it.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tests/setup/lib.sh
. tests/setup/lib.sh

kernel_metapackage=linux-image-armmp-lpae
packages='
    busybox-static bash stress-ng
    libc6 libgcc-s1 libcrypt1 zlib1g liblzma5 libbz2-1.0 liblzo2-2 libzstd1 libncurses6 libtinfo6 libuuid1 libfdt1
    libext2fs2 libcom-err2 libyajl2 libnl-3-200 libnl-route-3-200
    xen-utils-4.17 xen-utils-common xenstore-utils libxencall1 libxendevicemodel1 libxenevtchn1 libxenforeignmemory1
    libxengnttab1 libxenhypfs1 libxenmisc4.17 libxenstore4 libxentoolcore1 libxentoollog1
    libapparmor1 libbsd0 libmd0 libegl1 libglvnd0 libgbm1 libgles2
    libdrm2 libexpat1 libwayland-server0 libffi8 libjpeg62-turbo libjudydebian1 libkmod2 libssl3 libsctp1 libxxhash0
    xen-hypervisor-4.17-armhf libxen-dev
    iperf3 libiperf0 rt-tests fio libaio1 libgfapi0 libgfrpc0 libgfxdr0 libglusterfs0 libibverbs1 libnbd0 libnuma1 librados2
    librbd1 librdmacm1 libboost-iostreams1.74.0 libboost-thread1.74.0 libfmt9 libstdc++6 libcryptsetup12 libargon2-1
    libblkid1 libdevmapper1.02.1 libjson-c5 libselinux1 libpcre2-8-0 libudev1 libgnutls30 libp11-kit0 libidn2-0
    libunistring2 libtasn1-6 libnettle8 libhogweed6 libgmp10 libxml2 libicu72 libtirpc3 libgssapi-krb5-2 libkrb5-3
    libk5crypto3 libkrb5support0 libkeyutils1 libacl1
    linux-perf libbabeltrace1 libcap2 libdw1 libelf1 libopencsd1 libperl5.36 libpython3.11 libslang2 libunwind8 libglib2.0-0
    libdb5.3 libaudit1 libcap-ng0
'

main() {
    folder=$cache/debian
    lock_cache
    # shellcheck disable=SC2086 # a list of words
    set -- $packages
    wanted=$*
    [ "$(cat "$folder/packages" 2>/dev/null)" != "$wanted" ] || return 0

    step "reading the package index of Debian bookworm for armhf"
    private_apt_open armhf bookworm bookworm-updates bookworm-security
    kernel=$(private_apt apt-cache depends "$kernel_metapackage" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p')
    [ -n "$kernel" ] || fail "Debian's package $kernel_metapackage names no kernel"

    rm -rf "$cache/debs.partial"
    mkdir "$cache/debs.partial"
    set -- "$@" "$kernel"
    step "downloading $# Debian packages for armhf (about 90 MB), among them $kernel"
    private_apt_download "$cache/debs.partial" "$@"
    unpack
}

# The folder appears under its final name only when complete, so an interruption leaves nothing half done.
unpack() {
    step "unpacking them"
    rm -rf "$folder.new"
    mkdir -p "$folder.new/root"
    for deb in "$cache"/debs.partial/*.deb; do
        dpkg-deb --extract "$deb" "$folder.new/root" || fail "cannot unpack $deb: delete it and try again"
    done
    # For modprobe --show-depends, by which dom0.sh picks modules.
    depmod --basedir "$folder.new/root" "${kernel#linux-image-}"
    printf '%s\n' "$wanted" >"$folder.new/packages"
    rm -rf "$folder"
    mv "$folder.new" "$folder"
    rm -r "$cache/debs.partial"
}

main
