// A shared library that is loaded at run time, when it is needed.
#pragma once

#include <dlfcn.h>

#include <memory>
#include <string>
#include <vector>

namespace hart_edge {

class SharedLibrary {
 public:
    SharedLibrary() = default;

    // Load the first of these names that the system's loader finds; operator bool says whether one was found.
    explicit SharedLibrary(const std::vector<std::string> &names) {
        for (const std::string &name : names) {
            if (handle_ != nullptr) break;
            // Never unload it: an engine's threads and exit handlers outlive its last session.
            handle_.reset(::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE));
            if (handle_ == nullptr) fault_ = last_fault();
        }
    }

    explicit operator bool() const { return handle_ != nullptr; }
    [[nodiscard]] const std::string &fault() const { return fault_; }  // why none was found

    // A function of the library, null where it has none of this name.
    template <typename Function>
    [[nodiscard]] Function find(const char *name) const {
        return reinterpret_cast<Function>(::dlsym(handle_.get(), name));
    }

 private:
    static std::string last_fault() {
        const char *text = ::dlerror();
        return text == nullptr ? "no reason given" : text;
    }
    struct Close {
        void operator()(void *handle) const { ::dlclose(handle); }
    };
    std::unique_ptr<void, Close> handle_;
    std::string fault_;
};

}  // namespace hart_edge
