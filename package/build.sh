#!/bin/sh
# Makes the Debian packages of what is in dist/ (`cargo xtask image`) and target/kmove (tests/setup/kmove.sh):
#   dist/krypton-hypervisor_VERSION_armhf.deb          what is installed
#   dist/krypton-hypervisor-dbgsym_VERSION_armhf.deb   the ELF file with symbols
# The same input gives the same bytes: files carry the time of the last commit, or SOURCE_DATE_EPOCH.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# Who builds packages for others says who answers for them.
maintainer=${KRYPTON_MAINTAINER:-Krypton maintainers <krypton@localhost.localdomain>}

main() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    make_main
    make_symbols
}

make_main() {
    tree=$work/krypton-hypervisor
    cp -r package/root "$tree"
    add 644 dist/krypton "boot/krypton-$version"
    add 644 dist/krypton.uImage "boot/krypton-$version.uImage"
    mkdir -p "$tree/usr/lib/krypton"
    # The same bytes.
    ln -s "/boot/krypton-$version" "$tree/usr/lib/krypton/krypton.efi"
    mkimage -A arm -O linux -T script -C none -n Krypton -d package/krypton.cmd "$tree/usr/lib/krypton/boot.scr" >/dev/null
    add 755 target/kmove/kmove usr/bin/kmove
    for page in package/man/*.8; do
        add_compressed "$page" "usr/share/man/man8/${page##*/}.gz"
    done
    add 644 package/copyright usr/share/doc/krypton-hypervisor/copyright
    add_compressed package/changelog usr/share/doc/krypton-hypervisor/changelog.gz
    add 644 package/lintian-overrides usr/share/lintian/overrides/krypton-hypervisor
    control package/control
    (cd "$tree" && find etc -type f | LC_ALL=C sort | sed 's#^#/#') >"$tree/DEBIAN/conffiles"
    for script in package/scripts/*; do
        add 755 "$script" "DEBIAN/${script##*/}"
    done
    pack krypton-hypervisor
}

make_symbols() {
    tree=$work/krypton-hypervisor-dbgsym
    add 644 dist/krypton.elf "usr/lib/debug/boot/krypton-$version.debug"
    mkdir -p "$tree/usr/share/doc"
    ln -s krypton-hypervisor "$tree/usr/share/doc/krypton-hypervisor-dbgsym"
    control package/control-dbgsym
    pack krypton-hypervisor-dbgsym
}

# add MODE FILE NAME
add() {
    install -D -m "$1" "$2" "$tree/$3"
}

# add_compressed FILE NAME
add_compressed() {
    mkdir -p "$tree/$(dirname "$2")"
    gzip -9n <"$1" >"$tree/$2"
}

# control FILE: with the version and the size filled in.
control() {
    size=$(du -k --apparent-size -s "$tree" | cut -f 1)
    mkdir -p "$tree/DEBIAN"
    sed -e "s/@VERSION@/$version/" -e "s/@SIZE@/$size/" -e "s/@MAINTAINER@/$maintainer/" "$1" >"$tree/DEBIAN/control"
    (cd "$tree" && find . -path ./DEBIAN -prune -o -type f -print | sed 's#^\./##' | LC_ALL=C sort | xargs md5sum) \
        >"$tree/DEBIAN/md5sums"
}

pack() {
    find "$tree" -type d -exec chmod 755 {} +
    chmod 644 "$tree"/DEBIAN/control "$tree"/DEBIAN/md5sums
    [ ! -e "$tree/DEBIAN/conffiles" ] || chmod 644 "$tree/DEBIAN/conffiles"
    find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    dpkg-deb --root-owner-group -Zxz --build "$tree" "dist/$1_${version}_armhf.deb" >/dev/null
    printf 'dist/%s_%s_armhf.deb\n' "$1" "$version"
}

main
