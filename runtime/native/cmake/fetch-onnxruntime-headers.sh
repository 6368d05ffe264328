#!/bin/sh
# Usage: fetch-onnxruntime-headers.sh FOLDER
#
# Put ONNX Runtime's C header into FOLDER/include, from Debian's package libonnxruntime-dev. Where this system has no
# such package, Debian 13 is listed beside its own sources: in files of FOLDER, so that the system keeps its own. The
# mirror is the one that this system uses. Needs apt-get and dpkg-deb, but no root.
set -eu

suite=trixie # the first Debian release with the package
package=libonnxruntime-dev
folder=$1

refuse() {
    echo "ONNX Runtime's header: $*; unpack an official release of ONNX Runtime and name its folder:" \
        "-DONNXRUNTIME_ROOT=/path/to/onnxruntime-linux-x64-1.21.0" >&2
    exit 1
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || refuse "expected apt-get, found none"
mkdir -p "$folder/debs" "$folder/apt/lists/partial" "$folder/apt/archives/partial"

download() { # options of apt-get
    (cd "$folder/debs" && apt-get -q "$@" download "$package") >"$folder/apt/log" 2>&1
}

if ! download; then
    site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1)
    [ -n "$site" ] || refuse "expected $package among this system's packages or a Debian mirror, found neither"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -f "$keys" ] || refuse "expected Debian's keys in $keys, found none"
    echo "deb [signed-by=$keys] $site $suite main" >"$folder/apt/sources.list"
    set -- -o "Dir::Etc::SourceList=$folder/apt/sources.list" -o "Dir::State::Lists=$folder/apt/lists" \
        -o "Dir::Cache=$folder/apt" -o "Dir::Cache::archives=$folder/apt/archives"
    apt-get -q "$@" -o "Dir::Etc::SourceParts=-" update >"$folder/apt/log" 2>&1 &&
        download "$@" -o "Dir::Etc::SourceParts=-" -t "$suite" ||
        refuse "could not fetch $package of $suite from $site (see $folder/apt/log)"
fi
dpkg-deb -x "$folder"/debs/"$package"_*.deb "$folder/root"
header=$(find "$folder/root" -name onnxruntime_c_api.h | head -n 1)
[ -n "$header" ] || refuse "expected onnxruntime_c_api.h in $package, found none"
rm -rf "$folder/include"
mv "$(dirname "$header")" "$folder/include"
rm -rf "$folder/root" "$folder/apt"
