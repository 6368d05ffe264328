/* An ONNX Runtime whose calls fail on request, and which counts its objects that were not released. */
#ifndef HART_EDGE_TESTS_FAILING_ENGINE_H
#define HART_EDGE_TESTS_FAILING_ENGINE_H

/* Make the n-th call from now on, counted from 0, fail, and with `all` those after it too. -1: none. */
void engine_fail(long n, int all);

/* How many calls have failed since engine_fail. */
long engine_failed(void);

/* How many objects and statuses are not released. */
long engine_live(void);

/* Have a function called with the binding, the name and the address of every output that is bound; NULL: none. */
void engine_tell_outputs(void (*tell)(const void *binding, const char *name, const void *data));

#endif
