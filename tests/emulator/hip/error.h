// SPDX-License-Identifier: Apache-2.0
// The thread's last HIP error, and the text that explains it.
#pragma once

#include <string>

#include "abi.h"

namespace hip {

// Remembers `error` for hipGetLastError and hands it back; hipSuccess is not remembered.
hipError_t fail(hipError_t error);

// The same with a reason: on stderr, and as the report that Python reads.
hipError_t fail(hipError_t error, const std::string& reason);

// Every reason since the last call, one a line.
std::string take_reports();

}  // namespace hip
