#include "engine/onnxruntime_library.h"

#include <algorithm>
#include <cstdlib>

#include "engine/out_of_memory.h"
#include "errors.h"

namespace hart_edge {

namespace {

constexpr const char *VARIABLE = "HART_EDGE_ONNXRUNTIME";
constexpr const char *NO_TELEMETRY = "ORT_DISABLE_TELEMETRY";
const std::vector<std::string> DEFAULTS{"libonnxruntime.so.1", "libonnxruntime.so"};
constexpr unsigned OLDEST = 20;  // as in pyproject.toml: the oldest that the graphs are tested with
constexpr const char *REMEDY =
    "; install ONNX Runtime and name its libonnxruntime.so in HART_EDGE_ONNXRUNTIME or hart_edge_options";

// The minor version, 21 in "1.21.0"; 0 where the major version is not 1.
unsigned minor_of(const std::string &version) {
    if (version.compare(0, 2, "1.") != 0) return 0;
    return static_cast<unsigned>(std::strtoul(version.c_str() + 2, nullptr, 10));
}

// Drops the log of ONNX Runtime: whatever matters comes back as a status.
void ORT_API_CALL no_log(void * /*own*/, OrtLoggingLevel /*level*/, const char * /*category*/, const char * /*id*/,
                         const char * /*place*/, const char * /*message*/) {}

}  // namespace

OnnxRuntimeLibrary::OnnxRuntimeLibrary(const std::string &path) {
    load(path);
    start();
}

void OnnxRuntimeLibrary::load(const std::string &path) {
    // From 1.29 on, official builds send telemetry, names and hashes of graphs included. Only the environment variable
    // stops it altogether: after DisableTelemetryEvents they still connect.
    if (std::getenv(NO_TELEMETRY) == nullptr) ::setenv(NO_TELEMETRY, "1", 0);
    const char *variable = std::getenv(VARIABLE);
    std::string named = path;
    if (named.empty() && variable != nullptr) named = variable;
    library_ = SharedLibrary(named.empty() ? DEFAULTS : std::vector<std::string>{named});
    if (!library_) {
        const std::string wanted = named.empty() ? DEFAULTS[0] : named;
        if (is_out_of_memory(library_.fault())) throw Error(Status::memory, library_.fault());
        throw Error(Status::engine, "expected ONNX Runtime's library " + wanted + ", found none that loads (" +
                                        library_.fault() + ")" + REMEDY);
    }
    using GetApiBase = const OrtApiBase *(*)();
    const auto get_base = library_.find<GetApiBase>("OrtGetApiBase");
    const OrtApiBase *base = get_base == nullptr ? nullptr : get_base();
    if (base == nullptr) {
        throw Error(Status::engine,
                    named + ": expected ONNX Runtime's library, found one without OrtGetApiBase" + std::string(REMEDY));
    }
    version_ = base->GetVersionString();
    const unsigned version = std::min<unsigned>(minor_of(version_), ORT_API_VERSION);
    api_ = version < OLDEST ? nullptr : base->GetApi(version);
    if (api_ == nullptr) {
        throw Error(Status::engine,
                    "expected ONNX Runtime 1." + std::to_string(OLDEST) + " or newer, found " + version_ + REMEDY);
    }
}

void OnnxRuntimeLibrary::start() {
    const std::string before = name() + " did not start (";
    OrtEnv *environment = nullptr;
    check(api_->CreateEnvWithCustomLogger(no_log, nullptr, ORT_LOGGING_LEVEL_FATAL, "hart-edge", &environment), before,
          "); check the library");
    environment_ = {environment, api_->ReleaseEnv};
}

void OnnxRuntimeLibrary::check(OrtStatus *status, std::string_view before, std::string_view after) const {
    if (status == nullptr) return;
    std::string message;
    try {
        message = api_->GetErrorMessage(status);
    } catch (...) {
        api_->ReleaseStatus(status);
        throw;
    }
    api_->ReleaseStatus(status);
    if (message.empty()) message = "no reason given";
    const Status kind = is_out_of_memory(message) ? Status::memory : Status::engine;
    throw Error(kind, std::string(before).append(message).append(after));
}

}  // namespace hart_edge
