/* Preloaded into a program: counts the allocations of libhart_edge during a picture, also those through the C or C++
 * library, and separately those of the engine. The nearest of the two libraries on the stack is the one that asked. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <hart_edge.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#define DOOR __attribute__((visibility("default")))
#define FRAMES 24

static atomic_int counting;
static atomic_long ours;
static atomic_long engines;
static _Thread_local int inside; /* the stack walk itself allocates */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static void note(void) {
    void *stack[FRAMES];
    int frames;
    int frame;

    if (!atomic_load(&counting) || inside) return;
    inside = 1;
    frames = backtrace(stack, FRAMES);
    for (frame = 1; frame < frames; ++frame) {
        Dl_info found;
        if (!dladdr(stack[frame], &found) || found.dli_fname == NULL) continue;
        if (strstr(found.dli_fname, "libhart_edge.so") != NULL) {
            atomic_fetch_add(&ours, 1);
            break;
        }
        if (strstr(found.dli_fname, "libonnxruntime") != NULL) {
            atomic_fetch_add(&engines, 1);
            break;
        }
    }
    inside = 0;
}

DOOR void *malloc(size_t size) {
    note();
    return __libc_malloc(size);
}

DOOR void *calloc(size_t count, size_t size) {
    note();
    return __libc_calloc(count, size);
}

DOOR void *realloc(void *block, size_t size) {
    note();
    return __libc_realloc(block, size);
}

DOOR void *memalign(size_t alignment, size_t size) {
    note();
    return __libc_memalign(alignment, size);
}

DOOR void *aligned_alloc(size_t alignment, size_t size) {
    note();
    return __libc_memalign(alignment, size);
}

DOOR int posix_memalign(void **block, size_t alignment, size_t size) {
    note();
    *block = __libc_memalign(alignment, size);
    return *block == NULL ? 12 : 0; /* ENOMEM */
}

/* A callback for hart_edge_params.on_scale of a call that makes two pictures. Counts from the end of the first to the
 * end of the second, which includes every step of a loop. user_data: gets the counts of the library and the engine. */
DOOR int32_t count_second_picture(long *found, const hart_edge_progress *progress) {
    void *stack[2];

    if (progress->scale + 1 != progress->scales) return 0;
    if (progress->picture == 0) {
        backtrace(stack, 2); /* makes it load its libraries before the count */
        atomic_store(&counting, 1);
    } else {
        atomic_store(&counting, 0);
        found[0] = atomic_load(&ours);
        found[1] = atomic_load(&engines);
    }
    return 0;
}
