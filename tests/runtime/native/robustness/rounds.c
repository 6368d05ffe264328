/* Opens, generates, cancels and closes again and again, and prints how much memory is resident.
 *
 *     hart_edge_rounds BUNDLE OPENS PICTURES
 *
 * Opens the bundle OPENS times, and makes PICTURES pictures each time, then one that its callback cancels. After every
 * tenth it prints the opens and pictures so far, and the resident KiB. A tenth more is run before, to warm up. */
#include <string.h>

#include "expect.h"

/* KiB of the process's own memory, without pages of files, which the kernel keeps or drops as it likes. */
static long resident(void) {
    char line[256];
    long found = 0;
    FILE *file = fopen("/proc/self/status", "r");

    EXPECT(file != NULL);
    while (found == 0 && fgets(line, sizeof line, file) != NULL) sscanf(line, "RssAnon: %ld", &found);
    fclose(file);
    EXPECT(found > 0);
    return found;
}

static int32_t stop(void *user_data, const hart_edge_progress *progress) {
    (void)user_data;
    (void)progress;
    return 1;
}

static void tell(long opens, long pictures) {
    printf("%ld %ld %ld\n", opens, pictures, resident());
    fflush(stdout);
}

static void run(const char *bundle, long opens, long pictures, int telling) {
    hart_edge_options options;
    hart_edge_params params;
    long open;
    long picture;

    hart_edge_default_options(&options, sizeof options);
    options.threads = 1;
    for (open = 1; open <= opens; ++open) {
        hart_edge_handle *handle = NULL;
        hart_edge_image *image = NULL;

        EXPECT_STATUS(hart_edge_open(bundle, &options, &handle), HART_EDGE_OK, handle);
        hart_edge_default_params(&params, sizeof params);
        params.prompt = "ab";
        for (picture = 1; picture <= pictures; ++picture) {
            params.seed = (uint64_t)picture;
            EXPECT_STATUS(hart_edge_generate(handle, &params, &image), HART_EDGE_OK, handle);
            hart_edge_image_free(image);
            if (telling && opens == 1 && picture % (pictures < 10 ? 1 : pictures / 10) == 0) tell(open, picture);
        }
        if (pictures > 0) {
            params.on_scale = stop;
            EXPECT_STATUS(hart_edge_generate(handle, &params, &image), HART_EDGE_CANCELLED, handle);
            EXPECT(image == NULL);
        }
        hart_edge_close(handle);
        if (telling && opens > 1 && open % (opens < 10 ? 1 : opens / 10) == 0) tell(open, open * pictures);
    }
}

int main(int count, char **arguments) {
    long opens;
    long pictures;

    if (count != 4) {
        fprintf(stderr, "usage: hart_edge_rounds BUNDLE OPENS PICTURES\n");
        return 2;
    }
    opens = atol(arguments[2]);
    pictures = atol(arguments[3]);
    run(arguments[1], (opens + 9) / 10, (pictures + 9) / 10, 0);
    run(arguments[1], opens, pictures, 1);
    return 0;
}
