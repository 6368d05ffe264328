/* Makes allocations of libhart_edge fail on request, and counts those that were not freed. */
#ifndef HART_EDGE_TESTS_FAILING_MEMORY_H
#define HART_EDGE_TESTS_FAILING_MEMORY_H

/* Make the n-th allocation from now on, counted from 0, fail, and with `all` those after it too. -1: none. */
void memory_fail(long n, int all);

/* How many allocations have failed since memory_fail. */
long memory_failed(void);

/* How many blocks and maps the library has now. */
long memory_live(void);

#endif
