// Checks an ONNX file before an engine library opens it: it may have no custom operators, and name no files but the
// bundle's (hart_edge/bundle/onnx_guard.py).
//
// Where protobuf is lenient (unknown fields, a field given twice, odd wire types) this reader refuses: a file that two
// readers understand differently could get past the check. Tensor data is skipped by its length.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace hart_edge {

// Files that tensors may lie in, relative to the graph's folder, with their bytes.
using ExternalFiles = std::unordered_map<std::string, std::int64_t>;

// Throws the bundle error unless `data`, the file `path`, is an ONNX model that may be given to an engine. Returns
// whether any tensor lies in an external file.
bool check_graph(const std::string &path, std::string_view data, const ExternalFiles &allowed_external);

}  // namespace hart_edge
