// A fake CUDA driver: device memory is memory of the process, filled with 0xAA until it is written, and work is done at
// once. It has the soname of the driver, so that a process which has loaded it finds it by that name.
//
// HART_EDGE_FAKE_ARCHITECTURE: compute capability times ten, by default 86; HART_EDGE_FAKE_MEMORY: bytes of the device;
// HART_EDGE_FAKE_DEVICES: how many devices there are, by default 1.
#include <cuda.h>

#include <cstdlib>
#include <cstring>
#include <map>

namespace {

std::map<CUdeviceptr, size_t> allocated;
size_t in_use = 0;
long copied[2] = {0, 0};  // bytes to the device, and from it

long setting(const char *name, long otherwise) {
    const char *text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtol(text, nullptr, 10);
}

// Whether bytes lie in one allocation.
bool inside(CUdeviceptr address, size_t bytes) {
    auto after = allocated.upper_bound(address);
    if (after == allocated.begin()) return false;
    --after;
    return address + bytes <= after->first + after->second;
}

}  // namespace

extern "C" {

size_t fake_cuda_in_use(void) {
    return in_use;
}
long fake_cuda_copied(int from_device) {
    return copied[from_device];
}

CUresult cuInit(unsigned int) {
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "invalid argument";
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int *count) {
    *count = static_cast<int>(setting("HART_EDGE_FAKE_DEVICES", 1));
    return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    const long architecture = setting("HART_EDGE_FAKE_ARCHITECTURE", 86);
    const bool major = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    *value = static_cast<int>(major ? architecture / 10 : architecture % 10);
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice) {
    *context = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
    return CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext) {
    return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream *stream, unsigned int) {
    *stream = nullptr;
    return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream) {
    return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream) {
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes) {
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    if (in_use + bytes > static_cast<size_t>(setting("HART_EDGE_FAKE_MEMORY", 1L << 40)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    void *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (memory == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    std::memset(memory, 0xAA, bytes);
    *address = reinterpret_cast<CUdeviceptr>(memory);
    allocated[*address] = bytes;
    in_use += bytes;
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr address) {
    const auto found = allocated.find(address);
    if (found == allocated.end()) return CUDA_ERROR_INVALID_VALUE;
    in_use -= found->second;
    allocated.erase(found);
    std::free(reinterpret_cast<void *>(address));
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream) {
    if (!inside(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    std::memcpy(reinterpret_cast<void *>(to), from, bytes);
    copied[0] += static_cast<long>(bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream) {
    if (!inside(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
    std::memcpy(to, reinterpret_cast<const void *>(from), bytes);
    copied[1] += static_cast<long>(bytes);
    return CUDA_SUCCESS;
}

}  // extern "C"
