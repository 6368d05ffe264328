// The one exception of the library: a status for the caller's program and a message for its user.
//
// Thrown anywhere inside, caught at the C border (hart_edge.cpp), which is the only place that knows of handles.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "hart_edge.h"

namespace hart_edge {

// The statuses of hart_edge.h; the Python class of the same error stands beside each.
enum class Status : hart_edge_status {
    argument = HART_EDGE_INVALID_ARGUMENT,    // the program calls the library wrongly: no counterpart
    input = HART_EDGE_INPUT_ERROR,            // InputError
    bundle = HART_EDGE_BUNDLE_ERROR,          // BundleError
    engine = HART_EDGE_ENGINE_ERROR,          // EngineError
    generation = HART_EDGE_GENERATION_ERROR,  // GenerationError
    cancelled = HART_EDGE_CANCELLED,          // closing the iterator
    memory = HART_EDGE_OUT_OF_MEMORY,         // MemoryError
};

// The message says what was expected, what was found, and what to do.
class Error : public std::exception {
 public:
    Error(Status status, std::string message) : status_(status), message_(std::move(message)) {}

    [[nodiscard]] Status status() const noexcept { return status_; }
    [[nodiscard]] const char *what() const noexcept override { return message_.c_str(); }

 private:
    Status status_;
    std::string message_;
};

}  // namespace hart_edge
