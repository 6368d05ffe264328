// The C interface: handles, sizes of structures, exceptions turned into statuses. Everything below it is C++.
#include "hart_edge.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "api/pipeline.h"
#include "errors.h"
#include "text/utf8.h"

using hart_edge::Error;
using hart_edge::Pipeline;
using hart_edge::Status;

// An engine's threads and locks do not survive a fork. A forked child abandons its parent's pipeline, neither running
// nor freeing it, and opens its own when it draws.
struct hart_edge_handle {
    hart_edge_handle() = default;
    ~hart_edge_handle() { delete pipeline.load(); }
    hart_edge_handle(const hart_edge_handle &) = delete;
    hart_edge_handle &operator=(const hart_edge_handle &) = delete;

    [[nodiscard]] bool is_inherited() const { return process != ::getpid(); }

    std::atomic<Pipeline *> pipeline{nullptr};  // null where opening failed
    std::atomic<::pid_t> process{::getpid()};   // the process that opened the pipeline
    std::atomic<::pid_t> drawing{0};            // the process that is generating; a child ignores its parent's
    std::string message;
    const char *error = "";  // points to `message`, or to a literal where there was no memory for one
};

namespace {

constexpr const char *NO_MEMORY = "expected memory, found none left; close other programs or use a smaller bundle";

// The sizes that structures had in the first version of the header: no caller's structure is smaller.
constexpr std::size_t LEAST_OPTIONS = sizeof(hart_edge_options);
constexpr std::size_t LEAST_PARAMS = offsetof(hart_edge_params, speed);
constexpr std::size_t LEAST_INFO = offsetof(hart_edge_info, speed);

// Keep a message for hart_edge_last_error as one line of UTF-8; messages of engines may be neither.
hart_edge_status remember(hart_edge_handle *handle, hart_edge_status status, const char *message) noexcept {
    if (handle == nullptr) return status;
    try {
        handle->message = message;
        for (char &c : handle->message) c = static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
        std::size_t at = 0;
        while ((at = hart_edge::utf8::first_invalid(handle->message)) != std::string::npos) handle->message[at] = '?';
        handle->error = handle->message.c_str();
    } catch (...) {
        handle->error = NO_MEMORY;
    }
    return status;
}

// Run a function that may throw, keep its message, and return its status.
template <typename Function>
hart_edge_status guarded(hart_edge_handle *handle, Function function) noexcept {
    try {
        function();
        return HART_EDGE_OK;
    } catch (const Error &error) {
        return remember(handle, static_cast<hart_edge_status>(error.status()), error.what());
    } catch (const std::bad_alloc &) {
        if (handle != nullptr) handle->error = NO_MEMORY;
        return HART_EDGE_OUT_OF_MEMORY;
    } catch (const std::exception &error) {
        return remember(handle, HART_EDGE_INTERNAL_ERROR, error.what());
    } catch (...) {
        return remember(handle, HART_EDGE_INTERNAL_ERROR, "an exception of unknown kind");
    }
}

[[noreturn]] void misuse(const std::string &message) {
    throw Error(Status::argument, message);
}

// A caller's structure as this version knows it: members that an older header lacks are those of `whole`, members that
// a newer header adds must be zero.
template <typename T>
T adopted(const T *given, T whole, std::size_t least, const char *name) {
    const std::size_t size = given->struct_size;
    if (size < least) {
        misuse(std::string(name) + ".struct_size: expected at least " + std::to_string(least) + ", found " +
               std::to_string(size) + "; fill it with hart_edge_default_" + name);
    }
    const char *bytes = reinterpret_cast<const char *>(given);
    if (std::any_of(bytes + std::min(size, sizeof whole), bytes + size, [](char byte) { return byte != 0; })) {
        misuse(std::string(name) + ": expected what this version knows, found more; update the library");
    }
    std::memcpy(&whole, given, std::min(size, sizeof whole));
    return whole;
}

hart_edge_options default_options() {
    hart_edge_options options{};
    options.struct_size = sizeof options;
    options.engine = HART_EDGE_ENGINE_AUTO;
    return options;
}

hart_edge_params default_params() {
    hart_edge_params params{};
    params.struct_size = sizeof params;
    params.count = 1;
    params.cfg_scale = HART_EDGE_CFG_SCALE_OF_BUNDLE;
    params.top_p = HART_EDGE_TOP_P_OF_BUNDLE;
    params.top_k = HART_EDGE_TOP_K_OF_BUNDLE;
    params.smooth = HART_EDGE_SMOOTH_OF_BUNDLE;
    params.speed = HART_EDGE_SPEED_OF_BUNDLE;
    return params;
}

// Write a structure into a caller's of `size` bytes, whose header may be older or newer.
template <typename T>
hart_edge_status give(T value, T *into, std::size_t size, std::size_t least) {
    if (into == nullptr || size < least) return HART_EDGE_INVALID_ARGUMENT;
    std::memset(into, 0, size);
    value.struct_size = static_cast<std::uint32_t>(size);
    std::memcpy(into, &value, std::min(size, sizeof value));
    return HART_EDGE_OK;
}

}  // namespace

