/* Memory functions with which the linker replaces those of the C library (--wrap), in our own code and in libraries
 * that are linked into it: the C++ library (new, exceptions, strings), PCRE2, utf8proc and libcrypto. Mapping a file
 * and starting a thread fail likewise. Calls by ONNX Runtime and by the C library itself are left alone. */
#define _GNU_SOURCE
#include "failing_memory.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_memalign(size_t, size_t);
int __real_posix_memalign(void **, size_t, size_t);
void *__real_aligned_alloc(size_t, size_t);
void __real_free(void *);
char *__real_realpath(const char *, char *);
void *__real_mmap(void *, size_t, int, int, int, off_t);
int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

enum { SLOTS = 1 << 20 }; /* many times what a tiny bundle needs */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *slots[SLOTS]; /* addresses of blocks, hashed, open addressing */
static long live;
static long left = -1; /* allocations until one fails; -1: none fails */
static int all_after;
static long failed;

void memory_fail(long n, int all) {
    pthread_mutex_lock(&mutex);
    left = n;
    all_after = all;
    failed = 0;
    pthread_mutex_unlock(&mutex);
}

long memory_failed(void) {
    return failed;
}
long memory_live(void) {
    return live;
}

static int fails(void) {
    int now;

    pthread_mutex_lock(&mutex);
    now = left == 0;
    if (now) ++failed;
    if (left > 0 || (now && !all_after)) --left;
    pthread_mutex_unlock(&mutex);
    if (now) errno = ENOMEM;
    return now;
}

static size_t home(const void *block) {
    return (size_t)(((uintptr_t)block >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 44);
}

static void *kept(void *block) {
    size_t slot;

    if (block == NULL) return NULL;
    pthread_mutex_lock(&mutex);
    for (slot = home(block); slots[slot] != NULL; slot = (slot + 1) % SLOTS) {
    }
    slots[slot] = block;
    ++live;
    pthread_mutex_unlock(&mutex);
    return block;
}

/* Ignores blocks that we did not allocate: an engine may return such a block. */
static void forget(void *block) {
    size_t hole;
    size_t slot;

    pthread_mutex_lock(&mutex);
    for (hole = home(block); slots[hole] != NULL && slots[hole] != block; hole = (hole + 1) % SLOTS) {
    }
    if (slots[hole] != NULL) {
        --live;
        slots[hole] = NULL;
        for (slot = (hole + 1) % SLOTS; slots[slot] != NULL; slot = (slot + 1) % SLOTS) { /* close the gap */
            if ((slot - home(slots[slot])) % SLOTS < (slot - hole) % SLOTS) continue;
            slots[hole] = slots[slot];
            slots[slot] = NULL;
            hole = slot;
        }
    }
    pthread_mutex_unlock(&mutex);
}

void *__wrap_malloc(size_t size) {
    return fails() ? NULL : kept(__real_malloc(size));
}
void *__wrap_calloc(size_t count, size_t size) {
    return fails() ? NULL : kept(__real_calloc(count, size));
}
void *__wrap_memalign(size_t alignment, size_t size) {
    return fails() ? NULL : kept(__real_memalign(alignment, size));
}
void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    return fails() ? NULL : kept(__real_aligned_alloc(alignment, size));
}

int __wrap_posix_memalign(void **block, size_t alignment, size_t size) {
    int fault;

    if (fails()) return ENOMEM;
    fault = __real_posix_memalign(block, alignment, size);
    if (fault == 0) kept(*block);
    return fault;
}

void *__wrap_realloc(void *block, size_t size) {
    void *moved;

    if (fails()) return NULL;
    if (block != NULL) forget(block);
    moved = __real_realloc(block, size);
    if (moved == NULL && size > 0) {
        kept(block);
        return NULL;
    }
    return kept(moved);
}

void __wrap_free(void *block) {
    if (block == NULL) return;
    forget(block);
    __real_free(block);
}

char *__wrap_realpath(const char *path, char *into) {
    if (into != NULL) return __real_realpath(path, into);
    return fails() ? NULL : kept(__real_realpath(path, NULL));
}

void *__wrap_mmap(void *address, size_t size, int protection, int flags, int file, off_t offset) {
    return fails() ? (void *)-1 : __real_mmap(address, size, protection, flags, file, offset);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *data) {
    return fails() ? EAGAIN : __real_pthread_create(thread, attributes, run, data);
}
