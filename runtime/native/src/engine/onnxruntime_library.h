// ONNX Runtime's shared library, loaded and started while the program runs. In: a path, or nothing. Out: its functions.
#pragma once

#include <onnxruntime_c_api.h>

#include <memory>
#include <string>
#include <string_view>

#include "engine/shared_library.h"

namespace hart_edge {

class OnnxRuntimeLibrary {
 public:
    // path: of libonnxruntime.so; empty: the environment's HART_EDGE_ONNXRUNTIME, or else where the system finds it.
    // Throws the engine error.
    explicit OnnxRuntimeLibrary(const std::string &path);

    [[nodiscard]] const OrtApi &api() const { return *api_; }
    [[nodiscard]] const OrtEnv *environment() const { return environment_.get(); }
    [[nodiscard]] std::string name() const { return "ONNX Runtime " + version_; }  // "ONNX Runtime 1.21.0"

    // Nothing for the status of success, and nothing allocated: what a call has made can be taken after it. Else throws
    // the engine error with the library's message between the two texts.
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
