// SPDX-License-Identifier: Apache-2.0
// Vector arithmetic on 64-bit floats.
#include <algorithm>

#include "lanewise.h"

namespace emu {
namespace {

void multiply_accumulate(Wave &wave, const Instruction &i) {  // v_fmac_f64
  HostRounding rounding(half_rounding(wave));
  Lanes<double> a, b, result;
  const double *x = read_f64(wave, i, 0, a), *y = read_f64(wave, i, 1, b);
  const uint32_t *low = wave.row(i.destination), *high = low + lanes;
  for (int l = 0; l < lanes; l++)
    result[l] = std::fma(x[l], y[l], as_double(uint64_t{high[l]} << 32 | low[l]));
  write_f64(wave, i, result);
}

void load_exponent(Wave &wave, const Instruction &i) {  // v_ldexp_f64
  Lanes<double> a, result;
  Row b;
  const double *x = read_f64(wave, i, 0, a);
  const uint32_t *exponent = read_u32(wave, i, 1, b);
  for (int l = 0; l < lanes; l++)
    result[l] = std::ldexp(x[l], std::clamp(static_cast<int32_t>(exponent[l]), -5000, 5000));
  write_f64(wave, i, result);
}

void get_exponent(Wave &wave, const Instruction &i) {  // v_frexp_exp_i32_f64
  Lanes<double> a;
  Row result;
  const double *x = read_f64(wave, i, 0, a);
  for (int l = 0; l < lanes; l++) {
    int exponent = 0;
    if (std::isfinite(x[l])) std::frexp(x[l], &exponent);
    result[l] = static_cast<uint32_t>(exponent);
  }
  write_u32(wave, i, result);
}

}  // namespace

void add_vector_float64(Bindings &b) {
  b.add("v_add_f64", binary_f64([](double x, double y) { return x + y; }));
  b.add("v_mul_f64", binary_f64([](double x, double y) { return x * y; }));
  b.add("v_min_f64", binary_f64([](double x, double y) { return ieee_min(x, y); }));
  b.add("v_max_f64", binary_f64([](double x, double y) { return ieee_max(x, y); }));
  b.add("v_fma_f64", ternary_f64([](double x, double y, double z) { return std::fma(x, y, z); }));
  b.add("v_fmac_f64", multiply_accumulate);
  b.add("v_trunc_f64", unary_f64([](double x) { return std::trunc(x); }));
  b.add("v_ceil_f64", unary_f64([](double x) { return std::ceil(x); }));
  b.add("v_floor_f64", unary_f64([](double x) { return std::floor(x); }));
  b.add("v_rndne_f64", unary_f64([](double x) { return round_even(x); }));
  b.add("v_fract_f64",
        unary_f64([](double x) { return std::fmin(x - std::floor(x), 0x1.fffffffffffffp-1); }));
  b.add("v_rcp_f64", unary_f64([](double x) { return 1.0 / x; }));
  b.add("v_rsq_f64", unary_f64([](double x) { return 1.0 / std::sqrt(x); }));
  b.add("v_sqrt_f64", unary_f64([](double x) { return std::sqrt(x); }));
  b.add("v_ldexp_f64", load_exponent);
  b.add("v_frexp_exp_i32_f64", get_exponent);
  b.add("v_frexp_mant_f64", unary_f64([](double x) {
          int exponent;
          return std::isfinite(x) ? std::frexp(x, &exponent) : x;
        }));
}

}  // namespace emu
