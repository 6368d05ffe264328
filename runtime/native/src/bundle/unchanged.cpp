#include "bundle/unchanged.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <optional>
#include <system_error>
#include <utility>

#include "bundle/links.h"
#include "bundle/sha256.h"

namespace hart_edge {

namespace {

constexpr std::int64_t SECOND = 1'000'000'000;
constexpr std::int64_t SETTLED = 2 * SECOND;
constexpr const char *VERIFIED = "the file that was verified";
constexpr const char *LOAD_AGAIN = "the bundle was rebuilt, changed or removed meanwhile; load it again";

std::int64_t nanoseconds(const timespec &time) {
    return static_cast<std::int64_t>(time.tv_sec) * SECOND + static_cast<std::int64_t>(time.tv_nsec);
}

}  // namespace

Stamp Stamp::of(const std::string &path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) throw std::system_error(errno, std::generic_category(), "stat");
    return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino),
            static_cast<std::int64_t>(status.st_size), nanoseconds(status.st_mtim), nanoseconds(status.st_ctim)};
}

bool Stamp::is_settled() const {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return nanoseconds(now) - std::max(written, changed) > SETTLED;
}

bool Stamp::operator==(const Stamp &other) const {
    return device == other.device && inode == other.inode && size == other.size && written == other.written &&
           changed == other.changed;
}

VerifiedFiles::VerifiedFiles(std::string root, const Table<FileEntry> &files,
                             const std::map<std::string, Stamp> &stamps)
    : root_(std::move(root)) {
    for (const auto &[name, entry] : files) {
        const Stamp &stamp = stamps.at(name);
        known_.emplace(name, Known{root_ + "/" + name, entry, stamp, stamp.is_settled()});
    }
}

void VerifiedFiles::check(const std::string &name, Known &known) const {
    try {
        const Stamp stamp = Stamp::of(known.path);
        if (stamp == known.stamp && known.settled) return;
        const std::optional<std::string> target = locate(root_, name);
        if (!target) throw std::system_error(ENOENT, std::generic_category(), "stat");
        if (stamp.size != known.entry.bytes || sha256(*target) != known.entry.sha256) {
            refuse(name, VERIFIED, "another", LOAD_AGAIN);
        }
        known.stamp = stamp;
        known.settled = stamp.is_settled();
    } catch (const std::system_error &error) {
        refuse(name, VERIFIED, "none (" + error.code().message() + ")", LOAD_AGAIN);
    }
}

void VerifiedFiles::require(const std::vector<std::string> &names) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const std::string &name : names) check(name, known_.at(name));
}

void VerifiedFiles::require_unwritten(const std::vector<std::string> &names) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const std::string &name : names) {
        const Known &file = known_.at(name);
        const Stamp &known = file.stamp;
        struct stat status {};
        if (::stat(file.path.c_str(), &status) != 0) continue;  // Stamp::of allocates, and this runs often
        const bool same = known.device == static_cast<std::uint64_t>(status.st_dev) &&
                          known.inode == static_cast<std::uint64_t>(status.st_ino);
        if (same && (known.size != static_cast<std::int64_t>(status.st_size) ||
                     known.written != nanoseconds(status.st_mtim))) {
            refuse(name, VERIFIED, "it written over", LOAD_AGAIN);
        }
    }
}

}  // namespace hart_edge
