// Running out of memory: how engines report it, how much the system has left, and what the caller is told.
#pragma once

#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "errors.h"

namespace hart_edge {

// Whether a library's message means that memory ran out (engines/onnxruntime/session.py has the same list).
bool is_out_of_memory(std::string_view message);

// Bytes that this process could still allocate: the least that the machine, control groups (version 2 and 1) and the
// limit on addresses leave. Nothing where the system does not say. root: "", but for tests
// (hart_edge/bundle/limits.py).
std::optional<std::uint64_t> available_memory(const std::string &root);

// The message. needed: bytes that the bundle needs at least; reason: the message of whoever refused memory.
std::string shortage(std::uint64_t needed, const std::string &reason);

// Run a function; if memory runs out in it, throw the memory error with the bytes that are needed and available.
template <typename Function>
auto with_shortage_told(std::uint64_t needed, Function function) {
    try {
        return function();
    } catch (const Error &error) {
        if (error.status() != Status::memory) throw;
        throw Error(Status::memory, shortage(needed, error.what()));
    } catch (const std::bad_alloc &error) {
        throw Error(Status::memory, shortage(needed, error.what()));
    }
}

}  // namespace hart_edge
