# shellcheck shell=sh
# Shared by the set-up scripts: messages, retries, the cache folder, and Debian packages of another suite or
# architecture through a private apt configuration, so that the user's own apt is never changed.

cache=${KRYPTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/krypton}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Debian keeps depmod and its like out of a user's PATH.
PATH=$PATH:/usr/sbin:/sbin

step() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# retry COMMAND...: three tries, since a mirror in the middle of an update fails only for a moment.
retry() {
    for pause in 2 6 0; do
        "$@" && return 0
        [ "$pause" = 0 ] || sleep "$pause"
    done
    return 1
}

# lock_cache: one set-up script at a time works in the cache, whichever clone it was started from.
lock_cache() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
}

# Words for apt: a progress display for a person, silence for a log.
apt_verbosity() {
    if [ -t 1 ]; then echo '-q=0'; else echo '-qq'; fi
}

# private_apt TOOL ARGS...: apt-get or apt-cache with the configuration that private_apt_open selected.
private_apt() {
    private_tool=$1
    shift
    "$private_tool" -c "$apt_dir/apt.conf" "$@"
}

# private_apt_open ARCH SUITE...: selects the indexes of SUITEs for ARCH, fetching them at most once a day.
# The first suite is needed; another one that fails is named and left out.
private_apt_open() {
    apt_arch=$1
    shift
    apt_dir=$cache/apt/$1-$apt_arch
    command -v apt-get >/dev/null || fail "apt-get is missing: the set-up takes its packages from Debian (bookworm)"
    [ -r "$keyring" ] || fail "$keyring is missing: install the package debian-archive-keyring"
    [ -z "$(find "$apt_dir/complete" -mmin -1440 2>/dev/null)" ] || return 0

    mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
    private_apt_configure
    : >"$apt_dir/sources.good"
    for apt_suite in "$@"; do
        private_apt_add_suite "$apt_suite" && continue
        [ "$apt_suite" != "$1" ] || {
            cat "$apt_dir/update.log" >&2
            fail "cannot read Debian's index $apt_suite ($apt_arch): check the network and try again"
        }
        step "cannot read Debian's index $apt_suite ($apt_arch); going on without it"
    done
    mv "$apt_dir/sources.good" "$apt_dir/sources.list"
    : >"$apt_dir/complete"
}

# apt.conf(5): a file given with -c is read last, so it beats the machine's own configuration.
private_apt_configure() {
    cat >"$apt_dir/apt.conf" <<EOF
Dir::Etc::SourceList "$apt_dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$apt_dir/lists";
Dir::State::status "/dev/null";
Dir::Cache "$apt_dir/cache";
APT::Architecture "$apt_arch";
#clear APT::Architectures;
APT::Architectures { "$apt_arch"; };
APT::Sandbox::User "$(id -un)"; // apt's own user may not enter the caller's cache
APT::Get::List-Cleanup "false"; // the suites are fetched one by one
Acquire::Languages "none";
EOF
}

private_apt_add_suite() {
    apt_uri=$(debian_archive "$1")
    [ -n "$apt_uri" ] || return 1
    apt_line="deb [arch=$apt_arch signed-by=$keyring] $apt_uri $1 main"
    printf '%s\n' "$apt_line" >"$apt_dir/sources.list"
    retry private_apt apt-get "$(apt_verbosity)" -o APT::Update::Error-Mode=any update 2>"$apt_dir/update.log" || return 1
    printf '%s\n' "$apt_line" >>"$apt_dir/sources.good"
}

# private_apt_download FOLDER PACKAGE...: the .deb files, checked by apt against the signed index.
private_apt_download() {
    download_folder=$1
    shift
    (cd "$download_folder" && retry private_apt apt-get "$(apt_verbosity)" download "$@") && return 0
    rm -f "$apt_dir/complete" # a point release may have replaced what the index names: read it anew next time
    fail "cannot download from Debian ($apt_arch): $*; check the network and try again"
}

# Prints the address of the archive that holds suite $1, as this machine's own apt knows it. The origin of a source is
# known only once its index was fetched, which a fresh container has not done: fetch it into the cache then.
debian_archive() {
    case $1 in
    *-security) archive_label=Debian-Security ;;
    *) archive_label=Debian ;;
    esac
    archive=$(known_archive)
    if [ -z "$archive" ]; then
        mkdir -p "$cache/apt/system/partial"
        apt-get -qq -o "Dir::State::Lists=$cache/apt/system" -o "APT::Sandbox::User=$(id -un)" update >&2 || true
        archive=$(known_archive -o "Dir::State::Lists=$cache/apt/system")
    fi
    printf '%s\n' "$archive"
}

known_archive() {
    # shellcheck disable=SC2016 # $(REPO_URI) is apt's own notation
    apt-get "$@" indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' |
        awk -v label="$archive_label" '$2 == "Debian" && $3 == label { print $1; exit }'
}

# Where Debian keeps Rust versions side by side, newest habit first.
rust_suites='trixie-backports trixie testing unstable'

# fetch_rust_src VERSION FOLDER: puts the standard library's source of that compiler into FOLDER/library. The cache is locked.
fetch_rust_src() {
    for suite in $rust_suites; do
        private_apt_open amd64 "$suite"
        package_version=$(private_apt apt-cache madison rust-src |
            awk -v wanted="$1" '{ split($3, part, /[+~-]/) } part[1] == wanted { print $3; exit }')
        [ -n "$package_version" ] || continue
        private_apt_download "$2" "rust-src=$package_version"
        # The rest of the package is the compiler: ten times as large.
        dpkg-deb --fsys-tarfile "$2"/rust-src_*.deb |
            tar -x -C "$2" --strip-components=4 --wildcards './usr/src/rustc-*/library'
        rm "$2"/rust-src_*.deb
        return
    done
    fail "Debian has no rust-src $1 for this compiler: let rustup download (unset RUSTUP_AUTO_INSTALL), or use another Rust"
}
