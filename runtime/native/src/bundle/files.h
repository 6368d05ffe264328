// Files read-only in memory, and whole.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hart_edge {

// A file mapped read-only; its pages come from the disk when they are touched and need no memory of the process's own.
// What the system refuses is thrown as std::system_error.
class MappedFile {
 public:
    MappedFile() = default;  // of no bytes
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

// A file's descriptor, closed at the end. std::system_error where it cannot be opened.
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

// The whole of a file of at most `most` bytes; what lies behind them is left unread.
std::string read_file(const std::string &path, std::size_t most);

}  // namespace hart_edge
