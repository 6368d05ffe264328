// Doors: entry points that only tests use, by ctypes, into parts of the library. A door returns a status, and writes
// the message of an exception into its last argument.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "bundle/verify.h"
#include "errors.h"
#include "bundle/files.h"
#include "bundle/manifest.h"
#include "bundle/onnx_guard.h"
#include "engine/out_of_memory.h"
#include "api/random.h"
#include "api/settings.h"

#define DOOR extern "C" __attribute__((visibility("default")))

namespace {

constexpr std::size_t MESSAGE = 4096;  // bytes of every message buffer

template <typename Check>
int verdict(char *message, Check check) {
    try {
        check();
        message[0] = '\0';
        return HART_EDGE_OK;
    } catch (const hart_edge::Error &error) {
        std::snprintf(message, MESSAGE, "%s", error.what());
        return static_cast<int>(error.status());
    } catch (const std::exception &error) {
        std::snprintf(message, MESSAGE, "%s", error.what());
        return HART_EDGE_INTERNAL_ERROR;
    }
}

}  // namespace

DOOR int door_open_bundle(const char *folder, char *message) {
    return verdict(message, [&] { hart_edge::open_bundle(folder); });
}

// Open a bundle and keep it; later open one of its files.
DOOR void *door_open_later(const char *folder) {
    return new hart_edge::Bundle(hart_edge::open_bundle(folder));
}

DOOR int door_opened(const hart_edge::Bundle *bundle, const char *name, char *message) {
    return verdict(message, [&] { bundle->opened(bundle->beside(name), [] { return 0; }); });
}

DOOR void door_close_later(hart_edge::Bundle *bundle) {
    delete bundle;
}

// Bytes of memory available, -1 where the files below `root` do not say.
DOOR std::int64_t door_available_memory(const char *root) {
    const auto found = hart_edge::available_memory(root);
    return found ? static_cast<std::int64_t>(*found) : -1;
}

DOOR int door_is_out_of_memory(const char *message) {
    return hart_edge::is_out_of_memory(message) ? 1 : 0;
}

DOOR int door_parse(const char *data, std::size_t size, char *message) {
    return verdict(message, [&] { hart_edge::parse(std::string_view(data, size)); });
}

// external: a file of `bytes` bytes that tensors may lie in; NULL for none.
DOOR int door_check_graph(const char *path, const char *external, std::int64_t bytes, char *message) {
    return verdict(message, [&] {
        hart_edge::ExternalFiles files;
        if (external != nullptr) files.emplace(external, bytes);
        const hart_edge::MappedFile graph(path);
        hart_edge::check_graph(path, graph.bytes(), files);
    });
}

DOOR void door_uniform(std::uint64_t seed, std::uint64_t purpose, std::uint64_t scale, std::uint64_t step, float *out,
                       std::size_t n) {
    hart_edge::uniform({seed, purpose, scale, step}, out, n);
}

DOOR void door_normal(std::uint64_t seed, std::uint64_t purpose, std::uint64_t scale, std::uint64_t step, float *out,
                      std::size_t n) {
    hart_edge::normal({seed, purpose, scale, step}, out, n);
}

DOOR float door_uniform_of(std::uint64_t word) {
    return hart_edge::uniform_of(word);
}

DOOR float door_normal_of(std::uint64_t word) {
    return hart_edge::normal_of(word);
}

// Write the element of a setting buffer of `dtype` (an index into Words<Dtype>) for a guidance of `cfg_scale`.
DOOR int door_setting(int dtype, double cfg_scale, void *out, char *message) {
    return verdict(message, [&] {
        hart_edge::Buffer buffer;
        buffer.setting = hart_edge::Setting::cfg_scale;
        buffer.dtype = static_cast<hart_edge::Dtype>(dtype);
        hart_edge::Sampling sampling;
        sampling.set(hart_edge::Setting::cfg_scale, {cfg_scale});
        hart_edge::store_setting(sampling, buffer, out);
    });
}
