/* Uses the whole public API: what it returns, and every way to use it wrongly.
 *
 *     hart_edge_program PROMPTS CONTEXTS CORRUPT
 *
 * PROMPTS: a bundle with a text model, CONTEXTS: one without, CORRUPT: a folder of spoilt bundles (corrupt_bundles.py).
 * The environment names the engine library. Prints how much was tried; run plain and under sanitizers. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "program.h"

static hart_edge_handle *opened(const char *folder, int32_t wait_for_all) {
    hart_edge_handle *handle = NULL;
    hart_edge_options options;

    EXPECT(hart_edge_default_options(&options, sizeof options) == HART_EDGE_OK);
    options.threads = 1;
    options.wait_for_all = wait_for_all;
    EXPECT_STATUS(hart_edge_open(folder, &options, &handle), HART_EDGE_OK, handle);
    EXPECT(hart_edge_last_error(handle)[0] == '\0');
    return handle;
}

hart_edge_params params_of(const char *prompt, uint64_t seed) {
    hart_edge_params params;

    EXPECT(hart_edge_default_params(&params, sizeof params) == HART_EDGE_OK);
    params.prompt = prompt;
    params.seed = seed;
    return params;
}

hart_edge_image *drawn(hart_edge_handle *handle, const hart_edge_params *params) {
    hart_edge_image *image = NULL;

    EXPECT_STATUS(hart_edge_generate(handle, params, &image), HART_EDGE_OK, handle);
    EXPECT(image != NULL && image->width == 32 && image->height == 32);
    return image;
}

static int same(const hart_edge_image *a, const hart_edge_image *b) {
    return memcmp(a->pixels, b->pixels, (size_t)a->width * a->height * 3) == 0;
}

static void check_info(hart_edge_handle *handle, uint32_t takes_prompt) {
    struct {
        hart_edge_info info;
        char newer[16];
    } larger;
    hart_edge_info info = {.struct_size = sizeof info};

    EXPECT(hart_edge_get_info(handle, NULL) == HART_EDGE_INVALID_ARGUMENT);
    EXPECT_STATUS(hart_edge_get_info(handle, &info), HART_EDGE_OK, handle);
    EXPECT(info.image_size == 32 && info.scales == 2 && info.takes_prompt == takes_prompt);
    EXPECT(info.context_tokens == 4 && info.context_dim == 8 && info.top_k == 6 && info.cfg_scale == 4.5);
    EXPECT(strcmp(info.precision, "fp32") == 0 && strcmp(info.target, "cpu") == 0 && info.memory > 1000);
    EXPECT(strncmp(info.engine, "ONNX Runtime 1.", 15) == 0 && strcmp(info.name, "tiny-2") == 0);
    info.struct_size = 8;
    EXPECT(hart_edge_get_info(handle, &info) == HART_EDGE_INVALID_ARGUMENT);
    memset(&larger, 0xFF, sizeof larger);
    larger.info.struct_size = sizeof larger; /* as with a newer header: unknown members are zero */
    EXPECT(hart_edge_get_info(handle, &larger.info) == HART_EDGE_OK && larger.newer[0] == 0 && larger.newer[15] == 0);
}

struct seen {
    hart_edge_handle *handle;
    uint32_t calls;
    uint32_t stop_at;   /* return 1 in this call, counted from 1 */
    uint32_t cancel_at; /* call hart_edge_cancel in this call */
    uint8_t last[32 * 32 * 3];
};

static int32_t on_scale(void *user_data, const hart_edge_progress *progress) {
    struct seen *seen = user_data;
    hart_edge_info info = {.struct_size = sizeof info};

    EXPECT(progress->struct_size == sizeof *progress);
    EXPECT(progress->picture == seen->calls / 2 && progress->scale == seen->calls % 2 && progress->scales == 2);
    EXPECT(hart_edge_get_info(seen->handle, &info) == HART_EDGE_OK); /* allowed in a callback */
    if (progress->preview != NULL) memcpy(seen->last, progress->preview, sizeof seen->last);
    ++seen->calls;
    if (seen->calls == seen->cancel_at) hart_edge_cancel(seen->handle);
    return seen->calls == seen->stop_at;
}

static void check_generate(hart_edge_handle *handle) {
    const char *prompts[3] = {"ab", "zebra crossing", "c"};
    const uint64_t seeds[3] = {7, 0, UINT64_MAX};
    struct seen seen = {.handle = handle};
    hart_edge_params params = params_of("ab", 7);
    hart_edge_image *images[3];
    hart_edge_image *alone = drawn(handle, &params);
    hart_edge_image *again = drawn(handle, &params);
    uint32_t picture;
    uint32_t call;

    EXPECT(same(alone, again) && alone->seed == 7 && alone->prompt_tokens == 2);
    hart_edge_image_free(again);
    params.seed = 8;
    again = drawn(handle, &params);
    EXPECT(!same(alone, again));
    hart_edge_image_free(again);

    params = params_of(NULL, 0); /* a list with callbacks and previews */
    params.count = 3;
    params.prompts = prompts;
    params.seeds = seeds;
    params.previews = 1;
    params.on_scale = on_scale;
    params.user_data = &seen;
    EXPECT_STATUS(hart_edge_generate(handle, &params, images), HART_EDGE_OK, handle);
    EXPECT(seen.calls == 6 && same(images[0], alone) && images[2]->seed == UINT64_MAX);
    EXPECT(images[1]->prompt_tokens > 4); /* more than the context, so it was truncated */
    EXPECT(memcmp(seen.last, images[2]->pixels, sizeof seen.last) == 0);
    for (picture = 0; picture < 3; ++picture) hart_edge_image_free(images[picture]);

    for (call = 1; call <= 6; ++call) { /* the callback cancels in both ways, after every scale */
        seen = (struct seen){.handle = handle, .stop_at = call};
        refused(handle, &params, HART_EDGE_CANCELLED, "cancelled");
        EXPECT(seen.calls == call);
        seen = (struct seen){.handle = handle, .cancel_at = call};
        refused(handle, &params, HART_EDGE_CANCELLED, "cancelled");
        EXPECT(seen.calls == call);
    }
    params = params_of("ab", 7); /* which has no effect on the next call */
    again = drawn(handle, &params);
    EXPECT(same(alone, again));
    hart_edge_image_free(again);
    hart_edge_image_free(alone);
}

