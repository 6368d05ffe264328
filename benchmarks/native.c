/* The program with which benchmarks/native.py measures the C library: native BUNDLE PROMPT THREADS PICTURES. Prints one
 * line of JSON. */
#define _POSIX_C_SOURCE 200809L
#include <hart_edge.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int32_t keep_first(void *user_data, const hart_edge_progress *progress) {
    double *first = user_data;
    if (progress->scale == 0 && *first == 0) *first = now();
    return 0;
}

int main(int count, char **arguments) {
    hart_edge_handle *handle = NULL;
    hart_edge_options options;
    hart_edge_params params;
    hart_edge_image *image;
    struct rusage usage;
    double begin = now(), opened, first = 0, start;
    int picture, pictures;

    if (count != 5) return 2;
    hart_edge_default_options(&options, sizeof options);
    options.threads = atoi(arguments[3]);
    if (hart_edge_open(arguments[1], &options, &handle) != HART_EDGE_OK) {
        fprintf(stderr, "%s\n", hart_edge_last_error(handle));
        return 1;
    }
    opened = now();
    hart_edge_default_params(&params, sizeof params);
    params.prompt = arguments[2];
    params.seed = 7;
    params.on_scale = keep_first;
    params.user_data = &first;
    pictures = atoi(arguments[4]);
    for (picture = 0; picture <= pictures; ++picture) {
        start = now();
        if (hart_edge_generate(handle, &params, &image) != HART_EDGE_OK) {
            fprintf(stderr, "%s\n", hart_edge_last_error(handle));
            return 1;
        }
        hart_edge_image_free(image);
        if (picture == 0) {
            printf("{\"open\": %.6f, \"first_scale\": %.6f, \"first\": %.6f, \"times\": [", opened - begin,
                   first - begin, now() - begin);
        } else {
            printf("%s%.6f", picture > 1 ? ", " : "", now() - start);
        }
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("], \"peak\": %ld}\n", usage.ru_maxrss * 1024L);
    hart_edge_close(handle);
    return 0;
}
