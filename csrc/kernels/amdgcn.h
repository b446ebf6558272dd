// SPDX-License-Identifier: Apache-2.0
// Primitives on gfx942 and gfx950. Included by device.h.
#pragma once

// Launched with `threads` work-items, at least `waves` waves to a SIMD. Without the bound 1024
// work-items would be assumed and registers spill.
#define KERNEL(threads, waves)                                              \
  extern "C" __attribute__((global))                                        \
  __attribute__((amdgpu_flat_work_group_size(threads, threads)))            \
  __attribute__((amdgpu_waves_per_eu(waves))) void

DEVICE u32 thread_id() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 block_id_x() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE u32 block_id_y() { return __builtin_amdgcn_workgroup_id_y(); }
DEVICE u32 block_id_z() { return __builtin_amdgcn_workgroup_id_z(); }

// The only barrier there is to use: s_barrier alone waits for no access to LDS or memory, the
// fences are what emits s_waitcnt.
DEVICE void block_sync() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

// The hardware's, about one unit in the last place.
DEVICE f32 exp2(f32 x) { return __builtin_amdgcn_exp2f(x); }
DEVICE f32 log2(f32 x) { return __builtin_amdgcn_logf(x); }
