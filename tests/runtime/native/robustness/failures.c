/* Makes every allocation, or every call of the engine, fail in turn: no crash, no leak, no image.
 *
 *     hart_edge_failures BUNDLE ENGINE memory|engine STRIDE
 *
 * ENGINE: the path of failing_engine.c's library. STRIDE: try only every STRIDE-th one. As in SQLite's tests each is
 * tried twice: only this one fails, or this one and all after it. Opening is tried by itself; generating is tried with
 * one handle, which must work as before after each failure. Prints the counts. */
#include <string.h>
#include <unistd.h>

#include "expect.h"
#include "failing_engine.h"
#include "failing_memory.h"

enum { STATUSES = HART_EDGE_INTERNAL_ERROR + 1, PICTURES = 2, PIXELS = 32 * 32 * 3 };

struct failing {
    void (*fail)(long n, int all);
    long (*failed)(void);
};

static const char *bundle;
static const char *engine;
static long stride;
static uint8_t expected[PICTURES][PIXELS];

static hart_edge_status open_it(hart_edge_handle **handle, int32_t wait_for_all) {
    hart_edge_options options;

    hart_edge_default_options(&options, sizeof options);
    options.threads = 1;
    options.wait_for_all = wait_for_all;
    options.onnxruntime_library = engine;
    return hart_edge_open(bundle, &options, handle);
}

static int32_t look(void *user_data, const hart_edge_progress *progress) {
    (void)user_data;
    return progress->preview == NULL;
}

/* Generate two pictures with previews. If it succeeds, they must equal those without any failure. */
static hart_edge_status generate(hart_edge_handle *handle) {
    static const char *prompts[PICTURES] = {"ab", "a zebra, crossing"};
    hart_edge_image *images[PICTURES] = {(hart_edge_image *)1, (hart_edge_image *)1};
    hart_edge_params params;
    hart_edge_status status;
    int picture;

    hart_edge_default_params(&params, sizeof params);
    params.count = PICTURES;
    params.prompts = prompts;
    params.seed = 7;
    params.previews = 1;
    params.on_scale = look;
    status = hart_edge_generate(handle, &params, images);
    for (picture = 0; picture < PICTURES; ++picture) {
        EXPECT((images[picture] != NULL) == (status == HART_EDGE_OK));
        if (status != HART_EDGE_OK) continue;
        EXPECT(memcmp(images[picture]->pixels, expected[picture], PIXELS) == 0);
        hart_edge_image_free(images[picture]);
    }
    return status;
}

static void learn_expected(void) {
    static const char *prompts[PICTURES] = {"ab", "a zebra, crossing"};
    hart_edge_handle *handle = NULL;
    int picture;

    EXPECT_STATUS(open_it(&handle, 0), HART_EDGE_OK, handle);
    for (picture = 0; picture < PICTURES; ++picture) {
        hart_edge_params params;
        hart_edge_image *image = NULL;

        hart_edge_default_params(&params, sizeof params);
        params.prompt = prompts[picture];
        params.seed = 7;
        EXPECT_STATUS(hart_edge_generate(handle, &params, &image), HART_EDGE_OK, handle);
        memcpy(expected[picture], image->pixels, PIXELS);
        hart_edge_image_free(image);
    }
    hart_edge_close(handle);
}

/* A failure has a status that says what happened, and a message. Without a handle memory must have run out. */
static void check_failure(const hart_edge_handle *handle, hart_edge_status status, long n, int all) {
    const char *message = hart_edge_last_error(handle);

    if (status == HART_EDGE_OUT_OF_MEMORY ||
        (handle != NULL && (status == HART_EDGE_ENGINE_ERROR || status == HART_EDGE_BUNDLE_ERROR))) {
        if (strlen(message) > 10) return;
    }
    fprintf(stderr, "failure %ld%s: found %s: %s\n", n, all ? " and all behind it" : "", hart_edge_status_text(status),
            message);
    _Exit(1);
}

static void check_nothing_left(long blocks, long objects, long n, int all) {
    if (memory_live() == blocks && engine_live() == objects) return;
    fprintf(stderr, "failure %ld%s: %ld blocks and %ld engine objects were left\n", n, all ? " and all behind it" : "",
            memory_live() - blocks, engine_live() - objects);
    _Exit(1);
}

static void tell(const char *what, int all, const long *statuses) {
    int status;

    printf("%s, %s:", what, all ? "that and all behind it" : "that one");
    for (status = 0; status < STATUSES; ++status) {
        if (statuses[status] > 0) printf(" %ld %s;", statuses[status], hart_edge_status_text(status));
    }
    printf("\n");
    fflush(stdout);
}

/* Open a handle, use it once if that succeeded, and close it. */
static void fail_opening(const struct failing *failing, int all) {
    const long blocks = memory_live();
    const long objects = engine_live();
    long statuses[STATUSES] = {0};
    long n;

    for (n = 0;; n += stride) {
        hart_edge_handle *handle = NULL;
        hart_edge_status status;
        long failed;

        failing->fail(n, all);
        status = open_it(&handle, 0);
        if (status == HART_EDGE_OK) status = generate(handle); /* reports an error of the loader's thread */
        failed = failing->failed();
        failing->fail(-1, 0);
        if (status != HART_EDGE_OK) check_failure(handle, status, n, all);
        if (failed > 0) ++statuses[status];
        hart_edge_close(handle);
        check_nothing_left(blocks, objects, n, all);
        if (failed == 0) break;
    }
    tell("open and generate", all, statuses);
}

static void fail_generating(const struct failing *failing, int all) {
    hart_edge_handle *handle = NULL;
    long statuses[STATUSES] = {0};
    long blocks;
    long objects;
    long n;

    EXPECT_STATUS(open_it(&handle, 1), HART_EDGE_OK, handle);
    EXPECT_STATUS(generate(handle), HART_EDGE_OK, handle);
    sleep(1); /* the loader's thread has finished its work, but frees its start data only when it ends */
    blocks = memory_live();
    objects = engine_live();
    for (n = 0;; ++n) {
        hart_edge_status status;
        long failed;

        failing->fail(n, all);
        status = generate(handle);
        failed = failing->failed();
        failing->fail(-1, 0);
        if (status != HART_EDGE_OK) check_failure(handle, status, n, all);
        if (failed == 0) break;
        ++statuses[status];
        EXPECT_STATUS(generate(handle), HART_EDGE_OK, handle);                       /* it still works */
        check_nothing_left(blocks + (memory_live() - blocks == 1), objects, n, all); /* 1: the kept message */
    }
    hart_edge_close(handle);
    tell("generate alone", all, statuses);
}

int main(int count, char **arguments) {
    const struct failing memory = {memory_fail, memory_failed};
    const struct failing calls = {engine_fail, engine_failed};
    const struct failing *failing;
    int all;

    if (count != 5) {
        fprintf(stderr, "usage: hart_edge_failures BUNDLE ENGINE memory|engine STRIDE\n");
        return 2;
    }
    bundle = arguments[1];
    engine = arguments[2];
    failing = strcmp(arguments[3], "memory") == 0 ? &memory : &calls;
    stride = atol(arguments[4]);
    learn_expected();
    for (all = 0; all < 2; ++all) {
        fail_opening(failing, all);
        fail_generating(failing, all);
    }
    return 0;
}
