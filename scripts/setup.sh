#!/usr/bin/env bash
# Brings a fresh Debian 12 or Ubuntu 24.04 to where `make demo` and `make test` work; installs only what is missing.
# Everything but the Rust toolchain comes from the distribution's packages.
set -euo pipefail

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

packages=(
    # to build
    g++ libclang-dev clang make ccache git
    # to run three nodes on one machine, and the demo's PBX stand-in
    iproute2 iputils-ping fuse3 procps util-linux postgresql
    # what the tests put on the mount and under the store
    # (power cuts lay both file systems over each other on loop devices)
    attr acl e2fsprogs xfsprogs mount rsync fio python3 logrotate nats-server
    # three booted machines, for the tests of systemd's units
    debootstrap systemd-container
)
oldest_rust=1.88

missing_packages() {
    local package
    for package in "${packages[@]}"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

# PostgreSQL is wanted for its programs; no server shall be started beside the PBX of this machine.
without_postgresql_server() {
    local file=/etc/postgresql-common/createcluster.conf
    apt-get install --yes --no-install-recommends postgresql-common
    [[ ! -f $file ]] || sed --in-place --regexp-extended 's/^#?\s*(create_main_cluster)\s*=.*/\1 = false/' "$file"
}

# As above: the tests start their own.
without_nats_service() {
    mkdir --parents /etc/systemd/system
    [[ ! -e /etc/systemd/system/nats-server.service ]] || return 0
    say "nats-server: installed for the tests; its service is masked (\`systemctl unmask nats-server\` lets it start)"
    ln --symbolic /dev/null /etc/systemd/system/nats-server.service
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]} == 0)); then
        say "all ${#packages[@]} packages are there"
        return
    fi
    say "missing packages: ${missing[*]}"
    ((EUID == 0)) || fail "not root, so they can't be installed: run this as root, or install them by hand"
    export DEBIAN_FRONTEND=noninteractive
    say "apt-get update"
    apt-get update --quiet
    [[ " ${missing[*]} " != *" postgresql "* ]] || without_postgresql_server
    [[ " ${missing[*]} " != *" nats-server "* ]] || without_nats_service
    say "apt-get install"
    apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || fail "still missing after the installation: ${missing[*]}"
}

check_rust() {
    command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH
    local version part
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) ||
        fail "no Rust toolchain: install one from https://rustup.rs, version $oldest_rust or newer"
    [[ $(printf '%s\n' "$oldest_rust" "$version" | sort --version-sort | head -n1) == "$oldest_rust" ]] ||
        fail "Rust $version is too old: $oldest_rust or newer is needed (\`rustup update\`)"
    for part in fmt clippy; do
        cargo "$part" --version &>/dev/null && continue
        say "adding cargo $part"
        rustup component add "${part/fmt/rustfmt}" ||
            fail "cargo $part isn't there and rustup can't add it: install it (\`make test\` needs it)"
    done
    say "Rust $version"
}

shared_folders() {
    local shared=/var/cache/holdfast
    if ((EUID == 0)); then
        mkdir --parents "$shared/target" "$shared/ccache"
        say "builds go to $shared/target"
    fi
}

check_fuse() {
    [[ -e /dev/fuse ]] || { ((EUID == 0)) && modprobe fuse 2>/dev/null; } || true
    [[ -e /dev/fuse ]] || say "warning: /dev/fuse isn't there and the kernel's fuse module can't be loaded; building works, running doesn't"
}

command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
    fail "this machine has no apt: on anything but Debian and Ubuntu install by hand: ${packages[*]}"
install_packages
check_rust
shared_folders
check_fuse
say "ready"
