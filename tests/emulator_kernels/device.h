// SPDX-License-Identifier: Apache-2.0
// What a test kernel needs to be one source for an AMD GPU and for the host: only builtins.
//
// On the host a kernel is a function that runs one workgroup: THREADS is a loop over its work-items
// and LDS is an ordinary array. A kernel with barriers is therefore written as a row of THREADS
// blocks with block_sync() between them, and keeps in LDS whatever has to live across.
#pragma once

using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using i16 = short;
using u32 = unsigned;
using i32 = int;
using u64 = unsigned long;
using i64 = long;
using f16 = _Float16;
using f32 = float;
using f64 = double;

#ifdef __AMDGCN__

#define DEVICE __attribute__((device)) static inline
#define KERNEL(threads) \
  extern "C" __attribute__((global, amdgpu_flat_work_group_size(1, threads))) void
#define SHARED __attribute__((shared)) static
#define THREADS
#define PICK(device, host) (device)

DEVICE u32 thread_id() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 block_id() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE u32 block_size() { return __builtin_amdgcn_workgroup_size_x(); }

// s_barrier alone waits for no memory access; the fences are what emits s_waitcnt.
DEVICE void block_sync() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

#else

extern "C" {
u32 host_thread, host_block, host_block_size;
}

#define DEVICE static inline
#define KERNEL(threads) extern "C" void
#define SHARED static
#define THREADS for (host_thread = 0; host_thread < host_block_size; host_thread++)
#define PICK(device, host) (host)

DEVICE u32 thread_id() { return host_thread; }
DEVICE u32 block_id() { return host_block; }
DEVICE u32 block_size() { return host_block_size; }
DEVICE void block_sync() {}

#endif

DEVICE u32 global_id() { return block_id() * block_size() + thread_id(); }

template <class To, class From>
DEVICE To bit_cast(From value) {
  return __builtin_bit_cast(To, value);
}

// A kernel that applies an expression in x, y and z to each triple of inputs. The tests find these
// lines by their form: ITEM(name, input type, output type, expression). With UNIFORM a wave takes
// one triple at a time, so that its scalar unit has to compute.
#ifdef UNIFORM
#define EACH_ITEM(i, count) \
  for (u32 i = block_id() * 256; i < block_id() * 256 + 256 && i < count; i++)
#else
#define EACH_ITEM(i, count) for (u32 i = global_id(); i < count; i = count)
#endif

#define ITEM(name, Input, Output, ...)                                                   \
  KERNEL(256) name(const Input *__restrict xs, const Input *__restrict ys,               \
                   const Input *__restrict zs, Output *__restrict results, u32 count) {  \
    THREADS {                                                                            \
      EACH_ITEM(i, count) {                                                              \
        [[maybe_unused]] Input x = xs[i], y = ys[i], z = zs[i];                          \
        results[i] = (Output)(__VA_ARGS__);                                              \
      }                                                                                  \
    }                                                                                    \
  }
