// The CUDA driver as far as a runner needs it: memory, copies, one stream. It is found when a bundle is opened, so that
// the library needs no CUDA to load.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <memory>
#include <string>

#include "engine/shared_library.h"

namespace hart_edge {

// One device and one stream, which everything runs on. Calls may come from any thread, one at a time.
class Cuda {
 public:
    // Throws the engine error without driver or device.
    explicit Cuda(int device);
    ~Cuda();
    Cuda(const Cuda &) = delete;
    Cuda &operator=(const Cuda &) = delete;

    [[nodiscard]] const std::string &architecture() const { return architecture_; }  // "sm_87"
    [[nodiscard]] CUstream stream() const { return stream_; }

    // Make the device the calling thread's, which TensorRT asks for.
    void enter() const;

    // `what` is for the message of a device that has no memory left.
    [[nodiscard]] CUdeviceptr allocate(std::size_t bytes, const std::string &what) const;
    void free(CUdeviceptr address) const noexcept;

    // In the stream's order; `from` may change when the call has returned.
    void upload(CUdeviceptr to, const void *from, std::size_t bytes) const;

    // Waits until the bytes are there; errors of earlier work show here.
    void download(void *to, CUdeviceptr from, std::size_t bytes) const;
    void synchronize() const;

 private:
    void check(CUresult result, const char *name) const;

    SharedLibrary library_;
    struct Functions;
    std::unique_ptr<Functions> call_;
    CUdevice device_ = 0;
    CUstream stream_ = nullptr;
    std::string architecture_;
};

}  // namespace hart_edge
