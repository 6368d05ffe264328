// Where the files of a bundle lie: the folder and a name in, a regular file out. No link leads out of it
// (hart_edge/bundle/links.py).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace hart_edge {

constexpr const char *REPAIR = "copy the bundle again or rebuild it with python -m export.build";

// The bundle error: "WHAT: expected EXPECTED, found FOUND; REMEDY".
[[noreturn]] void refuse(const std::string &what, const std::string &expected, const std::string &found,
                         const std::string &remedy);

// An absolute path without links, or why there is none, as errno.
struct Resolved {
    std::string path;
    int fault = 0;
};
Resolved resolve(const std::string &path);

// The regular file behind a name, all links followed. Nothing where there is no such file; throws the bundle error for
// a link that leads out of `root`, which is resolved. Links may lead anywhere inside the folder. One layout may lead out
// of it: a snapshot of a Hugging Face cache, ENTRY/snapshots/REVISION/ and any depth below it, where a file is a link to
// ENTRY/blobs/HASH.
std::optional<std::string> locate(const std::string &root, const std::string &name);

}  // namespace hart_edge
