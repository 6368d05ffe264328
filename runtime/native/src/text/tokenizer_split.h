// A text -> its words, by one of the patterns of pre-tokenizers.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "text/tokenizer_file.h"

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;

namespace hart_edge {

class Splitter {
 public:
    explicit Splitter(Pattern pattern);  // not Pattern::none

    // Append the words of a text. They refer to it, and together cover all of it.
    void split(std::string_view text, std::vector<std::string_view> &words) const;

 private:
    struct Free {
        void operator()(pcre2_real_code_8 *code) const;
        void operator()(pcre2_real_match_context_8 *limits) const;
    };
    std::unique_ptr<pcre2_real_code_8, Free> code_;
    std::unique_ptr<pcre2_real_match_context_8, Free> limits_;
};

}  // namespace hart_edge
