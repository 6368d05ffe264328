/* Every wrong use of the library returns a status and a message that says what was expected, and does nothing else. */
#include <dirent.h>
#include <math.h>
#include <string.h>

#include "program.h"

enum { LONGEST_PATH = 4096 };

void refused(hart_edge_handle *handle, const hart_edge_params *params, hart_edge_status wanted, const char *words) {
    hart_edge_image *images[4] = {(hart_edge_image *)1, (hart_edge_image *)1, (hart_edge_image *)1,
                                  (hart_edge_image *)1};
    uint32_t picture;

    EXPECT_STATUS(hart_edge_generate(handle, params, images), wanted, handle);
    for (picture = 0; picture < params->count; ++picture) EXPECT(images[picture] == NULL);
    if (strstr(hart_edge_last_error(handle), words) == NULL) {
        fprintf(stderr, "expected \"%s\" in the message, found: %s\n", words, hart_edge_last_error(handle));
        _Exit(1);
    }
}

static void check_constants(void) {
    hart_edge_options options;
    hart_edge_params params;
    hart_edge_status status;

    EXPECT(hart_edge_abi_version() == HART_EDGE_ABI_VERSION);
    EXPECT(strlen(hart_edge_version()) >= 5);
    for (status = HART_EDGE_OK; status <= HART_EDGE_INTERNAL_ERROR; ++status) {
        EXPECT(strcmp(hart_edge_status_text(status), "unknown status") != 0);
    }
    EXPECT(strcmp(hart_edge_status_text(-1), "unknown status") == 0);
    EXPECT(strcmp(hart_edge_status_text(INT32_MAX), "unknown status") == 0);
    EXPECT(hart_edge_default_options(NULL, sizeof options) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT(hart_edge_default_params(NULL, sizeof params) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT(hart_edge_default_options(&options, 3) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT(hart_edge_default_params(&params, 0) == HART_EDGE_INVALID_ARGUMENT);
}

/* Calls without a handle. */
void check_without_handle(void) {
    hart_edge_info info = {.struct_size = sizeof info};
    hart_edge_params params = params_of("ab", 0);
    hart_edge_image *image = NULL;

    check_constants();
    EXPECT(hart_edge_open("x", NULL, NULL) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT(hart_edge_get_info(NULL, &info) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT(hart_edge_generate(NULL, &params, &image) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT(hart_edge_last_error(NULL)[0] != '\0');
    hart_edge_cancel(NULL);
    hart_edge_image_free(NULL);
    hart_edge_close(NULL);
}

/* An open that must fail; its handle can be used only for the message and for close. */
static void not_opened(const char *folder, const hart_edge_options *options, hart_edge_status wanted) {
    hart_edge_handle *handle = NULL;
    hart_edge_info info = {.struct_size = sizeof info};
    hart_edge_params params = params_of("ab", 0);

    EXPECT_STATUS(hart_edge_open(folder, options, &handle), wanted, handle);
    EXPECT(handle != NULL && strstr(hart_edge_last_error(handle), "expected") != NULL);
    EXPECT(hart_edge_get_info(handle, &info) == HART_EDGE_INVALID_ARGUMENT);
    refused(handle, &params, HART_EDGE_INVALID_ARGUMENT, "opening failed");
    hart_edge_cancel(handle);
    hart_edge_close(handle);
}

void check_options(const char *folder) {
    hart_edge_options options;
    const hart_edge_options defaults = {.struct_size = sizeof options};

    not_opened(NULL, NULL, HART_EDGE_INVALID_ARGUMENT);
    not_opened("", NULL, HART_EDGE_BUNDLE_ERROR);
    not_opened("/nonexistent/bundle", NULL, HART_EDGE_BUNDLE_ERROR);
    not_opened("/dev/null", NULL, HART_EDGE_BUNDLE_ERROR);
    options = defaults, options.struct_size = 4;
    not_opened(folder, &options, HART_EDGE_INVALID_ARGUMENT);
    options = defaults, options.engine = 99;
    not_opened(folder, &options, HART_EDGE_INVALID_ARGUMENT);
    options = defaults, options.threads = -1;
    not_opened(folder, &options, HART_EDGE_ENGINE_ERROR);
    options = defaults, options.threads = 1025;
    not_opened(folder, &options, HART_EDGE_ENGINE_ERROR);
    options = defaults, options.memory_limit = 1;
    not_opened(folder, &options, HART_EDGE_OUT_OF_MEMORY);
    options = defaults, options.onnxruntime_library = "/nonexistent/libonnxruntime.so";
    not_opened(folder, &options, HART_EDGE_ENGINE_ERROR);
    options = defaults, options.onnxruntime_library = "libm.so.6"; /* a library, but not ONNX Runtime */
    not_opened(folder, &options, HART_EDGE_ENGINE_ERROR);
}

void check_bad_params(hart_edge_handle *handle) {
    struct {
        hart_edge_params params;
        char newer[16];
    } larger;
    const char *prompts[2] = {"ab", NULL};
    const hart_edge_params good = params_of("ab", 0);
    const float context[32] = {0};
    const uint8_t mask[4] = {1, 0, 0, 0};
    hart_edge_params bad;
    hart_edge_image *image = NULL;

    EXPECT(hart_edge_generate(handle, &good, NULL) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT(hart_edge_generate(handle, NULL, &image) == HART_EDGE_INVALID_ARGUMENT);
    bad = good, bad.struct_size = 8, bad.count = 0;
    refused(handle, &bad, HART_EDGE_INVALID_ARGUMENT, "params.struct_size");
    memset(&larger, 0, sizeof larger);
    larger.params = good;
    larger.params.struct_size = sizeof larger;
    hart_edge_image_free(drawn(handle, &larger.params));
    larger.newer[0] = 1;
    larger.params.count = 0;
    refused(handle, &larger.params, HART_EDGE_INVALID_ARGUMENT, "update the library");
    bad = good, bad.prompt = NULL;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "prompt: expected a text, found NULL");
    bad = good, bad.prompt = " \t\n";
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "found an empty string");
    bad = good, bad.prompt = "a\xFFz";
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "expected UTF-8");
    bad = good, bad.prompt = "\xF0\x9F\x98"; /* truncated UTF-8 */
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "expected UTF-8");
    bad = good, bad.count = 2;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "prompts: expected 2");
    bad = good, bad.count = 2, bad.prompts = prompts;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "prompt: expected a text, found NULL");
    bad = good, bad.contexts = context, bad.context_masks = mask;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "expected a prompt, found a context");
    bad = good, bad.cfg_scale = (double)NAN;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "cfg_scale: expected a finite number");
    bad = good, bad.cfg_scale = 100.5;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "cfg_scale: expected 0 to 100");
    bad = good, bad.top_p = 0;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "top_p: expected above 0");
    bad = good, bad.top_p = -(double)INFINITY;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "top_p: expected a finite number");
    bad = good, bad.top_k = 7;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "top_k: expected 1 to 6, found 7");
    bad = good, bad.top_k = INT32_MIN;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "top_k: expected 1 to 6");
    bad = good, bad.smooth = 2;
    refused(handle, &bad, HART_EDGE_INPUT_ERROR, "smooth: expected 1, 0");
    bad = good, bad.count = 0; /* no picture */
    EXPECT_STATUS(hart_edge_generate(handle, &bad, &image), HART_EDGE_OK, handle);
    EXPECT(image == NULL);
}

int check_corrupt(const char *parent) {
    char path[LONGEST_PATH];
    struct dirent *entry;
    DIR *folder = opendir(parent);
    int refusals = 0;

    EXPECT(folder != NULL);
    while ((entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s/around/bundle", parent, entry->d_name);
        not_opened(path, NULL, HART_EDGE_BUNDLE_ERROR);
        ++refusals;
    }
    closedir(folder);
    return refusals;
}
