#include "engine/cuda_driver.h"

#include "errors.h"

namespace hart_edge {

#define HART_EDGE_TEXT(name) #name
// Find a function by the versioned name that the header defines for it: cuMemAlloc is cuMemAlloc_v2.
#define HART_EDGE_FUNCTION(name) decltype(&::name) name = find<decltype(&::name)>(HART_EDGE_TEXT(name))

struct Cuda::Functions {
    const SharedLibrary &library;

    template <typename Function>
    [[nodiscard]] Function find(const char *name) const {
        const auto found = library.find<Function>(name);
        if (found == nullptr) {
            throw Error(Status::engine, std::string("expected an NVIDIA driver with ") + name +
                                            ", found an older one; update the driver");
        }
        return found;
    }

    HART_EDGE_FUNCTION(cuInit);
    HART_EDGE_FUNCTION(cuGetErrorString);
    HART_EDGE_FUNCTION(cuDeviceGetCount);
    HART_EDGE_FUNCTION(cuDeviceGet);
    HART_EDGE_FUNCTION(cuDeviceGetAttribute);
    HART_EDGE_FUNCTION(cuDevicePrimaryCtxRetain);
    HART_EDGE_FUNCTION(cuDevicePrimaryCtxRelease);
    HART_EDGE_FUNCTION(cuCtxSetCurrent);
    HART_EDGE_FUNCTION(cuStreamCreate);
    HART_EDGE_FUNCTION(cuStreamDestroy);
    HART_EDGE_FUNCTION(cuStreamSynchronize);
    HART_EDGE_FUNCTION(cuMemAlloc);
    HART_EDGE_FUNCTION(cuMemFree);
    HART_EDGE_FUNCTION(cuMemcpyHtoDAsync);
    HART_EDGE_FUNCTION(cuMemcpyDtoHAsync);
    CUcontext context = nullptr;
};

Cuda::Cuda(int device) : library_({"libcuda.so.1", "libcuda.so"}) {
    if (!library_) {
        throw Error(Status::engine, "expected an NVIDIA driver (libcuda.so.1), found none that loads (" +
                                        library_.fault() +
                                        "); install it (on Jetson it comes with JetPack; in a container pass the GPU "
                                        "through), or use a bundle for cpu");
    }
    call_.reset(new Functions{library_});
    int count = 0;
    if (call_->cuInit(0) != CUDA_SUCCESS || call_->cuDeviceGetCount(&count) != CUDA_SUCCESS || device >= count ||
        device < 0) {
        throw Error(Status::engine, "expected CUDA device " + std::to_string(device) + ", found " +
                                        std::to_string(count) + " devices; name another, or use a bundle for cpu");
    }
    check(call_->cuDeviceGet(&device_, device), "cuDeviceGet");
    int major = 0;
    int minor = 0;
    check(call_->cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device_),
          "cuDeviceGetAttribute");
    check(call_->cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device_),
          "cuDeviceGetAttribute");
    architecture_ = "sm_" + std::to_string(major) + std::to_string(minor);
    check(call_->cuDevicePrimaryCtxRetain(&call_->context, device_), "cuDevicePrimaryCtxRetain");
    try {
        enter();
        check(call_->cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    } catch (...) {
        call_->cuDevicePrimaryCtxRelease(device_);
        throw;
    }
}

Cuda::~Cuda() {
    call_->cuCtxSetCurrent(call_->context);
    call_->cuStreamDestroy(stream_);
    call_->cuDevicePrimaryCtxRelease(device_);
}

void Cuda::enter() const {
    check(call_->cuCtxSetCurrent(call_->context), "cuCtxSetCurrent");
}

CUdeviceptr Cuda::allocate(std::size_t bytes, const std::string &what) const {
    CUdeviceptr address = 0;
    const CUresult result = call_->cuMemAlloc(&address, bytes == 0 ? 1 : bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        throw Error(Status::memory, "expected " + std::to_string(bytes) + " bytes on the GPU for " + what +
                                        ", found fewer; close what else uses it or take a smaller bundle");
    }
    check(result, "cuMemAlloc");
    return address;
}

void Cuda::free(CUdeviceptr address) const noexcept {
    call_->cuCtxSetCurrent(call_->context);
    call_->cuMemFree(address);
}

void Cuda::upload(CUdeviceptr to, const void *from, std::size_t bytes) const {
    if (bytes > 0) check(call_->cuMemcpyHtoDAsync(to, from, bytes, stream_), "cuMemcpyHtoDAsync");
}

void Cuda::download(void *to, CUdeviceptr from, std::size_t bytes) const {
    if (bytes > 0) check(call_->cuMemcpyDtoHAsync(to, from, bytes, stream_), "cuMemcpyDtoHAsync");
    synchronize();
}

void Cuda::synchronize() const {
    check(call_->cuStreamSynchronize(stream_), "cuStreamSynchronize");
}

void Cuda::check(CUresult result, const char *name) const {
    if (result == CUDA_SUCCESS) return;
    const char *text = nullptr;
    call_->cuGetErrorString(result, &text);
    throw Error(Status::engine, std::string("CUDA failed in ") + name + ": " +
                                    (text == nullptr ? "error " + std::to_string(result) : text) +
                                    "; close the bundle and open it again");
}

}  // namespace hart_edge
