/* Draws the prompts of standard input and prints the results in full; test_aarch64.py compares the output of two
 * machines.
 *
 *     pictures BUNDLE < "SEED PROMPT" lines
 *
 * Prints for every line the token ids, one line per scale, then: picture WIDTH HEIGHT PROMPT_TOKENS PIXELS-IN-HEX. */
#include "hart_edge.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t show(void *user_data, const hart_edge_progress *progress) {
    uint32_t k;
    (void)user_data;
    for (k = 0; k < progress->tokens; ++k) printf("%s%d", k == 0 ? "" : " ", (int)progress->token_ids[k]);
    printf("\n");
    fflush(stdout);
    return 0;
}

static int draw(hart_edge_handle *handle, char *line) {
    hart_edge_params params;
    hart_edge_image *image;
    char *prompt;
    size_t k;
    hart_edge_default_params(&params, sizeof params);
    line[strcspn(line, "\n")] = '\0';
    params.seed = strtoull(line, &prompt, 10);
    params.prompt = prompt + strspn(prompt, " ");
    params.on_scale = show;
    if (hart_edge_generate(handle, &params, &image) != HART_EDGE_OK) return 0;
    printf("picture %u %u %u ", image->width, image->height, image->prompt_tokens);
    for (k = 0; k < (size_t)3 * image->width * image->height; ++k) printf("%02x", image->pixels[k]);
    printf("\n");
    hart_edge_image_free(image);
    return 1;
}

int main(int count, char **arguments) {
    static char line[4096];
    hart_edge_handle *handle = NULL;
    hart_edge_options options;
    int good;
    if (count != 2) return 2;
    hart_edge_default_options(&options, sizeof options);
    options.threads = 1;
    good = hart_edge_open(arguments[1], &options, &handle) == HART_EDGE_OK;
    while (good && fgets(line, sizeof line, stdin) != NULL) good = draw(handle, line);
    if (!good) fprintf(stderr, "%s\n", hart_edge_last_error(handle));
    hart_edge_close(handle);
    return good ? 0 : 1;
}
