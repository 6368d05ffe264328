/* Allocations of libhart_edge that fail on request, and a count of those that were not freed. */
#ifndef HART_EDGE_TESTS_FAILING_MEMORY_H
#define HART_EDGE_TESTS_FAILING_MEMORY_H

/* Make the n-th allocation from now on fail (from 0), and `all` that follow it as well. -1: none. */
void memory_fail(long n, int all);

/* How many allocations failed since then. */
long memory_failed(void);

/* Blocks and maps that the library holds now. */
long memory_live(void);

#endif
