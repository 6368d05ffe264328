#include "bundle/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

namespace hart_edge {

namespace {

[[noreturn]] void fail(const char *what) {
    if (errno == ENOMEM) throw std::bad_alloc();
    throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

OpenFile::OpenFile(const std::string &path) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) fail("open");
}

OpenFile::~OpenFile() {
    ::close(descriptor_);
}

std::size_t OpenFile::size() const {
    struct stat status {};
    if (::fstat(descriptor_, &status) != 0) fail("fstat");
    return static_cast<std::size_t>(status.st_size);
}

std::size_t OpenFile::read(char *into, std::size_t most) const {
    for (;;) {
        const ssize_t count = ::read(descriptor_, into, most);
        if (count >= 0) return static_cast<std::size_t>(count);
        if (errno != EINTR) fail("read");
    }
}

MappedFile::MappedFile(const std::string &path) {
    const OpenFile file(path);
    size_ = file.size();
    if (size_ == 0) return;
    void *mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
    if (mapped == MAP_FAILED) fail("mmap");
    data_ = static_cast<const char *>(mapped);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<char *>(data_), size_);
}

MappedFile::MappedFile(MappedFile &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile &MappedFile::operator=(MappedFile &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

std::string read_file(const std::string &path, std::size_t most) {
    const OpenFile file(path);
    std::string data(std::min(most, file.size()), '\0');
    std::size_t filled = 0;
    while (filled < data.size()) {
        const std::size_t count = file.read(data.data() + filled, data.size() - filled);
        if (count == 0) break;
        filled += count;
    }
    data.resize(filled);
    return data;
}

}  // namespace hart_edge
