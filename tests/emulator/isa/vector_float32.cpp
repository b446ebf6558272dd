// SPDX-License-Identifier: Apache-2.0
// Vector arithmetic on 32-bit floats.
#include <algorithm>

#include "lanewise.h"

namespace emu {
namespace {

// The ISA's minimum and maximum without branches, so that they become vector instructions.
inline float fast_max(float a, float b) {
  const float larger = a > b ? a : b;  // b if either is NaN
  const float equal = a == 0 ? as_float(as_bits(a) & as_bits(b)) : a;
  const float number = a == b ? equal : larger;
  return b != b ? a : number;
}
inline float fast_min(float a, float b) {
  const float smaller = a < b ? a : b;
  const float equal = a == 0 ? as_float(as_bits(a) | as_bits(b)) : a;
  const float number = a == b ? equal : smaller;
  return b != b ? a : number;
}

void multiply_accumulate(Wave &wave, const Instruction &i) {  // v_fmac_f32
  FloatRow a, b, result;
  const float *x = read_f32(wave, i, 0, a), *y = read_f32(wave, i, 1, b);
  const auto *sum = reinterpret_cast<const float *>(wave.row(destination_of(wave, i)));
  const bool flush = !(wave.mode & mode_f32_input_denormals);
  for (int l = 0; l < lanes; l++)
    result[l] = std::fma(x[l], y[l], flush ? flush_denormal(sum[l]) : sum[l]);
  write_f32(wave, i, result);
}

void load_exponent(Wave &wave, const Instruction &i) {  // v_ldexp_f32
  FloatRow a, result;
  Row b;
  const float *x = read_f32(wave, i, 0, a);
  const uint32_t *exponent = read_u32(wave, i, 1, b);
  for (int l = 0; l < lanes; l++)
    result[l] = std::ldexp(x[l], std::clamp(static_cast<int32_t>(exponent[l]), -1000, 1000));
  write_f32(wave, i, result);
}

void get_exponent(Wave &wave, const Instruction &i) {  // v_frexp_exp_i32_f32
  FloatRow a;
  Row result;
  const float *x = read_f32(wave, i, 0, a, false);
  for (int l = 0; l < lanes; l++) {
    int exponent = 0;
    if (std::isfinite(x[l])) std::frexp(x[l], &exponent);
    result[l] = static_cast<uint32_t>(exponent);
  }
  write_u32(wave, i, result);
}

template <class T>
T mantissa(T x) {
  int exponent;
  return std::isfinite(x) ? std::frexp(x, &exponent) : x;
}

}  // namespace

void add_vector_float32(Bindings &b) {
  auto fma = [](float x, float y, float z) { return std::fma(x, y, z); };
  auto log2 = [](float x) { return x == 0 ? -INFINITY : std::log2(x); };
  auto exp2 = [](float x) { return std::exp2(x); };
  auto reciprocal = [](float x) { return 1.0f / x; };
  constexpr double turn = 6.283185307179586;
  b.add("v_add_f32", binary_f32([](float x, float y) { return x + y; }));
  b.add("v_sub_f32", binary_f32([](float x, float y) { return x - y; }));
  b.add("v_subrev_f32", binary_f32([](float x, float y) { return y - x; }));
  b.add("v_mul_f32", binary_f32([](float x, float y) { return x * y; }));
  b.add("v_mul_legacy_f32",
        binary_f32([](float x, float y) { return x == 0 || y == 0 ? 0.0f : x * y; }));
  b.add("v_min_f32", binary_f32([](float x, float y) { return fast_min(x, y); }));
  b.add("v_max_f32", binary_f32([](float x, float y) { return fast_max(x, y); }));
  b.add("v_fma_f32", ternary_f32(fma));
  b.add("v_fmamk_f32", ternary_f32(fma));
  b.add("v_fmaak_f32", ternary_f32(fma));
  b.add("v_fmac_f32", multiply_accumulate);
  b.add("v_min3_f32",
        ternary_f32([](float x, float y, float z) { return fast_min(fast_min(x, y), z); }));
  b.add("v_max3_f32",
        ternary_f32([](float x, float y, float z) { return fast_max(fast_max(x, y), z); }));
  b.add("v_med3_f32", ternary_f32([](float x, float y, float z) { return median(x, y, z); }));
  b.add("v_minimum3_f32", ternary_f32([](float x, float y, float z) {
          return propagating_min(propagating_min(x, y), z);
        }));
  b.add("v_maximum3_f32", ternary_f32([](float x, float y, float z) {
          return propagating_max(propagating_max(x, y), z);
        }));
  b.add("v_fract_f32", unary_f32([](float x) {
          return std::isinf(x) ? as_float(quiet_nan) : std::min(x - std::floor(x), 0x1.fffffep-1f);
        }));
  b.add("v_trunc_f32", unary_f32([](float x) { return std::trunc(x); }));
  b.add("v_ceil_f32", unary_f32([](float x) { return std::ceil(x); }));
  b.add("v_floor_f32", unary_f32([](float x) { return std::floor(x); }));
  b.add("v_rndne_f32", unary_f32([](float x) { return round_even(x); }));
  b.add("v_exp_f32", transcendental_f32(exp2));
  b.add("v_log_f32", transcendental_f32(log2));
  b.add("v_exp_legacy_f32", transcendental_f32(exp2));
  b.add("v_log_legacy_f32", transcendental_f32(log2));
  b.add("v_rcp_f32", transcendental_f32(reciprocal));
  b.add("v_rcp_iflag_f32", transcendental_f32(reciprocal));
  b.add("v_rsq_f32",
        transcendental_f32([](float x) { return static_cast<float>(1.0 / std::sqrt(double{x})); }));
  b.add("v_sqrt_f32", transcendental_f32([](float x) { return std::sqrt(x); }));
  b.add("v_sin_f32", unary_f32([](float x) { return static_cast<float>(std::sin(x * turn)); }));
  b.add("v_cos_f32", unary_f32([](float x) { return static_cast<float>(std::cos(x * turn)); }));
  b.add("v_ldexp_f32", load_exponent);
  b.add("v_frexp_exp_i32_f32", get_exponent);
  b.add("v_frexp_mant_f32", unary_f32([](float x) { return mantissa(x); }));
}

}  // namespace emu
