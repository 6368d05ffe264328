/* ONNX Runtime with calls that fail on request, and a count of its objects that were not released. */
#ifndef HART_EDGE_TESTS_FAILING_ENGINE_H
#define HART_EDGE_TESTS_FAILING_ENGINE_H

/* Make the n-th call that can fail do so from now on (from 0), and `all` that follow it as well. -1: none. */
void engine_fail(long n, int all);

/* How many calls failed since then. */
long engine_failed(void);

/* Objects and statuses that are not released. */
long engine_live(void);

#endif
