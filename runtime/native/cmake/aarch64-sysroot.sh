#!/bin/sh
# Usage: aarch64-sysroot.sh FOLDER
#
# Put an arm64 Debian into FOLDER: the C and C++ library, and what the C library of hart-edge is built from and runs on.
# From the sources that this system uses, in lists of FOLDER's own, so that the system keeps its architecture and its
# packages (15 MB to fetch, 100 MB on disk, seconds). Needs apt-get and dpkg-deb, but no root.
set -eu

packages="libstdc++6 libc6-dev libssl-dev libpcre2-dev libutf8proc-dev nlohmann-json3-dev libpng-dev"
folder=$1

refuse() {
    echo "an arm64 sysroot: $*; or copy /lib and /usr of the device into a folder and name that folder:" \
        "-DHART_EDGE_SYSROOT=/path/to/folder" >&2
    exit 1
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || refuse "expected apt-get, found none"
rm -rf "$folder.part"
mkdir -p "$folder.part/apt/lists/partial" "$folder.part/apt/archives/partial"
part=$(cd "$folder.part" && pwd)
: >"$part/apt/status" # nothing is installed there
apt() {
    apt-get -qy -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false \
        -o "Dir::State::Lists=$part/apt/lists" -o "Dir::State::status=$part/apt/status" -o "Dir::Cache=$part/apt" \
        -o "Dir::Cache::archives=$part/apt/archives" -o Debug::NoLocking=true -o APT::Sandbox::User=root "$@" \
        >"$part.log" 2>&1
}

# shellcheck disable=SC2086 # a list
apt update && apt --download-only install $packages ||
    refuse "could not fetch packages for arm64 from this system's sources (see $part.log)"
for package in "$part"/apt/archives/*.deb; do
    dpkg-deb -x "$package" "$part"
done
rm -rf "$part/apt" "$part.log" "$folder"
mv "$part" "$folder"
