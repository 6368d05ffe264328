// A bundle folder, verified: a path in, a Bundle out whose files may be given to an engine library
// (hart_edge/bundle/verify.py).
//
// Everything is checked before any other library opens a file: the manifest, that no path or link leads out of the
// folder, the size and SHA-256 of every file, and the inside of every graph. Source of the rules: docs/bundle.md.
#pragma once

#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "bundle/files.h"
#include "bundle/manifest.h"
#include "bundle/unchanged.h"

namespace hart_edge {

// A verified bundle. Files that are opened later are compared with what was verified.
struct Bundle {
    // The file that manifest.files lists as `name`.
    [[nodiscard]] std::string path(const std::string &name) const { return folder + "/" + name; }

    // All files in the folder of a file or below it, this one included: where a graph may keep its weights.
    [[nodiscard]] std::vector<std::string> beside(const std::string &name) const;

    // Run a function that opens files. They must be the verified ones before it and after it, also where it throws;
    // else throws the bundle error.
    template <typename Function>
    auto opened(const std::vector<std::string> &names, Function open) const {
        verified->require(names);
        try {
            auto result = open();
            verified->require(names);
            return result;
        } catch (...) {
            verified->require(names);  // names the cause where the engine failed because a file changed
            throw;
        }
    }

    // Throw the bundle error where a file that may be mapped was written in place.
    void require_unwritten() const;

    // The bytes of a constant, mapped from constants.bin: read-only, 64-byte aligned.
    [[nodiscard]] const char *constant(const std::string &name) const;

    std::string folder;
    std::string manifest_text;  // the bytes of manifest.json
    Manifest manifest;
    std::unordered_set<std::string> with_external_data;  // graphs, by file, whose weights lie in another file
    MappedFile constants;
    std::vector<std::string> mapped;  // constants.bin, and the files beside graphs that keep weights in them
    std::unique_ptr<VerifiedFiles> verified;
};

// Verify the bundle at `path`, reading every byte once. The error names the file, what was expected and found, and the
// remedy.
Bundle open_bundle(const std::string &path);

}  // namespace hart_edge
