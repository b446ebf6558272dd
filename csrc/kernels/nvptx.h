// SPDX-License-Identifier: Apache-2.0
// Primitives on NVIDIA GPUs. Included by device.h.
#pragma once

// Launched with `threads` threads, at least `blocks` blocks to a multiprocessor.
#define KERNEL(threads, blocks) \
  extern "C" __attribute__((global)) __attribute__((launch_bounds(threads, blocks))) void

DEVICE u32 thread_id() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 block_id_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE u32 block_id_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE u32 block_id_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }

DEVICE void block_sync() { __syncthreads(); }

// The hardware's, about two units in the last place.
DEVICE f32 exp2(f32 x) { return __nvvm_ex2_approx_ftz_f(x); }
DEVICE f32 log2(f32 x) { return __nvvm_lg2_approx_ftz_f(x); }
