# Sourced by the Makefile's commands and by the scripts: one target folder and one compiler cache for all of them.
# RocksDB takes a quarter of an hour to compile on two cores, so what was built must outlive a checkout.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shared=/var/cache/holdfast

command -v cargo >/dev/null || PATH=$HOME/.cargo/bin:$PATH

if [[ -z ${CARGO_TARGET_DIR:-} ]]; then
    CARGO_TARGET_DIR=$root/target
    [[ -w $shared/target ]] && CARGO_TARGET_DIR=$shared/target
fi
if command -v ccache >/dev/null; then
    : "${CC:=ccache gcc}" "${CXX:=ccache g++}"
    [[ -w $shared/ccache ]] && : "${CCACHE_DIR:=$shared/ccache}"
    export CC CXX ${CCACHE_DIR:+CCACHE_DIR}
fi
export PATH CARGO_TARGET_DIR

needs_root_and_fuse() {
    ((EUID == 0)) || { echo "$1: it makes network namespaces and mounts, which takes root" >&2; exit 1; }
    [[ -e /dev/fuse ]] || { echo "$1: /dev/fuse isn't there: load the kernel's fuse module" >&2; exit 1; }
}
