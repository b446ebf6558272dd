// SPDX-License-Identifier: Apache-2.0
// Integer functions that the scalar and the vector ALU share.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

namespace emu {

inline int32_t as_signed(uint32_t x) { return static_cast<int32_t>(x); }
inline uint32_t as_unsigned(int64_t x) { return static_cast<uint32_t>(x); }
inline int32_t signed24(uint32_t x) { return as_signed(x << 8) >> 8; }
inline uint32_t unsigned24(uint32_t x) { return x & 0xffffff; }
inline int32_t signed16(uint32_t x) { return static_cast<int16_t>(x); }

template <class T>
T reverse_bits(T x) {
  T result = 0;
  for (unsigned i = 0; i < sizeof(T) * 8; i++) result |= (x >> i & 1) << (sizeof(T) * 8 - 1 - i);
  return result;
}
template <class T>
uint32_t first_one(T x) {  // from the bottom
  return x ? static_cast<uint32_t>(std::countr_zero(x)) : ~0u;
}
template <class T>
uint32_t leading_one(T x) {  // from the top
  return x ? static_cast<uint32_t>(std::countl_zero(x)) : ~0u;
}
template <class T>
uint32_t leading_non_sign(T x) {  // the first bit from the top that differs from the sign
  const T flipped = x >> (sizeof(T) * 8 - 1) ? ~x : x;
  return leading_one(flipped);
}

// Bit fields: `width` bits of x from `offset` on.
template <class T>
T extract_unsigned(T x, unsigned offset, unsigned width) {
  x >>= offset;
  return width >= sizeof(T) * 8 ? x : x & ((T{1} << width) - 1);
}
template <class T>
T extract_signed(T x, unsigned offset, unsigned width) {
  constexpr unsigned size = sizeof(T) * 8;
  using S = std::make_signed_t<T>;
  if (!width) return 0;
  if (offset + width >= size) return static_cast<T>(static_cast<S>(x) >> offset);
  return static_cast<T>(static_cast<S>(x << (size - width - offset)) >> (size - width));
}
template <class T>
T bit_mask(unsigned width, unsigned offset) {
  return ((T{1} << width) - 1) << offset;
}

inline uint32_t saturate_signed(int64_t x) {
  return as_unsigned(std::clamp<int64_t>(x, INT32_MIN, INT32_MAX));
}
template <class T>
T median_integer(T a, T b, T c) {
  return std::max(std::min(a, b), std::min(std::max(a, b), c));
}

}  // namespace emu
