// new and delete of our code, made from the functions of failing_memory.c, since those of a sanitizer would not call
// them.
#include <cstddef>
#include <cstdlib>
#include <new>

extern "C" {

void *__wrap_malloc(std::size_t);
void *__wrap_aligned_alloc(std::size_t, std::size_t);
void __wrap_free(void *);

void *__wrap__Znwm(std::size_t size) {
    void *block = __wrap_malloc(size == 0 ? 1 : size);
    if (block == nullptr) throw std::bad_alloc();
    return block;
}
void *__wrap__ZnwmSt11align_val_t(std::size_t size, std::align_val_t alignment) {
    const auto unit = static_cast<std::size_t>(alignment);
    void *block = __wrap_aligned_alloc(unit, (size + unit - 1) / unit * unit);
    if (block == nullptr) throw std::bad_alloc();
    return block;
}
void *__wrap__ZnwmRKSt9nothrow_t(std::size_t size, const std::nothrow_t &) noexcept {
    return __wrap_malloc(size == 0 ? 1 : size);
}
void *__wrap__Znam(std::size_t size) {
    return __wrap__Znwm(size);
}
void *__wrap__ZnamRKSt9nothrow_t(std::size_t size, const std::nothrow_t &none) noexcept {
    return __wrap__ZnwmRKSt9nothrow_t(size, none);
}
void __wrap__ZdlPv(void *block) noexcept {
    __wrap_free(block);
}
void __wrap__ZdaPv(void *block) noexcept {
    __wrap_free(block);
}
void __wrap__ZdlPvm(void *block, std::size_t) noexcept {
    __wrap_free(block);
}
void __wrap__ZdaPvm(void *block, std::size_t) noexcept {
    __wrap_free(block);
}
void __wrap__ZdlPvSt11align_val_t(void *block, std::align_val_t) noexcept {
    __wrap_free(block);
}
void __wrap__ZdlPvmSt11align_val_t(void *block, std::size_t, std::align_val_t) noexcept {
    __wrap_free(block);
}
void __wrap__ZdlPvRKSt9nothrow_t(void *block, const std::nothrow_t &) noexcept {
    __wrap_free(block);
}
}
