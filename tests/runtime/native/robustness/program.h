/* The two halves of hart_edge_program: program.c uses the library as it is meant, misuse.c as it is not. */
#ifndef HART_EDGE_TESTS_PROGRAM_H
#define HART_EDGE_TESTS_PROGRAM_H

#include "expect.h"

/* The defaults with a prompt and a seed. */
hart_edge_params params_of(const char *prompt, uint64_t seed);

/* A picture that must come out; the caller frees it. */
hart_edge_image *drawn(hart_edge_handle *handle, const hart_edge_params *params);

/* A generate that must fail: the status, words of the message, no image. */
void refused(hart_edge_handle *handle, const hart_edge_params *params, hart_edge_status wanted, const char *words);

/* Calls without a handle, options, parameters of a bundle with a text model. */
void check_without_handle(void);
void check_options(const char *folder);
void check_bad_params(hart_edge_handle *handle);

/* Spoilt bundles in `parent`: every one must be refused. Returns how many. */
int check_corrupt(const char *parent);

#endif