struct canceller {
    hart_edge_handle *handle;
    atomic_int begun;
    atomic_int done;
};

static void *cancel_until_done(void *data) {
    struct canceller *canceller = data;

    while (!canceller->begun) usleep(10);
    while (!canceller->done) hart_edge_cancel(canceller->handle);
    return NULL;
}

static int32_t note_begun(void *user_data, const hart_edge_progress *progress) {
    struct canceller *canceller = user_data;

    (void)progress;
    canceller->begun = 1;
    return 0;
}

/* Another thread cancels again and again; the handle keeps working. */
static void check_cancel_from_a_thread(hart_edge_handle *handle) {
    static const char *prompts[1000];
    static hart_edge_image *images[1000];
    hart_edge_params params = params_of("ab", 7);
    hart_edge_image *expected = drawn(handle, &params);
    hart_edge_image *found;
    uint32_t picture;
    int round;

    for (picture = 0; picture < 1000; ++picture) prompts[picture] = "ab";
    for (round = 0; round < 10; ++round) {
        struct canceller canceller = {.handle = handle};
        pthread_t thread;

        params = params_of(NULL, 7);
        params.count = 1000;
        params.prompts = prompts;
        params.on_scale = note_begun;
        params.user_data = &canceller;
        EXPECT(pthread_create(&thread, NULL, cancel_until_done, &canceller) == 0);
        EXPECT_STATUS(hart_edge_generate(handle, &params, images), HART_EDGE_CANCELLED, handle);
        for (picture = 0; picture < 1000; ++picture) EXPECT(images[picture] == NULL);
        canceller.done = 1;
        pthread_join(thread, NULL);
        params = params_of("ab", 7);
        found = drawn(handle, &params);
        EXPECT(same(found, expected));
        hart_edge_image_free(found);
    }
    hart_edge_image_free(expected);
}

static void check_contexts(const char *folder) {
    hart_edge_handle *handle = opened(folder, 1);
    hart_edge_params params = params_of(NULL, 3);
    float contexts[2 * 4 * 8];
    uint8_t masks[2 * 4] = {1, 1, 0, 0, 1, 0, 0, 0};
    hart_edge_image *images[2];
    hart_edge_image *alone;
    int index;

    check_info(handle, 0);
    for (index = 0; index < 64; ++index) contexts[index] = (float)(index % 7) / 3;
    refused(handle, &params, HART_EDGE_INPUT_ERROR, "found none");
    params.prompt = "ab";
    refused(handle, &params, HART_EDGE_INPUT_ERROR, "found a prompt");
    params.prompt = NULL;
    params.contexts = contexts;
    refused(handle, &params, HART_EDGE_INPUT_ERROR, "expected contexts (4, 8) and context_masks");
    params.context_masks = masks;
    params.count = 2;
    EXPECT_STATUS(hart_edge_generate(handle, &params, images), HART_EDGE_OK, handle);
    params.count = 1;
    params.contexts = contexts + 32;
    params.context_masks = masks + 4;
    alone = drawn(handle, &params);
    EXPECT(same(alone, images[1]) && !same(alone, images[0]) && alone->prompt_tokens == 0);
    masks[4] = 0;
    refused(handle, &params, HART_EDGE_INPUT_ERROR, "at least one 1");
    masks[4] = 2, masks[5] = 1;
    refused(handle, &params, HART_EDGE_INPUT_ERROR, "context_masks: expected 0 and 1");
    masks[4] = 1;
    contexts[63] = (float)NAN;
    refused(handle, &params, HART_EDGE_INPUT_ERROR, "expected finite tokens");
    hart_edge_close(handle);
    EXPECT(alone->pixels[0] == images[1]->pixels[0]); /* images outlive their handle */
    hart_edge_image_free(alone);
    hart_edge_image_free(images[0]);
    hart_edge_image_free(images[1]);
}

int main(int count, char **arguments) {
    hart_edge_handle *handle;
    int32_t wait_for_all;

    if (count != 4) {
        fprintf(stderr, "usage: hart_edge_program PROMPTS CONTEXTS CORRUPT\n");
        return 2;
    }
    check_without_handle();
    check_options(arguments[1]);
    for (wait_for_all = 0; wait_for_all < 2; ++wait_for_all) {
        handle = opened(arguments[1], wait_for_all);
        hart_edge_close(handle); /* maybe while its graphs are being loaded */
        handle = opened(arguments[1], wait_for_all);
        check_info(handle, 1);
        check_bad_params(handle);
        check_generate(handle);
        check_cancel_from_a_thread(handle);
        hart_edge_close(handle);
    }
    check_contexts(arguments[2]);
    printf("%d corrupt bundles refused\n", check_corrupt(arguments[3]));
    return 0;
}
