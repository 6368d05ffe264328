/* The promises of hart_edge.h about threads: a handle each, one handle for two, cancel and get_info meanwhile.
 *
 *     hart_edge_threads BUNDLE ROUNDS
 *
 * Run plain and under the thread sanitizer. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "expect.h"

enum { PIXELS = 32 * 32 * 3 };

struct worker {
    const char *bundle;
    int rounds;
    uint8_t pixels[PIXELS]; /* of seed 0 */
};

static void draw(hart_edge_handle *handle, uint64_t seed, uint8_t *pixels) {
    hart_edge_params params;
    hart_edge_image *image = NULL;

    hart_edge_default_params(&params, sizeof params);
    params.prompt = "ab";
    params.seed = seed;
    EXPECT_STATUS(hart_edge_generate(handle, &params, &image), HART_EDGE_OK, handle);
    memcpy(pixels, image->pixels, PIXELS);
    hart_edge_image_free(image);
}

/* Open, use and close a handle while the other thread does the same with its own. */
static void *own_handle(void *data) {
    struct worker *worker = data;
    uint8_t pixels[PIXELS];
    int round;

    for (round = 0; round < worker->rounds; ++round) {
        hart_edge_handle *handle = NULL;

        EXPECT_STATUS(hart_edge_open(worker->bundle, NULL, &handle), HART_EDGE_OK, handle);
        draw(handle, 0, worker->pixels);
        draw(handle, 1, pixels);
        EXPECT(memcmp(pixels, worker->pixels, PIXELS) != 0);
        draw(handle, 0, pixels);
        EXPECT(memcmp(pixels, worker->pixels, PIXELS) == 0);
        hart_edge_close(handle);
    }
    return NULL;
}

static void check_two_handles(const char *bundle, int rounds) {
    struct worker workers[2] = {{.bundle = bundle, .rounds = rounds}, {.bundle = bundle, .rounds = rounds}};
    pthread_t threads[2];
    int index;

    for (index = 0; index < 2; ++index) {
        EXPECT(pthread_create(&threads[index], NULL, own_handle, &workers[index]) == 0);
    }
    for (index = 0; index < 2; ++index) pthread_join(threads[index], NULL);
    EXPECT(memcmp(workers[0].pixels, workers[1].pixels, PIXELS) == 0);
}

struct shared {
    hart_edge_handle *handle;
    int rounds;
    atomic_int done;
    atomic_int drawn;
    atomic_int busy;
    atomic_int cancelled;
};

/* Draws with the shared handle: every call returns a picture, HART_EDGE_BUSY or HART_EDGE_CANCELLED. */
static void *same_handle(void *data) {
    struct shared *shared = data;
    int round;

    for (round = 0; round < shared->rounds; ++round) {
        hart_edge_params params;
        hart_edge_image *image = NULL;
        hart_edge_status status;

        hart_edge_default_params(&params, sizeof params);
        params.prompt = "ab";
        status = hart_edge_generate(shared->handle, &params, &image);
        EXPECT((status == HART_EDGE_OK) == (image != NULL));
        hart_edge_image_free(image);
        if (status == HART_EDGE_OK)
            ++shared->drawn;
        else if (status == HART_EDGE_BUSY)
            ++shared->busy;
        else if (status == HART_EDGE_CANCELLED)
            ++shared->cancelled;
        else
            EXPECT(!"a status that the header names here");
        if (status == HART_EDGE_BUSY) usleep(50);
    }
    return NULL;
}

static void *ask(void *data) {
    struct shared *shared = data;
    hart_edge_info info = {.struct_size = sizeof info};

    while (!shared->done) {
        EXPECT(hart_edge_get_info(shared->handle, &info) == HART_EDGE_OK && info.scales == 2);
        usleep(20);
    }
    return NULL;
}

static void *cancel(void *data) {
    struct shared *shared = data;

    while (!shared->done) {
        hart_edge_cancel(shared->handle);
        usleep(300);
    }
    return NULL;
}

/* In the callback the handle is busy: another thread gets HART_EDGE_BUSY at once, and the picture is still made. */
static int32_t enter(void *user_data, const hart_edge_progress *progress) {
    struct shared *shared = user_data;
    pthread_t thread;

    (void)progress;
    shared->rounds = 1;
    EXPECT(pthread_create(&thread, NULL, same_handle, shared) == 0);
    pthread_join(thread, NULL);
    return 0;
}

static void check_busy(hart_edge_handle *handle) {
    struct shared shared = {.handle = handle};
    hart_edge_params params;
    hart_edge_image *image = NULL;

    hart_edge_default_params(&params, sizeof params);
    params.prompt = "ab";
    params.on_scale = enter;
    params.user_data = &shared;
    EXPECT_STATUS(hart_edge_generate(handle, &params, &image), HART_EDGE_OK, handle);
    hart_edge_image_free(image);
    EXPECT(shared.busy == 2 && shared.drawn == 0);
}

static void check_one_handle(const char *bundle, int rounds) {
    hart_edge_handle *handle = NULL;
    struct shared shared = {.rounds = rounds};
    pthread_t threads[4];
    uint8_t before[PIXELS];
    uint8_t after[PIXELS];

    EXPECT_STATUS(hart_edge_open(bundle, NULL, &handle), HART_EDGE_OK, handle);
    draw(handle, 0, before);
    check_busy(handle);
    shared.handle = handle;
    EXPECT(pthread_create(&threads[0], NULL, same_handle, &shared) == 0);
    EXPECT(pthread_create(&threads[1], NULL, same_handle, &shared) == 0);
    EXPECT(pthread_create(&threads[2], NULL, ask, &shared) == 0);
    EXPECT(pthread_create(&threads[3], NULL, cancel, &shared) == 0);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    shared.done = 1;
    pthread_join(threads[2], NULL);
    pthread_join(threads[3], NULL);
    EXPECT(shared.drawn + shared.busy + shared.cancelled == 2 * rounds && shared.drawn > 0);
    draw(handle, 0, after);
    EXPECT(memcmp(before, after, PIXELS) == 0);
    hart_edge_close(handle);
    printf("%d drawn, %d busy, %d cancelled\n", shared.drawn, shared.busy, shared.cancelled);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: hart_edge_threads BUNDLE ROUNDS\n");
        return 2;
    }
    check_two_handles(arguments[1], atoi(arguments[2]));
    check_one_handle(arguments[1], 20 * atoi(arguments[2]));
    return 0;
}
