/* Checks for the programs of this folder. A failed one prints what was expected, and exits with status 1. */
#ifndef HART_EDGE_TESTS_EXPECT_H
#define HART_EDGE_TESTS_EXPECT_H

#include <stdio.h>
#include <stdlib.h>

#include "hart_edge.h"

#define EXPECT(condition)                                                                       \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: expected %s, found not\n", __FILE__, __LINE__, #condition); \
            _Exit(1);                                                                           \
        }                                                                                       \
    } while (0)

/* A call must return this status; for another one its message is printed. handle: may be NULL. */
#define EXPECT_STATUS(call, wanted, handle)                                                    \
    do {                                                                                       \
        const hart_edge_status found_status = (call);                                          \
        if (found_status != (wanted)) {                                                        \
            fprintf(stderr, "%s:%d: expected %s from %s, found %s: %s\n", __FILE__, __LINE__,  \
                    hart_edge_status_text(wanted), #call, hart_edge_status_text(found_status), \
                    hart_edge_last_error(handle));                                             \
            _Exit(1);                                                                          \
        }                                                                                      \
    } while (0)

#endif
