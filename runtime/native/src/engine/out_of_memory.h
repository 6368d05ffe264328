// Memory that is out: how engines say so, what the system has left, and how a caller is told.
#pragma once

#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "errors.h"

namespace hart_edge {

// Whether a library failed for want of memory, whatever it calls that (engines/onnxruntime/session.py has the same).
bool is_out_of_memory(std::string_view message);

// Bytes that this process could take now: the least of what the machine, control groups (version 2 and 1) and the limit
// on addresses leave. Nothing where the system does not say. root: "" but for tests (hart_edge/bundle/limits.py).
std::optional<std::uint64_t> available_memory(const std::string &root);

// needed: bytes that a bundle takes at least; reason: what was said by whoever refused memory.
std::string shortage(std::uint64_t needed, const std::string &reason);

// Run a function; memory that it is refused is told with what is needed and found.
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
