// SPDX-License-Identifier: Apache-2.0
// The calling thread's current device.
#pragma once

namespace hip {

int current_device();
bool is_device(int device);

}  // namespace hip