extern "C" {

const char *hart_edge_version(void) {
    return HART_EDGE_VERSION;
}

uint32_t hart_edge_abi_version(void) {
    return HART_EDGE_ABI_VERSION;
}

const char *hart_edge_status_text(hart_edge_status status) {
    switch (status) {
        case HART_EDGE_OK: return "no error";
        case HART_EDGE_INVALID_ARGUMENT: return "invalid argument";
        case HART_EDGE_INPUT_ERROR: return "unusable prompt or setting";
        case HART_EDGE_BUNDLE_ERROR: return "unusable bundle";
        case HART_EDGE_ENGINE_ERROR: return "engine failure";
        case HART_EDGE_GENERATION_ERROR: return "no picture";
        case HART_EDGE_CANCELLED: return "cancelled";
        case HART_EDGE_BUSY: return "busy";
        case HART_EDGE_OUT_OF_MEMORY: return "out of memory";
        case HART_EDGE_INTERNAL_ERROR: return "internal error";
        default: return "unknown status";
    }
}

hart_edge_status hart_edge_default_options(hart_edge_options *options, uint32_t struct_size) {
    return give(default_options(), options, struct_size, LEAST_OPTIONS);
}

hart_edge_status hart_edge_default_params(hart_edge_params *params, uint32_t struct_size) {
    return give(default_params(), params, struct_size, LEAST_PARAMS);
}

hart_edge_status hart_edge_open(const char *folder, const hart_edge_options *options, hart_edge_handle **handle) {
    if (handle == nullptr) return HART_EDGE_INVALID_ARGUMENT;
    *handle = new (std::nothrow) hart_edge_handle;
    if (*handle == nullptr) return HART_EDGE_OUT_OF_MEMORY;
    return guarded(*handle, [&] {
        if (folder == nullptr) misuse("folder: expected a path, found NULL; pass the bundle's folder");
        const hart_edge_options all =
            options == nullptr ? default_options() : adopted(options, default_options(), LEAST_OPTIONS, "options");
        (*handle)->pipeline = std::make_unique<Pipeline>(folder, all).release();
    });
}

hart_edge_status hart_edge_get_info(const hart_edge_handle *handle, hart_edge_info *info) {
    const Pipeline *pipeline = handle == nullptr ? nullptr : handle->pipeline.load();
    if (pipeline == nullptr || info == nullptr) return HART_EDGE_INVALID_ARGUMENT;
    hart_edge_info all{};
    pipeline->describe(all);
    return give(all, info, info->struct_size, LEAST_INFO);
}

hart_edge_status hart_edge_generate(hart_edge_handle *handle, const hart_edge_params *params,
                                    hart_edge_image **images) {
    if (handle == nullptr || images == nullptr) return HART_EDGE_INVALID_ARGUMENT;
    ::pid_t drawing = handle->drawing;
    if (drawing == ::getpid() || !handle->drawing.compare_exchange_strong(drawing, ::getpid())) return HART_EDGE_BUSY;
    const hart_edge_status status = guarded(handle, [&] {
        if (params == nullptr)
            misuse("params: expected parameters, found NULL; fill them with hart_edge_default_params");
        const hart_edge_params all = adopted(params, default_params(), LEAST_PARAMS, "params");
        std::fill_n(images, all.count, nullptr);
        if (handle->pipeline == nullptr) misuse("handle: expected an opened bundle, found one whose opening failed");
        if (handle->is_inherited()) {
            handle->pipeline = handle->pipeline.load()->reopened().release();
            handle->process = ::getpid();
        }
        handle->pipeline.load()->generate(all, images);
    });
    handle->drawing = 0;
    return status;
}

void hart_edge_cancel(hart_edge_handle *handle) {
    if (handle == nullptr || handle->is_inherited()) return;
    Pipeline *pipeline = handle->pipeline;
    if (pipeline != nullptr) pipeline->cancel();
}

void hart_edge_image_free(hart_edge_image *image) {
    hart_edge::free_image(image);
}

const char *hart_edge_last_error(const hart_edge_handle *handle) {
    return handle == nullptr ? NO_MEMORY : handle->error;
}

void hart_edge_close(hart_edge_handle *handle) {
    if (handle != nullptr && handle->pipeline.load() != nullptr && handle->is_inherited()) return;
    delete handle;
}

}  // extern "C"
