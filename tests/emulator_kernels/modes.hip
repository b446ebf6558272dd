// SPDX-License-Identifier: Apache-2.0
// The same operations under each rounding mode; MODE bits 0-1 are float32's, 2-3 the others'.
#include "device.h"

#define ROUNDED(name, mode, T, ...)                                                \
  KERNEL(256) name##_##mode(const T *xs, const T *ys, T *results) {                \
    __builtin_amdgcn_s_setreg(1 | 3 << 11, mode | mode << 2);                      \
    T x = xs[global_id()], y = ys[global_id()], result;                            \
    asm volatile(__VA_ARGS__ : "=v"(result) : "v"(x), "v"(y));                     \
    results[global_id()] = result;                                                 \
  }
// Assembly, or the compiler might compute before the mode is set.
#define IN_EACH_MODE(name, T, ...)    \
  ROUNDED(name, 0, T, __VA_ARGS__)    \
  ROUNDED(name, 1, T, __VA_ARGS__)    \
  ROUNDED(name, 2, T, __VA_ARGS__)    \
  ROUNDED(name, 3, T, __VA_ARGS__)

IN_EACH_MODE(add_f32, f32, "v_add_f32 %0, %1, %2")
IN_EACH_MODE(mul_f32, f32, "v_mul_f32 %0, %1, %2")
IN_EACH_MODE(fma_f32, f32, "v_fma_f32 %0, %1, %2, %2")
IN_EACH_MODE(add_f16, f16, "v_add_f16 %0, %1, %2")
IN_EACH_MODE(mul_f16, f16, "v_mul_f16 %0, %1, %2")
