// What a runner needs of the CUDA driver: memory, copies, one stream. The driver is loaded when a bundle is opened, so
// that this library loads without CUDA.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <memory>
#include <string>

#include "engine/shared_library.h"

namespace hart_edge {

// One device, and one stream that everything runs on. Calls may come from any thread, one at a time.
class Cuda {
 public:
    // Throws the engine error where there is no driver or no such device.
    explicit Cuda(int device);
    ~Cuda();
    Cuda(const Cuda &) = delete;
    Cuda &operator=(const Cuda &) = delete;

    [[nodiscard]] const std::string &architecture() const { return architecture_; }  // "sm_87"
    [[nodiscard]] CUstream stream() const { return stream_; }

    // Make the device current on the calling thread, as TensorRT requires.
    void enter() const;

    // `what` says what the memory is for, should the device have none left.
    [[nodiscard]] CUdeviceptr allocate(std::size_t bytes, const std::string &what) const;
    void free(CUdeviceptr address) const noexcept;

    // Copy to the device, in the order of the stream; `from` may change once the call has returned.
    void upload(CUdeviceptr to, const void *from, std::size_t bytes) const;

    // Copy from the device and wait until the bytes are there. Throws errors of earlier work on the stream too.
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
