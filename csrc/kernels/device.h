// SPDX-License-Identifier: Apache-2.0
// What kernels are written in: fixed-size types, and the primitives of the target.
//
// Nothing of HIP or CUDA is included, so that the same bytes come out whatever is installed.
#pragma once

using i32 = int;
using i64 = long long;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using f16 = _Float16;
using f32 = float;
using f32x4 = float __attribute__((ext_vector_type(4)));
using u16x4 = unsigned short __attribute__((ext_vector_type(4)));

static_assert(sizeof(i32) == 4 && sizeof(i64) == 8 && sizeof(u16) == 2);

#define DEVICE __attribute__((device)) static inline
#define SHARED __attribute__((shared)) static

#if defined(__AMDGCN__)
#include "amdgcn.h"
#elif defined(__NVPTX__)
#include "nvptx.h"
#else
#error "for amdgcn and nvptx targets only"
#endif

constexpr f32 kInfinity = __builtin_inff();
constexpr f32 kLog2E = 1.4426950408889634f;
constexpr f32 kLn2 = 0.6931471805599453f;

// Natural exponential and logarithm over the hardware's base 2; 0 for -inf, -inf for 0.
DEVICE f32 exp(f32 x) { return exp2(x * kLog2E); }
DEVICE f32 log(f32 x) { return log2(x) * kLn2; }

// Round to nearest, ties to even; NaN stays NaN.
DEVICE u16 bf16_bits(f32 x) {
  const u32 bits = __builtin_bit_cast(u32, x);
  if (x != x) return 0x7fff;
  return static_cast<u16>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
DEVICE u16 f16_bits(f32 x) { return __builtin_bit_cast(u16, static_cast<f16>(x)); }
