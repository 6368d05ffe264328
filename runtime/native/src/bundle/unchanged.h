// Whether the files of a bundle are still those that were verified: for graphs that are opened later than the bundle
// (hart_edge/bundle/unchanged.py).
//
// A file's stamp changes with every write, replacement or new link. Where it has changed, size and SHA-256 are compared
// again.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "bundle/manifest.h"

namespace hart_edge {

// What the file system says of a file: device and inode tell which file it is, the rest when it was written.
struct Stamp {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    std::int64_t size = 0;
    std::int64_t written = 0;  // nanoseconds
    std::int64_t changed = 0;  // nanoseconds; changes with links and names too, and no program can set it

    static Stamp of(const std::string &path);  // throws std::system_error

    // Whether a write from now on would change the stamp: file systems count time in ticks.
    [[nodiscard]] bool is_settled() const;
    [[nodiscard]] bool operator==(const Stamp &other) const;
};

class VerifiedFiles {
 public:
    // stamps: of every file, taken before it was hashed.
    VerifiedFiles(std::string root, const Table<FileEntry> &files, const std::map<std::string, Stamp> &stamps);

    // Throw the bundle error unless these files are what the manifest lists. Reads only those whose stamps changed.
    // Call it before and after a file is opened. Any thread.
    void require(const std::vector<std::string> &names);

    // Throw the bundle error where one of these was written in place, since a mapping of it changes too. A file that
    // was replaced or removed stays what it was for those who have it open. Any thread.
    void require_unwritten(const std::vector<std::string> &names);

 private:
    struct Known {
        std::string path;
        FileEntry entry;
        Stamp stamp;
        bool settled;
    };
    void check(const std::string &name, Known &known) const;

    std::string root_;
    std::mutex mutex_;
    std::map<std::string, Known> known_;
};

}  // namespace hart_edge
