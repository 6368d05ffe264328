// Where the files of a bundle lie: its folder and a name in, the path of a regular file out. No link may lead out of
// the folder (hart_edge/bundle/links.py).
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

// The regular file that a name leads to, all links followed; nothing where there is no such file. `root` is the
// bundle's folder without links. Links may lead anywhere inside it; a link that leads out of it is refused with the
// bundle error. One layout is excepted: a snapshot of a Hugging Face cache, ENTRY/snapshots/REVISION/ and any depth
// below it, where a file is a link to ENTRY/blobs/HASH.
std::optional<std::string> locate(const std::string &root, const std::string &name);

}  // namespace hart_edge
