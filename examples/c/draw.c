/* Draw a prompt as a PNG: progress on standard error, Ctrl-C cancels.
 *
 *     draw BUNDLE PROMPT SEED FILE.png
 *
 * Built by CMakeLists.txt beside this file, or by: cc draw.c $(pkg-config --cflags --libs hart_edge libpng) -o draw */
#include <errno.h>
#include <hart_edge.h>
#include <png.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hart_edge_handle *handle;

static void cancel(int signal_number) {
    (void)signal_number;
    hart_edge_cancel(handle);
}

static int32_t show(void *user_data, const hart_edge_progress *progress) {
    (void)user_data;
    fprintf(stderr, "%u of %u scales\n", progress->scale + 1, progress->scales);
    return 0; /* anything else cancels */
}

/* A whole number below 2^64 and nothing behind it: 1 if it is one. */
static int read_seed(const char *text, uint64_t *seed) {
    char *end;
    errno = 0;
    *seed = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

static int write_png(const char *file, const hart_edge_image *image) {
    png_image png;
    memset(&png, 0, sizeof png);
    png.version = PNG_IMAGE_VERSION;
    png.width = image->width;
    png.height = image->height;
    png.format = PNG_FORMAT_RGB;
    return png_image_write_to_file(&png, file, 0, image->pixels, 0, NULL);
}

int main(int count, char **arguments) {
    hart_edge_params params;
    hart_edge_image *image = NULL;
    uint64_t seed;
    int status = EXIT_FAILURE;

    if (count != 5) {
        fprintf(stderr, "usage: %s BUNDLE PROMPT SEED FILE.png\n", arguments[0]);
        return 2;
    }
    if (!read_seed(arguments[3], &seed)) {
        fprintf(stderr, "error: seed: expected 0 to 2^64 - 1, found %s\n", arguments[3]);
        return 2;
    }
    if (hart_edge_open(arguments[1], NULL, &handle) == HART_EDGE_OK) {
        signal(SIGINT, cancel);
        hart_edge_default_params(&params, sizeof params);
        params.prompt = arguments[2];
        params.seed = seed;
        params.on_scale = show;
        hart_edge_generate(handle, &params, &image);
    }
    if (image == NULL) {
        fprintf(stderr, "error: %s\n", hart_edge_last_error(handle));
    } else if (!write_png(arguments[4], image)) {
        fprintf(stderr, "error: cannot write %s\n", arguments[4]);
    } else {
        status = EXIT_SUCCESS;
    }
    hart_edge_image_free(image);
    signal(SIGINT, SIG_DFL);
    hart_edge_close(handle);
    return status;
}
