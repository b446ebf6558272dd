// SPDX-License-Identifier: Apache-2.0
// Kernels on devices: code objects are loaded once for each device, failures are remembered.
#pragma once

#include "gpu/device_code.h"
#include "gpu/driver.h"

namespace jax_mla {

// The kernel `name` of `code`, which is loaded if need be, on a device. Any number of threads.
Status GetKernel(const Driver& driver, int device, const DeviceCode& code, const char* name,
                 Function* function);

// The kernel `name` of the embedded `source`, compiled for what the device is.
Status GetKernel(const Driver& driver, int device, const char* source, const char* name,
                 Function* function);

}  // namespace jax_mla
