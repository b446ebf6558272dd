// SPDX-License-Identifier: Apache-2.0
// The steps of a correctly rounded division: v_div_scale, v_div_fmas, v_div_fixup.
#include "lanewise.h"

namespace emu {
namespace {

// What the steps need to know about a type.
template <class T>
struct Traits;
template <>
struct Traits<float> {
  static constexpr int scale = 64, far_apart = 96, small_exponent = 23, bias = 127, top = 255;
  static constexpr int underflow = -150;
  static int exponent(float x) { return static_cast<int>(as_bits(x) >> 23 & 255); }
  static float nan() { return as_float(quiet_nan); }
  static bool is_denormal(double x) { return x != 0 && std::fabs(x) < 0x1p-126; }
  static bool same(float x, float y) { return as_bits(x) == as_bits(y); }
};
template <>
struct Traits<double> {
  static constexpr int scale = 128, far_apart = 768, small_exponent = 53, bias = 1023, top = 2047;
  static constexpr int underflow = -1075;
  static int exponent(double x) { return static_cast<int>(as_bits(x) >> 52 & 2047); }
  static double nan() { return as_double(0x7ff8000000000000ull); }
  static bool is_denormal(double x) { return std::fpclassify(x) == FP_SUBNORMAL; }
  static bool same(double x, double y) { return as_bits(x) == as_bits(y); }
};

// Scales `x`, which is the denominator or the numerator, so that no step over- or underflows.
// `scaled` says that v_div_fmas has to undo it.
template <class T>
T scale_operand(T x, T denominator, T numerator, bool &scaled) {
  using Of = Traits<T>;
  scaled = false;
  if (numerator == 0 || denominator == 0) return Of::nan();
  const bool is_denominator = Of::same(x, denominator), is_numerator = Of::same(x, numerator);
  const bool quotient_denormal = Of::is_denormal(double(numerator) / denominator);
  const bool reciprocal_denormal = Of::is_denormal(1.0 / double(denominator));
  if (Of::exponent(numerator) - Of::exponent(denominator) >= Of::far_apart) {
    scaled = true;
    return is_denominator ? std::ldexp(x, Of::scale) : x;
  }
  if (Of::exponent(denominator) == 0) return std::ldexp(x, Of::scale);
  if (reciprocal_denormal && quotient_denormal) {
    // The published text scales up here, which would overflow so large a denominator.
    scaled = true;
    return is_denominator ? std::ldexp(x, -Of::scale) : x;
  }
  if (reciprocal_denormal) return std::ldexp(x, -Of::scale);
  if (quotient_denormal) {
    scaled = true;
    return is_numerator ? std::ldexp(x, Of::scale) : x;
  }
  return Of::exponent(numerator) <= Of::small_exponent ? std::ldexp(x, Of::scale) : x;
}

// v_div_fmas for a lane whose VCC bit is set: undoes the scaling, with one rounding in all.
template <class T>
T scaled_multiply_add(T x, T y, T addend) {
  const bool large = Traits<T>::exponent(addend) > Traits<T>::bias;
  const double factor = std::ldexp(1.0, large ? Traits<T>::scale : -Traits<T>::scale);
  return static_cast<T>((static_cast<__float128>(x) * y + addend) * factor);
}

template <class T>
T fix_up(T quotient, T denominator, T numerator) {
  using Of = Traits<T>;
  const T sign = std::signbit(denominator) != std::signbit(numerator) ? T(-1) : T(1);
  if (std::isnan(numerator)) return numerator;
  if (std::isnan(denominator)) return denominator;
  if (numerator == 0 && denominator == 0) return -Of::nan();
  if (std::isinf(numerator) && std::isinf(denominator)) return -Of::nan();
  if (denominator == 0 || std::isinf(numerator)) return sign * T(INFINITY);
  if (std::isinf(denominator) || numerator == 0) return sign * T(0);
  const int difference = Of::exponent(numerator) - Of::exponent(denominator);
  if (difference < Of::underflow) return sign * T(0);
  // A quotient so large that a step before overflowed comes in as a NaN.
  if (difference >= Of::top || std::isnan(quotient)) return sign * T(INFINITY);
  return std::copysign(quotient, sign);
}

void scale_f32(Wave &wave, const Instruction &i) {
  FloatRow a, b, c, result;
  const float *x = read_f32(wave, i, 0, a, false), *d = read_f32(wave, i, 1, b, false);
  const float *n = read_f32(wave, i, 2, c, false);
  uint64_t scaled_lanes = 0;
  for (int l = 0; l < lanes; l++) {
    bool scaled;
    result[l] = scale_operand(x[l], d[l], n[l], scaled);
    scaled_lanes |= uint64_t{scaled} << l;
  }
  const uint64_t active = wave.exec_mask();
  write_f32(wave, i, result, false);
  wave.set_pair(i.scalar_destination, scaled_lanes & active);
}

void scale_f64(Wave &wave, const Instruction &i) {
  Lanes<double> a, b, c;
  WideRow result;
  const double *x = read_f64(wave, i, 0, a), *d = read_f64(wave, i, 1, b);
  const double *n = read_f64(wave, i, 2, c);
  uint64_t scaled_lanes = 0;
  for (int l = 0; l < lanes; l++) {
    bool scaled;
    result[l] = as_bits(scale_operand(x[l], d[l], n[l], scaled));
    scaled_lanes |= uint64_t{scaled} << l;
  }
  const uint64_t active = wave.exec_mask();
  write_u64(wave, i, result);
  wave.set_pair(i.scalar_destination, scaled_lanes & active);
}

void fmas_f32(Wave &wave, const Instruction &i) {
  FloatRow a, b, c, result;
  const float *x = read_f32(wave, i, 0, a), *y = read_f32(wave, i, 1, b);
  const float *z = read_f32(wave, i, 2, c);
  const uint64_t scaled = wave.pair(vcc);
  for (int l = 0; l < lanes; l++) {
    result[l] =
        scaled >> l & 1 ? scaled_multiply_add(x[l], y[l], z[l]) : std::fma(x[l], y[l], z[l]);
  }
  write_f32(wave, i, result);
}

void fmas_f64(Wave &wave, const Instruction &i) {
  Lanes<double> a, b, c, result;
  const double *x = read_f64(wave, i, 0, a), *y = read_f64(wave, i, 1, b);
  const double *z = read_f64(wave, i, 2, c);
  const uint64_t scaled = wave.pair(vcc);
  for (int l = 0; l < lanes; l++) {
    result[l] =
        scaled >> l & 1 ? scaled_multiply_add(x[l], y[l], z[l]) : std::fma(x[l], y[l], z[l]);
  }
  write_f64(wave, i, result);
}

void fix_up_f32(Wave &wave, const Instruction &i) {
  FloatRow a, b, c, result;
  const float *q = read_f32(wave, i, 0, a, false), *d = read_f32(wave, i, 1, b, false);
  const float *n = read_f32(wave, i, 2, c, false);
  for (int l = 0; l < lanes; l++) result[l] = fix_up(q[l], d[l], n[l]);
  write_f32(wave, i, result);
}

// Half quotients come from 32-bit arithmetic, so only the special cases are left.
double fix_up_half(double quotient, double denominator, double numerator) {
  const double sign = std::signbit(denominator) != std::signbit(numerator) ? -1 : 1;
  if (std::isnan(numerator) || std::isnan(denominator)) return numerator + denominator;
  if (numerator == 0 && denominator == 0) return -Traits<double>::nan();
  if (std::isinf(numerator) && std::isinf(denominator)) return -Traits<double>::nan();
  if (denominator == 0 || std::isinf(numerator)) return sign * INFINITY;
  if (std::isinf(denominator) || numerator == 0) return sign * 0.0;
  return std::copysign(quotient, sign);
}

}  // namespace

void add_vector_divide(Bindings &b) {
  b.add("v_div_scale_f32", scale_f32);
  b.add("v_div_scale_f64", scale_f64);
  b.add("v_div_fmas_f32", fmas_f32);
  b.add("v_div_fmas_f64", fmas_f64);
  b.add("v_div_fixup_f32", fix_up_f32);
  b.add("v_div_fixup_f64",
        ternary_f64([](double q, double d, double n) { return fix_up(q, d, n); }));
  auto half = [](double q, double d, double n) { return fix_up_half(q, d, n); };
  b.add("v_div_fixup_f16", ternary_f16<OtherHalf::kept>(half));
  b.add("v_div_fixup_legacy_f16", ternary_f16<OtherHalf::cleared>(half));
}

}  // namespace emu
