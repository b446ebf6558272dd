// SPDX-License-Identifier: Apache-2.0
// Vector arithmetic on 16-bit floats, one to a register.
#include "lanewise.h"

namespace emu {
namespace {

double rounded_product(double x, double y) {  // "mad" rounds twice
  return half_to_float(double_to_half(x * y, Round::nearest_even));
}

void multiply_accumulate(Wave &wave, const Instruction &i) {  // v_mac_f16
  FloatRow a, b;
  Lanes<double> result;
  const float *x = read_f16(wave, i, 0, a), *y = read_f16(wave, i, 1, b);
  const uint32_t *sum = wave.row(i.destination);
  for (int l = 0; l < lanes; l++) result[l] = rounded_product(x[l], y[l]) + half_to_float(sum[l]);
  write_f16(wave, i, result);
}

void load_exponent(Wave &wave, const Instruction &i) {  // v_ldexp_f16
  FloatRow a;
  Row b;
  Lanes<double> result;
  const float *x = read_f16(wave, i, 0, a);
  const uint32_t *exponent = read_u16(wave, i, 1, b);
  for (int l = 0; l < lanes; l++)
    result[l] =
        std::ldexp(double{x[l]}, std::clamp<int>(static_cast<int16_t>(exponent[l]), -100, 100));
  write_f16(wave, i, result);
}

void get_exponent(Wave &wave, const Instruction &i) {  // v_frexp_exp_i16_f16
  FloatRow a;
  Row result;
  const float *x = read_f16(wave, i, 0, a);
  for (int l = 0; l < lanes; l++) {
    int exponent = 0;
    if (std::isfinite(x[l])) std::frexp(x[l], &exponent);
    result[l] = static_cast<uint32_t>(exponent) & 0xffff;
  }
  write_u16(wave, i, result);
}

}  // namespace

void add_vector_float16(Bindings &b) {
  using enum OtherHalf;
  auto fma = [](double x, double y, double z) { return std::fma(x, y, z); };
  auto mad = [](double x, double y, double z) { return rounded_product(x, y) + z; };
  constexpr double turn = 6.283185307179586;
  b.add("v_add_f16", binary_f16([](double x, double y) { return x + y; }));
  b.add("v_sub_f16", binary_f16([](double x, double y) { return x - y; }));
  b.add("v_subrev_f16", binary_f16([](double x, double y) { return y - x; }));
  b.add("v_mul_f16", binary_f16([](double x, double y) { return x * y; }));
  b.add("v_min_f16", binary_f16([](double x, double y) { return ieee_min(x, y); }));
  b.add("v_max_f16", binary_f16([](double x, double y) { return ieee_max(x, y); }));
  b.add("v_fma_f16", ternary_f16<kept>(fma));
  b.add("v_fma_legacy_f16", ternary_f16<cleared>(fma));
  b.add("v_mad_f16", ternary_f16<kept>(mad));
  b.add("v_mad_legacy_f16", ternary_f16<cleared>(mad));
  b.add("v_madmk_f16", ternary_f16<cleared>(mad));
  b.add("v_madak_f16", ternary_f16<cleared>(mad));
  b.add("v_mac_f16", multiply_accumulate);
  b.add("v_min3_f16", ternary_f16<kept>([](double x, double y, double z) {
          return ieee_min(ieee_min(x, y), z);
        }));
  b.add("v_max3_f16", ternary_f16<kept>([](double x, double y, double z) {
          return ieee_max(ieee_max(x, y), z);
        }));
  b.add("v_med3_f16",
        ternary_f16<kept>([](double x, double y, double z) { return median(x, y, z); }));
  b.add("v_rcp_f16", unary_f16([](double x) { return 1.0 / x; }));
  b.add("v_sqrt_f16", unary_f16([](double x) { return std::sqrt(x); }));
  b.add("v_rsq_f16", unary_f16([](double x) { return 1.0 / std::sqrt(x); }));
  b.add("v_log_f16", unary_f16([](double x) { return std::log2(x); }));
  b.add("v_exp_f16", unary_f16([](double x) { return std::exp2(x); }));
  b.add("v_floor_f16", unary_f16([](double x) { return std::floor(x); }));
  b.add("v_ceil_f16", unary_f16([](double x) { return std::ceil(x); }));
  b.add("v_trunc_f16", unary_f16([](double x) { return std::trunc(x); }));
  b.add("v_rndne_f16", unary_f16([](double x) { return round_even(x); }));
  b.add("v_fract_f16", unary_f16([](double x) { return std::min(x - std::floor(x), 0x1.ffcp-1); }));
  b.add("v_sin_f16", unary_f16([](double x) { return std::sin(x * turn); }));
  b.add("v_cos_f16", unary_f16([](double x) { return std::cos(x * turn); }));
  b.add("v_ldexp_f16", load_exponent);
  b.add("v_frexp_exp_i16_f16", get_exponent);
  b.add("v_frexp_mant_f16", unary_f16([](double x) {
          int exponent;
          return std::isfinite(x) ? std::frexp(x, &exponent) : x;
        }));
}

}  // namespace emu
