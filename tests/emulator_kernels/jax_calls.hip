// SPDX-License-Identifier: Apache-2.0
// Kernels of FFI custom calls: one work-item an element, buffers whole multiples of the workgroup.
#include "device.h"

KERNEL(64) to_workspace(const i32 *x, i32 *, i32 *workspace) {
  workspace[global_id()] = 2 * x[global_id()];
}

KERNEL(64) from_workspace(const i32 *, i32 *y, i32 *workspace) {
  y[global_id()] = workspace[global_id()] + 1;
}

// Writes each element one place too far: the last lands behind the end of y.
KERNEL(64) overrun(const i32 *x, i32 *y) { y[global_id() + 1] = x[global_id()]; }

KERNEL(64) increment(const i32 *x, i32 *y) { y[global_id()] = x[global_id()] + 1; }

// Writes where nothing was ever allocated.
KERNEL(64) astray(const i32 *x, i32 *y) { y[global_id() + (1ul << 42)] = x[global_id()]; }
