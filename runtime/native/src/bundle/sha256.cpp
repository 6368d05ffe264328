#include "bundle/sha256.h"

// libcrypto has assembly for it (SHA extensions of x86 and ARM). Its plain functions need no set-up, no memory and no
// global state, and add 35 KB where they are linked in; OpenSSL 3 marks them deprecated in favour of EVP.
#define OPENSSL_API_COMPAT 0x10100000L
#include <openssl/sha.h>

#include <vector>

#include "bundle/files.h"
#include "errors.h"

namespace hart_edge {

namespace {

constexpr std::size_t BLOCK = std::size_t{1} << 18;  // small enough for the CPU's cache

}  // namespace

std::string sha256(const std::string &path) {
    const OpenFile file(path);
    std::vector<char> block(BLOCK);
    SHA256_CTX context;
    unsigned char digest[SHA256_DIGEST_LENGTH];
    bool good = SHA256_Init(&context) == 1;
    while (const std::size_t count = file.read(block.data(), block.size())) {
        good = good && SHA256_Update(&context, block.data(), count) == 1;
    }
    if (!good || SHA256_Final(digest, &context) != 1) throw Error(Status::bundle, path + ": libcrypto cannot hash");
    std::string hex;
    for (const unsigned char byte : digest) {
        hex += "0123456789abcdef"[byte >> 4];
        hex += "0123456789abcdef"[byte & 15];
    }
    return hex;
}

}  // namespace hart_edge
