#include "bundle/verify.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <vector>

#include "bundle/links.h"
#include "bundle/onnx_guard.h"
#include "bundle/sha256.h"

namespace hart_edge {

namespace {

constexpr const char *BUILD = "build one with python -m export.build --precision int8";

std::string read_manifest(const std::string &root) {
    const std::optional<std::string> file = locate(root, MANIFEST_FILE);
    if (!file) refuse(root, std::string("a bundle with ") + MANIFEST_FILE, "none", BUILD);
    const std::int64_t bytes = Stamp::of(*file).size;
    if (bytes > static_cast<std::int64_t>(MOST_MANIFEST_BYTES)) {
        refuse(MANIFEST_FILE, "at most " + std::to_string(MOST_MANIFEST_BYTES) + " bytes", std::to_string(bytes),
               REPAIR);
    }
    return read_file(*file, MOST_MANIFEST_BYTES);
}

// SHA-256 of every file, two at a time: hashing is most of the time that opening takes.
std::vector<std::string> hash_all(const std::vector<std::string> &paths) {
    std::vector<std::string> hashes(paths.size());
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
        for (std::size_t index = next++; index < paths.size(); index = next++) hashes[index] = sha256(paths[index]);
    };
    // The system may refuse a thread; the work is then deferred until get(), which finds nothing left to do.
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

// Compare the sizes of all files first (which finds a truncated copy at once), then their hashes. Returns the stamps
// that the files had when they were hashed.
std::map<std::string, Stamp> verify_files(const std::string &root, const Table<FileEntry> &files) {
    std::vector<std::string> targets;
    std::map<std::string, Stamp> stamps;
    for (const auto &[name, entry] : files) {
        const std::optional<std::string> file = locate(root, name);
        if (!file) refuse(name, "a file of " + std::to_string(entry.bytes) + " bytes", "none", REPAIR);
        const Stamp &stamp = stamps[name] = Stamp::of(*file);
        if (stamp.size != entry.bytes) {
            refuse(name, std::to_string(entry.bytes) + " bytes", std::to_string(stamp.size), REPAIR);
        }
        targets.push_back(*file);
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
    return stamps;
}

std::string folder_of(const std::string &file) {
    const std::size_t slash = file.rfind('/');
    return slash == std::string::npos ? "" : file.substr(0, slash + 1);
}

// The files that lie in a graph's folder or below it, by their paths relative to that folder.
ExternalFiles files_beside(const std::string &graph, const Table<FileEntry> &files) {
    const std::string folder = folder_of(graph);
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

std::vector<std::string> Bundle::beside(const std::string &name) const {
    const std::string around = folder_of(name);
    std::vector<std::string> found;
    for (const auto &[file, entry] : manifest.files) {
        if (file.compare(0, around.size(), around) == 0) found.push_back(file);
    }
    return found;
}

void Bundle::require_unwritten() const {
    verified->require_unwritten(mapped);
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
        std::string text = read_manifest(root.path);
        Bundle bundle{root.path, text, parse(text), {}, {}, {}, {}};
        const std::map<std::string, Stamp> stamps = verify_files(root.path, bundle.manifest.files);
        for (const Component &component : bundle.manifest.components) {
            if (component.profiles) continue;  // engines are opaque; their hash was checked
            const std::string file = bundle.path(component.file);
            const MappedFile graph(file);
            if (check_graph(file, graph.bytes(), files_beside(component.file, bundle.manifest.files))) {
                bundle.with_external_data.insert(component.file);
            }
        }
        if (bundle.manifest.files.find(CONSTANTS_FILE) != nullptr) {
            bundle.constants = MappedFile(bundle.path(CONSTANTS_FILE));
            bundle.mapped.push_back(CONSTANTS_FILE);
        }
        for (const Component &component : bundle.manifest.components) {
            const std::vector<std::string> beside = bundle.beside(component.file);
            bundle.mapped.insert(bundle.mapped.end(), beside.begin(), beside.end());
        }
        std::sort(bundle.mapped.begin(), bundle.mapped.end());
        bundle.mapped.erase(std::unique(bundle.mapped.begin(), bundle.mapped.end()), bundle.mapped.end());
        bundle.verified = std::make_unique<VerifiedFiles>(root.path, bundle.manifest.files, stamps);
        std::vector<std::string> all;
        for (const auto &[name, entry] : bundle.manifest.files) all.push_back(name);
        bundle.verified->require(all);  // the graphs checked and files mapped are those hashed
        return bundle;
    } catch (const std::system_error &error) {  // a file that vanished, or that this user may not read
        refuse(root.path, "a bundle that can be read", error.what(), REPAIR);
    }
}

}  // namespace hart_edge
