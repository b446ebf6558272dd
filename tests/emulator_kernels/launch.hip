// SPDX-License-Identifier: Apache-2.0
// What a launch hands to a kernel: ids, sizes, arguments, LDS, and a code object's variables.
#include "device.h"

// Every id and size, in three dimensions.
KERNEL(256) places(u32 *output) {
  u32 x = __builtin_amdgcn_workitem_id_x(), y = __builtin_amdgcn_workitem_id_y();
  u32 z = __builtin_amdgcn_workitem_id_z();
  u32 width = __builtin_amdgcn_workgroup_size_x(), height = __builtin_amdgcn_workgroup_size_y();
  u32 depth = __builtin_amdgcn_workgroup_size_z();
  u32 bx = __builtin_amdgcn_workgroup_id_x(), by = __builtin_amdgcn_workgroup_id_y();
  u32 bz = __builtin_amdgcn_workgroup_id_z();
  u32 blocks_x = __builtin_amdgcn_grid_size_x() / width;
  u32 blocks_y = __builtin_amdgcn_grid_size_y() / height;
  u32 block = (bz * blocks_y + by) * blocks_x + bx;
  u32 item = (z * height + y) * width + x;
  output[block * (width * height * depth) + item] = item | block << 16;
}

// Arguments of every width, each at its natural alignment.
KERNEL(256) arguments(u8 a, u16 b, f64 c, i8 d, u32 e, f16 f, u64 g, f32 h, f64 *output) {
  f64 values[] = {(f64)a, (f64)b, c, (f64)d, (f64)e, (f64)f, (f64)g, (f64)h};
  if (thread_id() < 8) output[thread_id()] = values[thread_id()];
}

__attribute__((constant)) const u32 primes[16] = {2,  3,  5,  7,  11, 13, 17, 19,
                                                  23, 29, 31, 37, 41, 43, 47, 53};
__attribute__((device)) u32 counter = 40;
__attribute__((device)) u32 *address_of_counter = &counter;
KERNEL(256) variables(u32 *output) {
  output[global_id()] = primes[(global_id() * 7) & 15];
  if (global_id() == 0) {
    *address_of_counter += 2;
    output[0] = counter;
  }
}

// LDS whose size the launch gives, behind a static array.
extern "C" __attribute__((shared)) u32 dynamic[];
KERNEL(256) dynamic_lds(const u32 *input, u32 *output) {
  SHARED u32 fixed[256];
  fixed[thread_id()] = input[thread_id()];
  dynamic[thread_id()] = ~input[thread_id()];
  dynamic[256 + thread_id()] = thread_id();
  block_sync();
  u32 other = 255 - thread_id();
  output[thread_id()] = fixed[other] + dynamic[other] * 3 + dynamic[256 + other];
}
