// SHA-256 of a file, in hexadecimal.
#pragma once

#include <string>

namespace hart_edge {

// Reads the file once, in blocks. std::system_error where it cannot be read.
std::string sha256(const std::string &path);

}  // namespace hart_edge
