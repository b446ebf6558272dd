// SPDX-License-Identifier: Apache-2.0
// Vectors of float32 as wide as the instruction set that this is compiled for has them, and how
// the dtypes of a cache get into and out of them.
#pragma once

#include <immintrin.h>

#include "cpu/kernel.h"

namespace jax_mla::cpu {
namespace {

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using Floats = __m512;
using Ints = __m512i;

inline Floats Load(const float* from) { return _mm512_loadu_ps(from); }
inline void Store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
inline Floats Splat(float x) { return _mm512_set1_ps(x); }
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats Max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline float Sum(Floats x) { return _mm512_reduce_add_ps(x); }
inline float Largest(Floats x) { return _mm512_reduce_max_ps(x); }
inline Ints Round(Floats x) { return _mm512_cvtps_epi32(x); }
inline Floats FromInts(Ints x) { return _mm512_cvtepi32_ps(x); }
inline Ints Add(Ints a, int b) { return _mm512_add_epi32(a, _mm512_set1_epi32(b)); }
inline Ints And(Ints a, int b) { return _mm512_and_si512(a, _mm512_set1_epi32(b)); }
inline Ints ShiftLeft(Ints a, int bits) { return _mm512_slli_epi32(a, bits); }
inline Ints ShiftRight(Ints a, int bits) { return _mm512_srli_epi32(a, bits); }
inline Floats Bits(Ints x) { return _mm512_castsi512_ps(x); }
inline Ints Bits(Floats x) { return _mm512_castps_si512(x); }
inline Ints Or(Ints a, Ints b) { return _mm512_or_si512(a, b); }
inline Floats SelectEqual(Ints a, int b, Floats equal, Floats other) {
  return _mm512_mask_blend_ps(_mm512_cmpeq_epi32_mask(a, _mm512_set1_epi32(b)), other, equal);
}
inline Ints Load16(const void* from) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
}
inline Ints Load8(const void* from) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}
inline void Store16(void* to, Ints x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtepi32_epi16(x));
}
inline Floats LoadHalf(const void* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
}
inline void StoreHalf(void* to, Floats x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

#else

constexpr int kLanes = 8;
using Floats = __m256;
using Ints = __m256i;

inline Floats Load(const float* from) { return _mm256_loadu_ps(from); }
inline void Store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
inline Floats Splat(float x) { return _mm256_set1_ps(x); }
inline Floats MultiplyAdd(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats Max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline float Sum(Floats x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
inline float Largest(Floats x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
inline Ints Round(Floats x) { return _mm256_cvtps_epi32(x); }
inline Floats FromInts(Ints x) { return _mm256_cvtepi32_ps(x); }
inline Ints Add(Ints a, int b) { return _mm256_add_epi32(a, _mm256_set1_epi32(b)); }
inline Ints And(Ints a, int b) { return _mm256_and_si256(a, _mm256_set1_epi32(b)); }
inline Ints ShiftLeft(Ints a, int bits) { return _mm256_slli_epi32(a, bits); }
inline Ints ShiftRight(Ints a, int bits) { return _mm256_srli_epi32(a, bits); }
inline Floats Bits(Ints x) { return _mm256_castsi256_ps(x); }
inline Ints Bits(Floats x) { return _mm256_castps_si256(x); }
inline Ints Or(Ints a, Ints b) { return _mm256_or_si256(a, b); }
inline Floats SelectEqual(Ints a, int b, Floats equal, Floats other) {
  return _mm256_blendv_ps(other, equal, Bits(_mm256_cmpeq_epi32(a, _mm256_set1_epi32(b))));
}
inline Ints Load16(const void* from) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}
inline Ints Load8(const void* from) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(from)));
}
inline void Store16(void* to, Ints x) {
  const __m128i low = _mm256_castsi256_si128(x), high = _mm256_extracti128_si256(x, 1);
  _mm_storeu_si128(static_cast<__m128i*>(to), _mm_packus_epi32(low, high));
}
inline Floats LoadHalf(const void* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}
inline void StoreHalf(void* to, Floats x) {
  _mm_storeu_si128(static_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

#endif

// 2^x for x <= 0, within 2e-7 of it; 0 below 2^-126. -inf gives 0, NaN gives NaN.
inline Floats Exp2(Floats x) {
  x = Max(Splat(-127.0f), x);  // the second, if there is a NaN
  const Ints whole = Round(x);
  const Floats rest = x - FromInts(whole);
  Floats y = Splat(1.5403530e-4f);
  y = MultiplyAdd(y, rest, Splat(1.3333558e-3f));
  y = MultiplyAdd(y, rest, Splat(9.6181291e-3f));
  y = MultiplyAdd(y, rest, Splat(5.5504109e-2f));
  y = MultiplyAdd(y, rest, Splat(2.4022651e-1f));
  y = MultiplyAdd(y, rest, Splat(6.9314718e-1f));
  y = MultiplyAdd(y, rest, Splat(1.0f));
  return y * Bits(ShiftLeft(Add(whole, 127), 23));
}

inline float Exp2(float x) {
  float lanes[kLanes];
  Store(lanes, Exp2(Splat(x)));
  return lanes[0];
}

// float8 with 4 bits of exponent, without infinities; `bias` tells the two kinds apart, and which
// code is NaN: all ones in e4m3fn, the negative zero in e4m3fnuz.
template <int bias>
inline Floats FromFloat8(Ints code) {
  const Ints sign = ShiftLeft(And(code, 0x80), 24), magnitude = And(code, 0x7f);
  const Floats normal = Bits(Add(ShiftLeft(magnitude, 20), (127 - bias) << 23));
  const Floats subnormal = FromInts(magnitude) * Splat(1.0f / (1 << (bias + 2)));
  Floats x = SelectEqual(And(magnitude, 0x78), 0, subnormal, normal);
  x = Bits(Or(Bits(x), sign));
  const Floats nan = Splat(__builtin_nanf(""));
  if (bias == 7) return SelectEqual(magnitude, 0x7f, nan, x);
  return SelectEqual(code, 0x80, nan, x);
}

// Numbers index .. index + kLanes - 1 of an array.
template <Dtype dtype>
inline Floats Widened(const void* array, int64_t index) {
  const char* bytes = static_cast<const char*>(array);
  switch (dtype) {
    case Dtype::kFloat32: return Load(static_cast<const float*>(array) + index);
    case Dtype::kBfloat16: return Bits(ShiftLeft(Load16(bytes + 2 * index), 16));
    case Dtype::kFloat16: return LoadHalf(bytes + 2 * index);
    case Dtype::kFloat8E4M3FN: return FromFloat8<7>(Load8(bytes + index));
    case Dtype::kFloat8E4M3FNUZ: return FromFloat8<8>(Load8(bytes + index));
  }
  __builtin_unreachable();
}

// The same the other way, rounded to nearest even. Results are never float8.
inline void Narrow(Dtype dtype, void* array, int64_t index, Floats x) {
  char* bytes = static_cast<char*>(array);
  if (dtype == Dtype::kFloat32) return Store(static_cast<float*>(array) + index, x);
  if (dtype == Dtype::kFloat16) return StoreHalf(bytes + 2 * index, x);
  const Ints bits = Bits(x), odd = And(ShiftRight(bits, 16), 1);
#if defined(__AVX512F__)
  const Ints rounded = Add(_mm512_add_epi32(bits, odd), 0x7fff);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  Store16(bytes + 2 * index,
          _mm512_mask_mov_epi32(ShiftRight(rounded, 16), nan, _mm512_set1_epi32(0x7fc0)));
#else
  const Ints rounded = Add(_mm256_add_epi32(bits, odd), 0x7fff);
  const Ints nan = Bits(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  Store16(bytes + 2 * index, _mm256_blendv_epi8(ShiftRight(rounded, 16),
                                                _mm256_set1_epi32(0x7fc0), nan));
#endif
}

constexpr int64_t ItemSize(Dtype dtype) {
  if (dtype == Dtype::kFloat32) return 4;
  return dtype == Dtype::kBfloat16 || dtype == Dtype::kFloat16 ? 2 : 1;
}

}  // namespace
}  // namespace jax_mla::cpu
