/* A library that stands in for ONNX Runtime: it passes every call on to the real one, which the environment names in
 * HART_EDGE_REAL_ONNXRUNTIME, unless the call shall fail. Only calls that libhart_edge makes are replaced. */
#include "failing_engine.h"

#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdatomic.h>
#include <stdlib.h>

#define DOOR __attribute__((visibility("default")))

static const OrtApiBase *real_base;
static const OrtApi *real;
static OrtApi table;
static atomic_long live;
static atomic_long left = -1; /* calls until one fails; negative: none fails */
static atomic_int all_after;
static atomic_long failed;
static void (*told)(const void *binding, const char *name, const void *data); /* of every output that is bound */

DOOR void engine_fail(long n, int all) {
    failed = 0;
    all_after = all;
    left = n;
}

DOOR long engine_failed(void) {
    return failed;
}
DOOR long engine_live(void) {
    return live;
}
DOOR void engine_tell_outputs(void (*tell)(const void *binding, const char *name, const void *data)) {
    told = tell;
}

/* The status of a call that shall fail; NULL for a call that is passed on. */
static OrtStatus *refusal(void) {
    const long before = all_after ? left : left--;

    if (all_after && before > 0) --left;
    if (before != 0) return NULL;
    ++failed;
    ++live;
    return real->CreateStatus(ORT_FAIL, "made to fail");
}

static OrtStatus *counted(OrtStatus *status) {
    if (status != NULL) ++live;
    return status;
}

/* Calls that make an object, other calls that can fail, calls that release an object. */
#define MAKES(name, parameters, arguments)                          \
    static OrtStatus *ORT_API_CALL fail_##name parameters {         \
        OrtStatus *status = refusal();                              \
        if (status == NULL) status = counted(real->name arguments); \
        if (status == NULL) ++live;                                 \
        return status;                                              \
    }
#define DOES(name, parameters, arguments)                               \
    static OrtStatus *ORT_API_CALL fail_##name parameters {             \
        OrtStatus *status = refusal();                                  \
        return status == NULL ? counted(real->name arguments) : status; \
    }
#define RELEASES(name, type)                           \
    static void ORT_API_CALL fail_##name(type *held) { \
        if (held != NULL) --live;                      \
        real->name(held);                              \
    }

MAKES(CreateEnvWithCustomLogger,
      (OrtLoggingFunction log, void *data, OrtLoggingLevel level, const char *id, OrtEnv **out),
      (log, data, level, id, out))
MAKES(CreateSessionOptions, (OrtSessionOptions * *out), (out))
MAKES(CreateRunOptions, (OrtRunOptions * *out), (out))
MAKES(CreateCpuMemoryInfo, (enum OrtAllocatorType kind, enum OrtMemType type, OrtMemoryInfo **out), (kind, type, out))
MAKES(GetAvailableProviders, (char ***names, int *count), (names, count))
MAKES(CreateTensorWithDataAsOrtValue,
      (const OrtMemoryInfo *memory, void *data, size_t bytes, const int64_t *shape, size_t rank,
       ONNXTensorElementDataType type, OrtValue **out),
      (memory, data, bytes, shape, rank, type, out))
MAKES(CreateSession, (const OrtEnv *env, const ORTCHAR_T *path, const OrtSessionOptions *options, OrtSession **out),
      (env, path, options, out))
MAKES(CreateSessionFromArray,
      (const OrtEnv *env, const void *data, size_t size, const OrtSessionOptions *options, OrtSession **out),
      (env, data, size, options, out))
MAKES(CreateIoBinding, (OrtSession * session, OrtIoBinding **out), (session, out))
DOES(SetSessionLogSeverityLevel, (OrtSessionOptions * options, int level), (options, level))
DOES(AddSessionConfigEntry, (OrtSessionOptions * options, const char *key, const char *value), (options, key, value))
DOES(SetIntraOpNumThreads, (OrtSessionOptions * options, int threads), (options, threads))
DOES(BindInput, (OrtIoBinding * binding, const char *name, const OrtValue *value), (binding, name, value))
DOES(BindOutput, (OrtIoBinding * binding, const char *name, const OrtValue *value), (binding, name, value))
DOES(RunWithBinding, (OrtSession * session, const OrtRunOptions *options, const OrtIoBinding *binding),
     (session, options, binding))
DOES(RunOptionsSetTerminate, (OrtRunOptions * options), (options))
DOES(RunOptionsUnsetTerminate, (OrtRunOptions * options), (options))
RELEASES(ReleaseEnv, OrtEnv)
RELEASES(ReleaseSessionOptions, OrtSessionOptions)
RELEASES(ReleaseRunOptions, OrtRunOptions)
RELEASES(ReleaseMemoryInfo, OrtMemoryInfo)
RELEASES(ReleaseValue, OrtValue)
RELEASES(ReleaseSession, OrtSession)
RELEASES(ReleaseIoBinding, OrtIoBinding)
RELEASES(ReleaseStatus, OrtStatus)

static OrtStatus *ORT_API_CALL tell_BindOutput(OrtIoBinding *binding, const char *name, const OrtValue *value) {
    void *data = NULL;
    if (told != NULL && real->GetTensorMutableData((OrtValue *)value, &data) == NULL) told(binding, name, data);
    return fail_BindOutput(binding, name, value);
}

/* It releases an object, but returns a status. */
static OrtStatus *ORT_API_CALL fail_ReleaseAvailableProviders(char **names, int count) {
    --live;
    return counted(real->ReleaseAvailableProviders(names, count));
}

static const OrtApi *ORT_API_CALL get_api(uint32_t version) {
    real = real_base->GetApi(version);
    if (real == NULL) return NULL;
    table = *real;
#define WATCH(name) table.name = fail_##name
    WATCH(CreateEnvWithCustomLogger), WATCH(CreateSessionOptions), WATCH(CreateRunOptions), WATCH(CreateCpuMemoryInfo);
    WATCH(GetAvailableProviders), WATCH(ReleaseAvailableProviders), WATCH(CreateTensorWithDataAsOrtValue);
    WATCH(CreateSession), WATCH(CreateSessionFromArray), WATCH(CreateIoBinding), WATCH(SetSessionLogSeverityLevel);
    WATCH(AddSessionConfigEntry), WATCH(SetIntraOpNumThreads), WATCH(BindInput);
    WATCH(RunWithBinding), WATCH(RunOptionsSetTerminate), WATCH(RunOptionsUnsetTerminate), WATCH(ReleaseEnv);
    WATCH(ReleaseSessionOptions), WATCH(ReleaseRunOptions), WATCH(ReleaseMemoryInfo), WATCH(ReleaseValue);
    WATCH(ReleaseSession), WATCH(ReleaseIoBinding), WATCH(ReleaseStatus);
    table.BindOutput = tell_BindOutput;
    return &table;
}

static const char *ORT_API_CALL get_version(void) {
    return real_base->GetVersionString();
}

DOOR const OrtApiBase *ORT_API_CALL OrtGetApiBase(void) {
    static const OrtApiBase base = {get_api, get_version};
    const OrtApiBase *(*get_base)(void);

    if (real_base == NULL) {
        const char *path = getenv("HART_EDGE_REAL_ONNXRUNTIME");
        void *library = path == NULL ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) return NULL;
        *(void **)&get_base = dlsym(library, "OrtGetApiBase");
        real_base = get_base();
    }
    return &base;
}
