// A bundle folder, verified: a path in, a Bundle out whose files may be given to an engine library
// (hart_edge/bundle/verify.py).
//
// Everything is checked before any other library opens a file: the manifest, that no path or link leads out of the
// folder, the size and SHA-256 of every file, and the inside of every graph. Source of the rules: docs/bundle.md.
#pragma once

#include <string>
#include <unordered_set>

#include "bundle/files.h"
#include "bundle/manifest.h"

namespace hart_edge {

// A verified bundle. The files must not change while it is in use.
struct Bundle {
    // The file that manifest.files lists as `name`.
    [[nodiscard]] std::string path(const std::string &name) const { return folder + "/" + name; }

    // The bytes of a constant, mapped from constants.bin: read-only, 64-byte aligned.
    [[nodiscard]] const char *constant(const std::string &name) const;

    std::string folder;
    Manifest manifest;
    std::unordered_set<std::string> with_external_data;  // graphs, by file, whose weights lie in another file
    MappedFile constants;
};

// Verify the bundle at `path`. The error names the file, expected, found and remedy. Reads every byte once.
Bundle open_bundle(const std::string &path);

}  // namespace hart_edge
