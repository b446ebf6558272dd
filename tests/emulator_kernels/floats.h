// SPDX-License-Identifier: Apache-2.0
// Floating point operations that C++ leaves open or lacks, spelled out for the host.
#pragma once
#include "device.h"

using f32x2 = f32 __attribute__((ext_vector_type(2)));
using f16x2 = f16 __attribute__((ext_vector_type(2)));

// The smaller number, a NaN only if both are; unlike C the zeros are ordered.
template <class Float>
DEVICE Float smaller(Float a, Float b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return __builtin_signbit((f64)a) ? a : b;
  return a < b ? a : b;
}
template <class Float>
DEVICE Float larger(Float a, Float b) {
  return -smaller(-a, -b);
}
template <class Float>
DEVICE Float middle(Float a, Float b, Float c) {
  if (a != a || b != b || c != c) return smaller(smaller(a, b), c);
  return larger(smaller(a, b), smaller(larger(a, b), c));
}
template <class Float>
DEVICE Float fraction_of(Float value, Float below_one) {
  Float rest = value - (Float)__builtin_floor((f64)value);
  return rest > below_one ? below_one : rest;
}

// What nobody promises for an infinity is left out.
template <class Float>
DEVICE Float finite(Float value) {
  return value - value == 0 ? value : 0;
}

// Float to integer as the instructions do it: saturated, NaN to 0.
DEVICE i32 to_i32(f64 value) {
  if (value != value) return 0;
  return value <= -2147483648.0 ? -2147483647 - 1 : value >= 2147483647.0 ? 2147483647 : (i32)value;
}
DEVICE u32 to_u32(f64 value) {
  return !(value > 0) ? 0 : value >= 4294967295.0 ? 4294967295u : (u32)value;
}

// Keeps a sticky last bit, so that a second rounding to half comes out as one rounding would.
DEVICE f32 to_f32_odd(f64 value) {
  f32 rounded = (f32)value;
  if (value != value || (f64)rounded == value) return rounded;
  u32 pattern = bit_cast<u32>(rounded);
  if (__builtin_fabs((f64)rounded) > __builtin_fabs(value)) pattern--;
  return bit_cast<f32>(pattern | 1);
}
DEVICE f16 fused_half(f16 x, f16 y, f16 z) {
  f64 product = (f64)(f32)x * (f32)y, addend = (f32)z, sum = product + addend;
  f64 part = sum - product, lost = (product - (sum - part)) + (addend - part);
  if (lost == lost && lost != 0) {
    u64 pattern = bit_cast<u64>(sum);
    if ((lost < 0) != (sum < 0)) pattern--;
    sum = bit_cast<f64>(pattern | 1);
  }
  return (f16)to_f32_odd(sum);
}

// Every NaN as one and the same, as the tests do for whole results.
DEVICE u16 one_nan(u16 pattern, u16 infinity, u16 nan) {
  return (pattern & 0x7fff) > infinity ? nan : pattern;
}
DEVICE u32 packed(f16x2 pair) {
  u16 low = bit_cast<u16>((f16)pair.x), high = bit_cast<u16>((f16)pair.y);
  return one_nan(low, 0x7c00, 0x7e00) | (u32)one_nan(high, 0x7c00, 0x7e00) << 16;
}

DEVICE u16 to_bf16(f32 value) {
#ifdef __AMDGCN__
  u16 rounded = bit_cast<u16>((__bf16)value);
#else
  u32 pattern = bit_cast<u32>(value);
  u16 rounded = value != value ? 0x7fc0 : (pattern + 0x7fff + (pattern >> 16 & 1)) >> 16;
#endif
  return one_nan(rounded, 0x7f80, 0x7fc0);
}
DEVICE f32 from_bf16(u32 pattern) { return bit_cast<f32>(pattern << 16); }

// v_cmp_class: one bit per class, from signalling NaN to +infinity.
template <class Bits>
DEVICE u32 classes(Bits pattern, u32 exponent_bits, u32 mantissa_bits) {
  bool negative = pattern >> (exponent_bits + mantissa_bits) & 1;
  u32 exponent = pattern >> mantissa_bits & ((1u << exponent_bits) - 1);
  Bits mantissa = pattern & (((Bits)1 << mantissa_bits) - 1);
  if (exponent == (1u << exponent_bits) - 1) {
    if (mantissa) return mantissa >> (mantissa_bits - 1) ? 2 : 1;
    return negative ? 1 << 2 : 1 << 9;
  }
  if (exponent) return negative ? 1 << 3 : 1 << 8;
  if (mantissa) return negative ? 1 << 4 : 1 << 7;
  return negative ? 1 << 5 : 1 << 6;
}

// Mantissa in [0.5, 1) and its exponent; what has none keeps its value and gets exponent 0.
template <class Float>
DEVICE Float mantissa(Float value) {
  if (value == 0 || value - value != 0) return value;
  while (__builtin_fabs((f64)value) >= 1) value *= (Float)0.5;
  while (__builtin_fabs((f64)value) < 0.5) value *= (Float)2;
  return value;
}
template <class Float>
DEVICE i32 exponent(Float value) {
  i32 result = 0;
  if (value == 0 || value - value != 0) return 0;
  for (; __builtin_fabs((f64)value) >= 1; result++) value *= (Float)0.5;
  for (; __builtin_fabs((f64)value) < 0.5; result--) value *= (Float)2;
  return result;
}
