# Gets what xtask itself is built with: a C compiler and a Rust toolchain. It is read by the shell that then runs cargo
# (`. tests/xtask/bootstrap.sh && cargo xtask …`), since it may have to put cargo into that shell's PATH.
#
# It does nothing, in no time, where both are there. Else, in this order: the machine's packages by apt (as root), the
# toolchain by rustup where there is one, and else the Debian release's rustc and cargo, unpacked into the cache and run
# with their own libraries. Nothing outside the cache is changed but by apt and rustup.

rust_wanted=1.95
suite=${RVM_DEBIAN_SUITE:-trixie}
cache=${RVM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rvm}

give_up() {
    printf 'rvm: %s\n' "$*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Whether the rustc that PATH gives is new enough.
rust_is_new() {
    have cargo && have rustc || return 1
    found=$(rustc --version 2>/dev/null | cut -d ' ' -f 2)
    [ -n "$found" ] && [ "$(printf '%s\n%s\n' "$rust_wanted" "$found" | sort -V | head -n 1)" = "$rust_wanted" ]
}

install_packages() {
    if [ "$(id -u)" != 0 ] || ! have apt-get; then
        give_up "please install $* (on Debian and Ubuntu: sudo apt-get install $*), then try again"
    fi
    echo "installing $* (about a minute) ..." >&2
    apt-get -q update >&2 || true
    DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@" >&2 || give_up "apt-get could not install $*"
}

# The Debian mirror of this machine's apt: the main archive's, not the security one.
debian_mirror() {
    [ -n "${RVM_DEBIAN_MIRROR:-}" ] && printf '%s\n' "$RVM_DEBIAN_MIRROR" && return
    apt-get indextargets --format '$(SITE) $(COMPONENT) $(CREATED_BY)' 2>/dev/null |
        sed -n 's#/* main Packages$##p' | grep '/debian$' | head -n 1
}

# A private apt: $1 is its folder, the rest its command.
private_apt() {
    home=$1
    shift
    apt-get -q -o Dir::Etc::SourceList="$home/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State::Lists="$home/lists" -o Dir::State::status="$home/status" -o Dir::Cache="$home/cache" \
        -o APT::Sandbox::User=root -o Debug::NoLocking=true -o Acquire::Languages=none "$@" >"$home/log" 2>&1 && return
    cat "$home/log" >&2
    return 1
}

# Unpacks the release's rustc and cargo into $1.
unpack_rust() {
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || give_up "Rust $rust_wanted or later is needed: install it with rustup, or set RVM_DEBIAN_MIRROR"
    apt=$1/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" && : >"$apt/status" || return 1
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keyring" ] && signed=" signed-by=$keyring" || signed=
    echo "deb [target=Packages$signed] $mirror $suite main" >"$apt/sources.list"
    private_apt "$apt" update &&
        private_apt "$apt" -y --no-install-recommends --download-only install \
            rustc-web cargo-web rust-web-clippy rustfmt-web || return 1
    for package in "$apt"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$1/root" || return 1
    done
    rm -rf "$apt"
}

# Writes the script $1 that runs the program $2 below $3, the script's way to the root, with the libraries beside it, after
# the lines $4 and with the options $5.
write_script() {
    cat >"$1" <<SCRIPT
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/$3
for loader in "\$root"/lib64/ld-linux-*.so.* "\$root"/lib/ld-linux-*.so.*; do [ -e "\$loader" ] && break; done
for libc in "\$root"/lib/*/libc.so.6; do :; done
$4
exec "\$loader" --argv0 $2 --library-path "\${libc%/*}:\$root/lib" "\$root/bin/$2" $5 "\$@"
SCRIPT
    chmod 755 "$1"
}

# The scripts of the toolchain in $1. Some programs look for others beside what they take for themselves, the loader.
write_scripts() {
    for program in rustc rustdoc; do
        write_script "$1/bin/$program" $program ../root/usr '' '--sysroot "$root"'
    done
    write_script "$1/bin/cargo" cargo ../root/usr 'export CARGO="$(readlink -f "$0")"' ''
    write_script "$1/bin/cargo-fmt" cargo-fmt ../root/usr 'export RUSTFMT="$(dirname "$(readlink -f "$0")")/rustfmt"' ''
    for program in cargo-clippy rustfmt; do
        write_script "$1/bin/$program" $program ../root/usr '' ''
    done
    for libc in "$1"/root/usr/lib/*/libc.so.6; do
        write_script "${libc%/*}/clippy-driver" clippy-driver ../.. 'export SYSROOT="$root"' ''
    done
}

# The release's toolchain in the cache: made under a name of its own and then renamed, so that no half of it is ever used.
debian_rust() {
    place=$cache/rust-$suite
    if [ ! -d "$place" ]; then
        have apt-get && have dpkg-deb || give_up "Rust $rust_wanted or later is needed: install it with rustup"
        echo "fetching Rust of Debian $suite (about 30 s) ..." >&2
        half=$cache/.rust-$suite.$$
        mkdir -p "$half/bin" && unpack_rust "$half" || give_up "cannot fetch Rust of Debian $suite"
        write_scripts "$half"
        mv -T "$half" "$place" 2>/dev/null || rm -rf "$half"
    fi
    export PATH="$place/bin:$PATH" RUSTC="$place/bin/rustc" RUSTDOC="$place/bin/rustdoc"
}

have cc && [ -e /etc/ssl/certs/ca-certificates.crt ] || install_packages gcc libc6-dev ca-certificates
[ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
if ! rust_is_new && have rustup; then
    echo "fetching Rust by rustup (about a minute) ..." >&2
    rustup toolchain install stable --profile minimal --component clippy --component rustfmt >&2 &&
        export RUSTUP_TOOLCHAIN=stable || true
fi
rust_is_new || debian_rust
rust_is_new || give_up "Rust $rust_wanted or later is needed, and neither rustup nor Debian $suite gave it"
