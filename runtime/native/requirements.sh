#!/bin/sh
# What building and testing the C library needs on Debian or Ubuntu. Finds it, or installs it for root, or says what to
# install. `make native` and `make test` ask first.
set -eu

packages=
need() { # package, and a command that succeeds where it is there
    package=$1
    shift
    "$@" >/dev/null 2>&1 || packages="$packages $package"
}
header() { echo "#include <$1>" | c++ -xc++ -E - >/dev/null 2>&1; }

need cmake command -v cmake
need g++ command -v c++
need make command -v make
need pkg-config command -v pkg-config
need libssl-dev header openssl/sha.h
need libpcre2-dev header pcre2posix.h
need libutf8proc-dev header utf8proc.h
need nlohmann-json3-dev header nlohmann/json.hpp
need libpng-dev header png.h # for examples/c

[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "The C library needs$packages; installing them."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null
    # shellcheck disable=SC2086 # a list
    apt-get install -qy --no-install-recommends $packages >/dev/null && exit 0
fi
echo "the C library (runtime/native) needs packages that are not here; on Debian or Ubuntu:" >&2
echo "  sudo apt-get install$packages" >&2
exit 1
