// Files for reading: mapped into memory, opened, or read as a whole.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hart_edge {

// A file mapped read-only: the system reads its pages from the disk when they are touched, and may drop them again.
// Throws std::system_error where the system refuses.
class MappedFile {
 public:
    MappedFile() = default;  // has no bytes
    explicit MappedFile(const std::string &path);
    ~MappedFile();
    MappedFile(MappedFile &&other) noexcept;
    MappedFile &operator=(MappedFile &&other) noexcept;
    MappedFile(const MappedFile &) = delete;
    MappedFile &operator=(const MappedFile &) = delete;

    [[nodiscard]] std::string_view bytes() const { return {data_, size_}; }

 private:
    const char *data_ = nullptr;
    std::size_t size_ = 0;
};

// A file descriptor that closes itself. Throws std::system_error where the file cannot be opened.
class OpenFile {
 public:
    explicit OpenFile(const std::string &path);
    ~OpenFile();
    OpenFile(const OpenFile &) = delete;
    OpenFile &operator=(const OpenFile &) = delete;

    [[nodiscard]] int descriptor() const { return descriptor_; }
    [[nodiscard]] std::size_t size() const;
    std::size_t read(char *into, std::size_t most) const;  // bytes read, 0 at the end

 private:
    int descriptor_;
};

// The first `most` bytes of a file, or all of it where it has fewer.
std::string read_file(const std::string &path, std::size_t most);

}  // namespace hart_edge
