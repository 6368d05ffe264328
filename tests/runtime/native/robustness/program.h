/* The two parts of hart_edge_program: program.c uses the library correctly, misuse.c wrongly. */
#ifndef HART_EDGE_TESTS_PROGRAM_H
#define HART_EDGE_TESTS_PROGRAM_H

#include "expect.h"

/* The defaults with a prompt and a seed. */
hart_edge_params params_of(const char *prompt, uint64_t seed);

/* Generate a picture, which must succeed; the caller frees it. */
hart_edge_image *drawn(hart_edge_handle *handle, const hart_edge_params *params);

/* Call generate, which must fail with this status, these words in the message, and no image. */
void refused(hart_edge_handle *handle, const hart_edge_params *params, hart_edge_status wanted, const char *words);

/* Wrong calls without a handle, wrong options, wrong parameters for a bundle with a text model. */
void check_without_handle(void);
void check_options(const char *folder);
void check_bad_params(hart_edge_handle *handle);

/* Open the spoilt bundles in `parent`, which must all be refused. Returns how many there are. */
int check_corrupt(const char *parent);

#endif
