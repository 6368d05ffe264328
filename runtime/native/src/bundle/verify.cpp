#include "bundle/verify.h"

#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <system_error>
#include <vector>

#include "bundle/onnx_guard.h"
#include "bundle/sha256.h"

namespace hart_edge {

namespace {

constexpr const char *BUILD = "build one with python -m export.build --precision int8";
constexpr const char *REPAIR = "copy the bundle again or rebuild it with python -m export.build";

[[noreturn]] void refuse(const std::string &what, const std::string &expected, const std::string &found,
                         const std::string &remedy) {
    throw Error(Status::bundle, what + ": expected " + expected + ", found " + found + "; " + remedy);
}

// An absolute path without links, or why there is none, as errno.
struct Resolved {
    std::string path;
    int fault = 0;
};

Resolved resolve(const std::string &path) {
    struct Free {
        void operator()(char *text) const { std::free(text); }
    };
    const std::unique_ptr<char, Free> resolved(::realpath(path.c_str(), nullptr));
    if (resolved == nullptr) {
        if (errno == ENOMEM) throw std::bad_alloc();
        return {"", errno};
    }
    return {resolved.get(), 0};
}

std::string parent_of(const std::string &path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string &path) {
    return path.substr(path.rfind('/') + 1);
}

bool lies_in(const std::string &path, const std::string &folder) {
    return folder == "/" || path == folder || path.compare(0, folder.size() + 1, folder + "/") == 0;
}

// The regular file behind a name, all links followed, and its size.
struct Located {
    std::string path;
    std::int64_t bytes;
};

// Nothing where there is no such file. Links may lead anywhere inside the folder. One layout may lead out of it: a
// snapshot of a Hugging Face cache, <entry>/snapshots/<revision>/name -> <entry>/blobs/<hash>, where only the name
// itself is the link.
std::optional<Located> locate(const std::string &root, const std::string &name) {
    const std::string path = root + "/" + name;
    const Resolved parent = resolve(parent_of(path));
    const Resolved target = parent.fault == 0 ? resolve(path) : parent;
    if (target.fault == ENOENT) return std::nullopt;
    if (target.fault != 0) refuse(name, "a file", std::generic_category().message(target.fault), REPAIR);
    const std::string above = parent_of(root);
    const bool in_cache = name_of(above) == "snapshots" && parent_of(target.path) == parent_of(above) + "/blobs";
    if (!lies_in(parent.path, root) || (!lies_in(target.path, root) && !in_cache)) {
        refuse(name, "a file inside the bundle", "a link that leads out of it to " + target.path,
               "put a copy of the file in its place");
    }
    struct stat status {};
    if (::stat(target.path.c_str(), &status) != 0) return std::nullopt;
    if (!S_ISREG(status.st_mode)) refuse(name, "a regular file", "something else", REPAIR);
    return Located{target.path, static_cast<std::int64_t>(status.st_size)};
}

std::string read_manifest(const std::string &root) {
    const std::optional<Located> file = locate(root, MANIFEST_FILE);
    if (!file) refuse(root, std::string("a bundle with ") + MANIFEST_FILE, "none", BUILD);
    if (file->bytes > static_cast<std::int64_t>(MOST_MANIFEST_BYTES)) {
        refuse(MANIFEST_FILE, "at most " + std::to_string(MOST_MANIFEST_BYTES) + " bytes", std::to_string(file->bytes),
               REPAIR);
    }
    return read_file(file->path, MOST_MANIFEST_BYTES);
}

// SHA-256 of every file, two at a time: it is most of the time that opening takes, and disks and cores allow it.
std::vector<std::string> hash_all(const std::vector<std::string> &paths) {
    std::vector<std::string> hashes(paths.size());
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
        for (std::size_t index = next++; index < paths.size(); index = next++) hashes[index] = sha256(paths[index]);
    };
    // deferred where no thread is to be had: get() then finds nothing left to do
    std::future<void> other = std::async(std::launch::async | std::launch::deferred, work);
    try {
        work();
    } catch (...) {
        next = paths.size();
        other.wait();
        throw;
    }
    other.get();
    return hashes;
}

// Sizes of all files first (a truncated copy is found at once), then their hashes.
void verify_files(const std::string &root, const Table<FileEntry> &files) {
    std::vector<std::string> targets;
    for (const auto &[name, entry] : files) {
        const std::optional<Located> file = locate(root, name);
        if (!file) refuse(name, "a file of " + std::to_string(entry.bytes) + " bytes", "none", REPAIR);
        if (file->bytes != entry.bytes) {
            refuse(name, std::to_string(entry.bytes) + " bytes", std::to_string(file->bytes), REPAIR);
        }
        targets.push_back(file->path);
    }
    const std::vector<std::string> hashes = hash_all(targets);
    std::size_t index = 0;
    for (const auto &[name, entry] : files) {
        const std::string &found = hashes[index++];
        if (found != entry.sha256) {
            const std::string expected = "sha256 " + entry.sha256.substr(0, 12) + "...";
            refuse(name, expected, found.substr(0, 12) + "...: the file was altered", REPAIR);
        }
    }
}

// The files that lie in a graph's folder or below it, by their names from there.
ExternalFiles files_beside(const std::string &graph, const Table<FileEntry> &files) {
    const std::size_t slash = graph.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : graph.substr(0, slash + 1);
    ExternalFiles beside;
    for (const auto &[name, entry] : files) {
        if (name.compare(0, folder.size(), folder) == 0) beside.emplace(name.substr(folder.size()), entry.bytes);
    }
    return beside;
}

}  // namespace

const char *Bundle::constant(const std::string &name) const {
    return constants.bytes().data() + manifest.constants.find(name)->offset;
}

Bundle open_bundle(const std::string &path) {
    const Resolved root = resolve(path);
    if (root.fault != 0) {
        refuse(path, "a bundle folder", "none (" + std::generic_category().message(root.fault) + ")", BUILD);
    }
    struct stat status {};
    if (::stat(root.path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
        refuse(path, "a bundle folder", "a file", BUILD);
    }
    try {
        Bundle bundle{root.path, parse(read_manifest(root.path)), {}, {}};
        verify_files(root.path, bundle.manifest.files);
        for (const Component &component : bundle.manifest.components) {
            if (component.profiles) continue;  // opaque to all but the library that made it; its hash vouches for it
            const std::string file = bundle.path(component.file);
            const MappedFile graph(file);
            if (check_graph(file, graph.bytes(), files_beside(component.file, bundle.manifest.files))) {
                bundle.with_external_data.insert(component.file);
            }
        }
        if (bundle.manifest.files.find(CONSTANTS_FILE) != nullptr) {
            bundle.constants = MappedFile(bundle.path(CONSTANTS_FILE));
        }
        return bundle;
    } catch (const std::system_error &error) {  // a file that vanished, or that this user may not read
        refuse(root.path, "a bundle that can be read", error.what(), REPAIR);
    }
}

}  // namespace hart_edge
