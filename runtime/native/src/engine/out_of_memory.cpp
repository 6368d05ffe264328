#include "engine/out_of_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

namespace hart_edge {

namespace {

constexpr std::array<std::string_view, 10> WORDS{
    "bad_alloc",    "bad allocation",    "ailed to allocate memory", "annot allocate memory", "ut of memory",
    "not enough memory", "MemoryAllocation", "ALLOC_FAILED", "std::length_error", "max_size"};
constexpr std::uint64_t NONE_FROM = std::uint64_t{1} << 60;  // version 1 reports about 2^63 for no limit
constexpr std::size_t LINE = 4096;

// Call a function with every line of a file of the kernel; does nothing where there is no such file.
template <typename Function>
void each_line(const std::string &path, Function function) {
    struct Close {
        void operator()(std::FILE *file) const { std::fclose(file); }
    };
    const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "re"));
    std::array<char, LINE> line{};
    while (file != nullptr && std::fgets(line.data(), static_cast<int>(line.size()), file.get()) != nullptr) {
        std::string_view text(line.data());
        while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
        function(text);
    }
}

// The number after a word, as in "MemAvailable:   12 kB" or "inactive_file 12"; that of the first line if the word is
// "".
std::optional<std::uint64_t> number(const std::string &path, std::string_view word) {
    std::optional<std::uint64_t> found;
    each_line(path, [&](std::string_view line) {
        if (found || line.substr(0, word.size()) != word) return;
        std::string_view rest = line.substr(word.size());
        while (!rest.empty() && (rest.front() == ' ' || rest.front() == '\t')) rest.remove_prefix(1);
        if (rest.empty() || rest.front() < '0' || rest.front() > '9') return;
        found = std::strtoull(std::string(rest).c_str(), nullptr, 10);
    });
    return found;
}

struct Version {
    const char *folder;
    const char *limit;
    const char *usage;
    const char *cache;  // the entry of memory.stat that counts file pages the kernel may drop
};
constexpr Version V2{"/sys/fs/cgroup", "/memory.max", "/memory.current", "inactive_file "};
constexpr Version V1{"/sys/fs/cgroup/memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes",
                     "total_inactive_file "};

std::optional<std::uint64_t> left_in(const std::string &group, const Version &version) {
    const std::optional<std::uint64_t> limit = number(group + version.limit, "");
    if (!limit || *limit >= NONE_FROM) return std::nullopt;
    const std::uint64_t usage = number(group + version.usage, "").value_or(0);
    const std::uint64_t used = usage - std::min(usage, number(group + "/memory.stat", version.cache).value_or(0));
    return *limit - std::min(*limit, used);
}

void lower(std::optional<std::uint64_t> &least, std::optional<std::uint64_t> other) {
    if (other && (!least || *other < *least)) least = other;
}

// Apply the limits of the process's control group and of all groups above it, up to the mount point: a container sees
// its own group there.
void lower_by_groups(std::optional<std::uint64_t> &least, const std::string &root) {
    each_line(root + "/proc/self/cgroup", [&](std::string_view line) {
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
        if (second == std::string_view::npos) return;
        const std::string controllers = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
        if (controllers != ",," && controllers.find(",memory,") == std::string::npos) return;
        const Version &version = controllers == ",," ? V2 : V1;
        std::string path(line.substr(second + 1));
        for (;;) {
            lower(least, left_in(root + version.folder + path, version));
            if (path.empty()) break;
            const std::size_t slash = path.rfind('/');
            path.resize(slash == std::string::npos ? 0 : slash);
        }
    });
}

std::string mebibytes(std::uint64_t bytes) {
    return std::to_string(bytes >> 20) + " MiB";
}

}  // namespace

bool is_out_of_memory(std::string_view message) {
    const auto said = [message](std::string_view word) { return message.find(word) != std::string_view::npos; };
    return std::any_of(WORDS.begin(), WORDS.end(), said);
}

std::optional<std::uint64_t> available_memory(const std::string &root) {
    std::optional<std::uint64_t> least = number(root + "/proc/meminfo", "MemAvailable:");
    if (least) *least *= 1024;
    lower_by_groups(least, root);
    rlimit addresses{};
    if (::getrlimit(RLIMIT_AS, &addresses) == 0 && addresses.rlim_cur != RLIM_INFINITY) {
        const std::uint64_t limit = addresses.rlim_cur;
        const std::uint64_t taken = number(root + "/proc/self/status", "VmSize:").value_or(0) * 1024;
        lower(least, limit - std::min(limit, taken));
    }
    return least;
}

std::string shortage(std::uint64_t needed, const std::string &reason) {
    const std::optional<std::uint64_t> found = available_memory("");
    return "not enough memory: expected " + mebibytes(needed) + " or more for this bundle's weights and buffers, found " +
           (found ? mebibytes(*found) + " free" : "no more") + " (" + reason +
           "); close other programs, raise the process's limits, or use a smaller bundle (build at int8)";
}

}  // namespace hart_edge
