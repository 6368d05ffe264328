// ONNX Runtime's shared library, loaded at run time. In: a path, or nothing. Out: its functions.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/shared_library.h"

namespace hart_edge {

class OnnxRuntimeLibrary {
 public:
    // path: that of libonnxruntime.so; where empty, the environment's HART_EDGE_ONNXRUNTIME, or else the library that
    // the system finds. Throws the engine error.
    explicit OnnxRuntimeLibrary(const std::string &path);

    [[nodiscard]] const OrtApi &api() const { return *api_; }
    [[nodiscard]] const OrtEnv *environment() const { return environment_.get(); }
    [[nodiscard]] std::string name() const { return "ONNX Runtime " + version_; }  // "ONNX Runtime 1.21.0"

    // Throw the engine error for a status of failure, with the library's message between the two texts. For success it
    // does nothing and allocates nothing, so that an object which the call made can be owned afterwards without a leak.
    void check(OrtStatus *status, std::string_view before, std::string_view after) const;

 private:
    void load(const std::string &path);
    void start();

    SharedLibrary library_;
    const OrtApi *api_ = nullptr;
    std::string version_;
    std::unique_ptr<OrtEnv, void (*)(OrtEnv *)> environment_{nullptr, nullptr};
};

}  // namespace hart_edge
