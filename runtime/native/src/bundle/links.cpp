#include "bundle/links.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <new>
#include <system_error>

#include "errors.h"

namespace hart_edge {

namespace {

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

bool is_folder(const std::string &path) {
    struct stat status {};
    return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// The one folder that links of a bundle in a Hugging Face cache may lead to: `blobs` of the nearest cache entry above
// the bundle, where it stands beside `snapshots`. "" for a bundle elsewhere.
std::string blobs_of(const std::string &root) {
    for (std::string above = parent_of(root); above != "/"; above = parent_of(above)) {
        if (name_of(above) != "snapshots") continue;
        const std::string entry = parent_of(above);
        const std::string blobs = (entry == "/" ? "" : entry) + "/blobs";
        if (is_folder(blobs)) return blobs;
    }
    return "";
}

}  // namespace

void refuse(const std::string &what, const std::string &expected, const std::string &found, const std::string &remedy) {
    throw Error(Status::bundle, what + ": expected " + expected + ", found " + found + "; " + remedy);
}

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

std::optional<std::string> locate(const std::string &root, const std::string &name) {
    const std::string path = root + "/" + name;
    const Resolved parent = resolve(parent_of(path));
    const Resolved target = parent.fault == 0 ? resolve(path) : parent;
    if (target.fault == ENOENT) return std::nullopt;
    if (target.fault != 0) refuse(name, "a file", std::generic_category().message(target.fault), REPAIR);
    const bool allowed = lies_in(target.path, root) || parent_of(target.path) == blobs_of(root);
    if (!lies_in(parent.path, root) || !allowed) {  // only a file, never a folder, may be a link to a blob
        refuse(name, "a file inside the bundle", "a link that leads out of it to " + target.path,
               "put a copy of the file in its place");
    }
    struct stat status {};
    if (::stat(target.path.c_str(), &status) != 0) return std::nullopt;
    if (!S_ISREG(status.st_mode)) refuse(name, "a regular file", "something else", REPAIR);
    return target.path;
}

}  // namespace hart_edge
