// SPDX-License-Identifier: Apache-2.0
// Access through buffer descriptors, and loads that go to LDS at once. For the GPU only.
#include "device.h"

template <int count>
using words = u32 __attribute__((ext_vector_type(count)));
using Buffer = __amdgpu_buffer_rsrc_t;

// Raw: no stride, no swizzle; offsets are bytes and checked against the size.
DEVICE Buffer descriptor(const void *base, u32 bytes) {
  return __builtin_amdgcn_make_buffer_rsrc((void *)base, 0, bytes, 0x20000);
}

#define BUFFER(name, Element, suffix)                                                           \
  KERNEL(256) load_##name(const void *base, Element *results, u32 bytes, u32 scalar_offset) {   \
    u32 offset = thread_id() * sizeof(Element);                                                 \
    results[thread_id()] = __builtin_bit_cast(                                                  \
        Element, __builtin_amdgcn_raw_buffer_load_##suffix(descriptor(base, bytes), offset,     \
                                                           scalar_offset, 0));                  \
  }                                                                                             \
  KERNEL(256) store_##name(const Element *values, void *base, u32 bytes, u32 scalar_offset) {   \
    u32 offset = thread_id() * sizeof(Element);                                                 \
    __builtin_amdgcn_raw_buffer_store_##suffix(values[thread_id()], descriptor(base, bytes),    \
                                               offset, scalar_offset, 0);                       \
  }
BUFFER(u8, u8, b8)
BUFFER(u16, u16, b16)
BUFFER(u32, u32, b32)
BUFFER(u32x2, words<2>, b64)
BUFFER(u32x4, words<4>, b128)

// A uniform descriptor offset beyond what an instruction can hold, and lanes switched off.
KERNEL(256) load_some(const void *base, u32 *results, u32 bytes) {
  Buffer buffer = descriptor(base, bytes);
  u32 value = 7;
  if (thread_id() % 3)
    value = __builtin_amdgcn_raw_buffer_load_b32(buffer, thread_id() * 8 + 4, 0, 0);
  results[thread_id()] = value;
}

KERNEL(256) buffer_add(i32 *base, const i32 *values, i32 *old, u32 bytes) {
  Buffer buffer = descriptor(base, bytes);
  u32 place = thread_id() * 4;
  old[thread_id()] =
      __builtin_amdgcn_raw_ptr_buffer_atomic_add_i32(values[thread_id()], buffer, place, 0, 0);
}

using Lds = __attribute__((address_space(3))) u32;
using Global = __attribute__((address_space(1))) u32;

// Each wave fills its part of LDS without passing through registers, then all read all of it.
#define TO_LDS(name, bytes_each)                                                               \
  KERNEL(256) name(const u32 *base, u32 *results) {                                            \
    constexpr u32 each = bytes_each / 4, wave = 64 * each;                                     \
    SHARED u32 line[256 * each];                                                               \
    u32 first = thread_id() / 64 * wave;                                                       \
    first = __builtin_amdgcn_readfirstlane(first);                                             \
    const u32 *from = base + first + thread_id() % 64 * each;                                  \
    __builtin_amdgcn_global_load_lds((Global *)from, (Lds *)(line + first), bytes_each, 0, 0); \
    block_sync();                                                                              \
    for (u32 i = 0; i < each; i++)                                                             \
      results[thread_id() * each + i] = line[(thread_id() * each + i) * 5 % (256 * each)];     \
  }
TO_LDS(global_to_lds, 4)
#ifdef __gfx950__
TO_LDS(global_to_lds_wide, 16)
#endif

// Beyond the descriptor's range the load puts zeros into LDS.
KERNEL(256) buffer_to_lds(const u32 *base, u32 *results, u32 bytes) {
  SHARED u32 line[256];
  u32 first = __builtin_amdgcn_readfirstlane(thread_id() / 64 * 64);
  __builtin_amdgcn_raw_ptr_buffer_load_lds(descriptor(base, bytes), (Lds *)(line + first), 4,
                                           thread_id() * 4, 0, 0, 0);
  block_sync();
  results[thread_id()] = line[(thread_id() * 5) & 255];
}
