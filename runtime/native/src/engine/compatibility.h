// Decides from the manifest, before an engine is opened, whether this machine can run a bundle's engines
// (engines/tensorrt/compatibility.py).
#pragma once

#include <string>

#include "bundle/target.h"

namespace hart_edge {

// Throw the engine error unless the TensorRT engines run with this version of TensorRT on a GPU of this architecture
// ("sm_87").
void check_machine(const TargetSpec &target, const std::string &version, const std::string &architecture);

}  // namespace hart_edge
