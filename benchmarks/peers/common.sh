# SPDX-License-Identifier: MIT
#
# What both scripts that build peers share; they source it with BENCHMARKS_DIR as $1, and set `out`
# to the folder that gets the programs, and peers.sh for ../run.
# shellcheck shell=bash
set -u -o pipefail
export LC_ALL=C
CXX='' COMPILER=''
# shellcheck source=/dev/null
. "$1/config.sh"
mkdir -p "$out"
: >"$out/peers.sh"

peer() { # NAME VERSION COMMAND...: it can be measured
    printf 'peers+=(%q) version[%q]=%q command_%s=(' "$1" "$1" "$2" "$1"
    printf '%q ' "${@:3}"
    echo ')'
} >>"$out/peers.sh"
missing() { echo "no column for $1: $2"; }
failed() {
    echo "no column for $1: it does not build; the end of $out/$1.log:"
    tail -n 5 "$out/$1.log" | sed 's/^/    | /'
}
has_header() { echo "#include <$1>" | "$CXX" -std=c++20 "${@:2}" -E -x c++ - >/dev/null 2>&1; }
# macro HEADER NAME [FLAG...]: its value
macro() { printf '#include <%s>\n%s\n' "$1" "$2" | "$CXX" -std=c++20 "${@:3}" -E -P -x c++ - | tail -n 1; }
# newer OUTPUT SOURCE...: is it up to date?
newer() {
    local source
    for source in "${@:2}"; do [[ $1 -nt $source ]] || return 1; done
}
asio_version() {
    local number
    number=$(macro asio/version.hpp ASIO_VERSION)
    echo "Asio $((number / 100000)).$((number / 100 % 1000)).$((number % 100))"
}
libuv_version() { echo "libuv $(macro uv.h 'UV_VERSION_MAJOR.UV_VERSION_MINOR.UV_VERSION_PATCH' | tr -d ' ')"; }

# crate FOLDER [CARGO ARGUMENT...]: compile a copy of it, since cargo writes beside its sources.
crate() {
    mkdir -p "$out/crate/src"
    cp -u "$1/Cargo.toml" "$out/crate/" && cp -u "$1/src/main.rs" "$out/crate/src/" &&
        (cd "$out/crate" && cargo build --release "${@:2}")
}
tokio_version() {
    echo "tokio $(sed -n '/^name = "tokio"$/{n;s/.*"\(.*\)"/\1/p}' "$out/crate/Cargo.lock") with $(rustc --version |
        cut -d ' ' -f 1,2)"
}
go_program() { (cd "$1" && GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -o "$out/go" .); }

# The interpreter of the system's own python3 before one that is a wrapper's; nothing without.
find_python() {
    local python
    python=$(PATH=/usr/bin:$PATH command -v python3) && "$python" -c 'import sys; print(sys.executable)'
}
