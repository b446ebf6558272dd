// SPDX-License-Identifier: Apache-2.0
// Atomic operations on global memory and LDS, contended and returning.
#include "device.h"

#define RELAXED __ATOMIC_RELAXED

// Three kernels an operation: many work-items on few global cells, without the old value; each on
// a cell of its own, with it; many on few cells of LDS. `value` is the work-item's operand.
#define ATOMIC(name, T, ...)                                                                    \
  DEVICE T apply_##name(T *cell, [[maybe_unused]] T value) { return __VA_ARGS__; }              \
  KERNEL(256) name##_contended(T *cells, const T *values) {                                     \
    THREADS { (void)apply_##name(&cells[global_id() % 5], values[global_id()]); }               \
  }                                                                                             \
  KERNEL(256) name##_returning(T *cells, const T *values, T *old) {                             \
    THREADS { old[global_id()] = apply_##name(&cells[global_id()], values[global_id()]); }      \
  }                                                                                             \
  KERNEL(256) name##_in_lds(T *cells, const T *values, T *old) {                                \
    SHARED T line[261];                                                                         \
    THREADS {                                                                                   \
      line[thread_id()] = cells[thread_id()];                                                   \
      if (thread_id() < 5) line[256 + thread_id()] = cells[thread_id()];                        \
    }                                                                                           \
    block_sync();                                                                               \
    THREADS {                                                                                   \
      T value = values[global_id()];                                                            \
      old[global_id()] = apply_##name(&line[thread_id()], value);                               \
      (void)apply_##name(&line[256 + thread_id() % 5], value);                                  \
    }                                                                                           \
    block_sync();                                                                               \
    THREADS {                                                                                   \
      if (thread_id() < 5) cells[5 * block_id() + thread_id()] = line[256 + thread_id()];       \
    }                                                                                           \
  }

#define INTEGERS(suffix, T)                                                     \
  ATOMIC(add_##suffix, T, __atomic_fetch_add(cell, value, RELAXED))             \
  ATOMIC(sub_##suffix, T, __atomic_fetch_sub(cell, value, RELAXED))             \
  ATOMIC(and_##suffix, T, __atomic_fetch_and(cell, value | 0xff, RELAXED))      \
  ATOMIC(or_##suffix, T, __atomic_fetch_or(cell, value & 0x11111111, RELAXED))  \
  ATOMIC(xor_##suffix, T, __atomic_fetch_xor(cell, value, RELAXED))             \
  ATOMIC(min_##suffix, T, __atomic_fetch_min(cell, value, RELAXED))             \
  ATOMIC(max_##suffix, T, __atomic_fetch_max(cell, value, RELAXED))
INTEGERS(u32, u32)
INTEGERS(i32, i32)
INTEGERS(u64, u64)
INTEGERS(i64, i64)

// Numbers that are small and whole, so that the order of the sums does not matter.
ATOMIC(add_f32, f32, __atomic_fetch_add(cell, value, RELAXED))
ATOMIC(add_f64, f64, __atomic_fetch_add(cell, value, RELAXED))
ATOMIC(max_f32, f32, __atomic_fetch_max(cell, value, RELAXED))
ATOMIC(max_f64, f64, __atomic_fetch_max(cell, value, RELAXED))
ATOMIC(min_f64, f64, __atomic_fetch_min(cell, value, RELAXED))

DEVICE u32 wrap_up(u32 old, u32 limit) { return old >= limit ? 0 : old + 1; }
DEVICE u32 wrap_down(u32 old, u32 limit) { return old == 0 || old > limit ? limit : old - 1; }
DEVICE u32 replaced(u32 *cell, u32 value) {
  u32 old = *cell;
  *cell = value;
  return old;
}
#define WRAP(direction)                                                              \
  PICK(__builtin_amdgcn_atomic_##direction##32(cell, 1000, RELAXED, "agent"), \
       replaced(cell, WRAP_##direction(*cell, 1000)))
#define WRAP_inc wrap_up
#define WRAP_dec wrap_down
ATOMIC(inc_u32, u32, WRAP(inc))
ATOMIC(dec_u32, u32, WRAP(dec))

// The old value of a swap and of a compare and swap, on cells of their own.
KERNEL(256) swap(u32 *cells, const u32 *values, u32 *old) {
  THREADS {
    u32 i = global_id();
    old[i] = __atomic_exchange_n(&cells[i], values[i], RELAXED);
  }
}
KERNEL(256) compare_swap(u64 *cells, const u64 *values, u64 *old) {
  THREADS {
    u32 i = global_id();
    u64 expected = i % 3 ? cells[i] : 5;
    __atomic_compare_exchange_n(&cells[i], &expected, values[i], false, RELAXED, RELAXED);
    old[i] = expected;
  }
}

// Everyone takes a ticket, from global memory and from LDS: each must come out once.
KERNEL(256) tickets(u32 *counter, u32 *taken, u32 *taken_in_lds) {
  SHARED u32 local;
  THREADS {
    if (thread_id() == 0) local = 0;
  }
  block_sync();
  THREADS {
    taken[global_id()] = __atomic_fetch_add(counter, 1, RELAXED);
    taken_in_lds[global_id()] = __atomic_fetch_add(&local, 1, RELAXED);
  }
}

// A sum by compare and swap, in which every lane of a wave contends for the same word.
KERNEL(256) add_by_swaps(u32 *cell, const u32 *values) {
  THREADS {
    u32 expected = __atomic_load_n(cell, RELAXED), wanted;
    do wanted = expected + (values[global_id()] & 0xff);
    while (!__atomic_compare_exchange_n(cell, &expected, wanted, false, RELAXED, RELAXED));
  }
}

#ifdef __AMDGCN__
using f16x2 = f16 __attribute__((ext_vector_type(2)));
using bf16x2 = short __attribute__((ext_vector_type(2)));
KERNEL(256) add_pairs(f16x2 *halves, bf16x2 *bfloats, const f16x2 *half_values,
                      const bf16x2 *bfloat_values) {
  u32 i = global_id();
  __builtin_amdgcn_global_atomic_fadd_v2f16(
      (__attribute__((address_space(1))) f16x2 *)halves + i % 5, half_values[i]);
  __builtin_amdgcn_global_atomic_fadd_v2bf16(
      (__attribute__((address_space(1))) bf16x2 *)bfloats + i % 5, bfloat_values[i]);
}
#endif
