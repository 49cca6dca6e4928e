# shellcheck shell=sh
# Shared by the set-up scripts: messages, retries, the cache folder, and Debian packages of another suite or
# architecture through a private apt configuration, so that the user's own system is never changed.

cache=${KRYPTON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/krypton}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

step() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# retry COMMAND...: three tries, since an archive mirror in the middle of an update fails for a moment only.
retry() {
    for pause in 2 6 0; do
        "$@" && return 0
        [ "$pause" = 0 ] || sleep "$pause"
    done
    return 1
}

# Words for apt: a progress display for a person, silence for a log.
apt_verbosity() {
    if [ -t 1 ]; then echo '-q=0'; else echo '-qq'; fi
}

# private_apt TOOL ARGS...: apt-get or apt-cache with the configuration that private_apt_open made.
# docs: apt.conf(5). -o beats every file in /etc/apt/apt.conf.d. Downloads run as the caller: _apt may not enter $HOME.
private_apt() {
    private_tool=$1
    shift
    "$private_tool" \
        -o "Dir::Etc::SourceList=$apt_dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$apt_dir/lists" -o Dir::State::status=/dev/null -o "Dir::Cache=$apt_dir/cache" \
        -o "APT::Architecture=$apt_arch" -o "APT::Architectures::=$apt_arch" \
        -o APT::Sandbox::User="$(id -un)" -o APT::Get::List-Cleanup=false \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        "$@"
}

# Prints the address of Debian's archive for SUITE-like name $1 as this machine's own apt knows it. The origin of a
# source is known only once its index was fetched; a fresh container has none, so fetch them into the cache then.
debian_archive() {
    archive_format='$(REPO_URI) $(ORIGIN) $(CODENAME)'
    archive=$(apt-get indextargets --format "$archive_format" | awk -v suite="$1" '$2 == "Debian" && $3 == suite { print $1; exit }')
    if [ -z "$archive" ]; then
        mkdir -p "$cache/apt/system/partial"
        apt-get -qq -o "Dir::State::Lists=$cache/apt/system" -o APT::Sandbox::User="$(id -un)" update >&2 || true
        archive=$(apt-get -o "Dir::State::Lists=$cache/apt/system" indextargets --format "$archive_format" |
            awk -v suite="$1" '$2 == "Debian" && $3 == suite { print $1; exit }')
    fi
    printf '%s\n' "$archive"
}

# private_apt_open ARCH SUITE...: selects (and fetches, at most once a day) the indexes of SUITEs for ARCH.
# The first suite is needed; one of the others that fails is named and left out.
private_apt_open() {
    apt_arch=$1
    shift
    apt_dir=$cache/apt/$1-$apt_arch
    command -v apt-get >/dev/null || fail "apt-get is missing: the set-up takes its packages from Debian (bookworm)"
    [ -r "$keyring" ] || fail "$keyring is missing: install the package debian-archive-keyring"
    [ -z "$(find "$apt_dir/complete" -mmin -1440 2>/dev/null)" ] || return 0

    mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
    apt_sources=
    for apt_suite in "$@"; do
        private_apt_add_suite "$apt_suite" && continue
        [ "$apt_suite" != "$1" ] || fail "Debian's index $apt_suite ($apt_arch) cannot be read: check the network and try again"
        step "Debian's index $apt_suite ($apt_arch) cannot be read; going on without it"
    done
    : >"$apt_dir/complete"
}

private_apt_add_suite() {
    case $1 in
    *-security) apt_uri=$(debian_archive "$1") ;;
    *) apt_uri=$(debian_archive "$(. /etc/os-release && echo "$VERSION_CODENAME")") ;;
    esac
    [ -n "$apt_uri" ] || return 1
    apt_line="deb [signed-by=$keyring] $apt_uri $1 main"
    printf '%s\n' "$apt_line" >"$apt_dir/sources.list"
    retry private_apt apt-get "$(apt_verbosity)" -o APT::Update::Error-Mode=any update || return 1
    apt_sources="$apt_sources$apt_line
"
    printf '%s' "$apt_sources" >"$apt_dir/sources.list"
}
