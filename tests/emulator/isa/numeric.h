// SPDX-License-Identifier: Apache-2.0
// Number formats: half, bfloat, 8-, 6- and 4-bit floats, and their conversions.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace emu {

inline float as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t as_bits(float value) { return std::bit_cast<uint32_t>(value); }
inline double as_double(uint64_t bits) { return std::bit_cast<double>(bits); }
inline uint64_t as_bits(double value) { return std::bit_cast<uint64_t>(value); }

inline constexpr uint32_t quiet_nan = 0x7fc00000u;

inline uint32_t flush_denormal(uint32_t bits) {
  return bits & 0x7f800000u ? bits : bits & 0x80000000u;
}
inline float flush_denormal(float value) { return as_float(flush_denormal(as_bits(value))); }

inline float round_even(float x) { return __builtin_roundevenf(x); }
inline double round_even(double x) { return __builtin_roundeven(x); }

enum class Round : uint8_t { nearest_even, up, down, toward_zero };

// A binary floating point format of at most 16 bits.
struct SmallFloat {
  int exponent_bits, mantissa_bits, bias;
  // Which codes are no ordinary numbers:
  enum Special : uint8_t {
    ieee,         // the largest exponent is infinity and NaN
    only_nan,     // all ones is NaN, no infinity (OCP e4m3)
    minus_zero,   // the code of -0 is the one NaN (fnuz)
    none          // every code is a number (6 and 4 bits)
  } special;

  constexpr int bits() const { return 1 + exponent_bits + mantissa_bits; }
  constexpr uint32_t sign() const { return 1u << (bits() - 1); }
  constexpr uint32_t largest_exponent() const { return (1u << exponent_bits) - 1; }
  constexpr uint32_t nan() const {
    if (special == minus_zero) return sign();
    return special == ieee ? largest_exponent() << mantissa_bits | 1u << (mantissa_bits - 1)
                           : sign() - 1;
  }
  constexpr uint32_t largest() const {  // finite
    if (special == ieee) return (largest_exponent() << mantissa_bits) - 1;
    return special == only_nan ? sign() - 2 : sign() - 1;
  }
};

inline constexpr SmallFloat half_format{5, 10, 15, SmallFloat::ieee};
inline constexpr SmallFloat bfloat_format{8, 7, 127, SmallFloat::ieee};
inline constexpr SmallFloat fp8_ocp{4, 3, 7, SmallFloat::only_nan};
inline constexpr SmallFloat bf8_ocp{5, 2, 15, SmallFloat::ieee};
inline constexpr SmallFloat fp8_fnuz{4, 3, 8, SmallFloat::minus_zero};
inline constexpr SmallFloat bf8_fnuz{5, 2, 16, SmallFloat::minus_zero};
inline constexpr SmallFloat fp6_format{2, 3, 1, SmallFloat::none};
inline constexpr SmallFloat bf6_format{3, 2, 3, SmallFloat::none};
inline constexpr SmallFloat fp4_format{2, 1, 1, SmallFloat::none};

inline double decode_float(uint32_t code, SmallFloat f) {
  const uint32_t mantissa = code & ((1u << f.mantissa_bits) - 1);
  const uint32_t exponent = code >> f.mantissa_bits & f.largest_exponent();
  const double sign = code & f.sign() ? -1.0 : 1.0;
  const bool top = exponent == f.largest_exponent();
  if (f.special == SmallFloat::minus_zero && code == f.sign()) return as_float(quiet_nan);
  if (f.special == SmallFloat::only_nan && top && mantissa == (1u << f.mantissa_bits) - 1)
    return as_float(quiet_nan);
  if (f.special == SmallFloat::ieee && top) return mantissa ? as_float(quiet_nan) : sign * INFINITY;
  if (!exponent) return sign * std::ldexp(mantissa, 1 - f.bias - f.mantissa_bits);
  return sign * std::ldexp(mantissa | 1u << f.mantissa_bits,
                           static_cast<int>(exponent) - f.bias - f.mantissa_bits);
}

// How encode_float treats what is too large, and how it rounds. Stochastic rounding adds `noise`
// (a fraction of 2^32) below the last kept bit instead.
struct Encoding {
  Round round = Round::nearest_even;
  bool saturate = false;
  bool stochastic = false;
  uint32_t noise = 0;
};

inline uint32_t encode_float(double value, SmallFloat f, Encoding how = {}) {
  const uint32_t sign = std::signbit(value) ? f.sign() : 0;
  if (std::isnan(value))
    return f.special == SmallFloat::none         ? f.largest()
           : f.special == SmallFloat::minus_zero ? f.nan()
                                                 : sign | f.nan();
  const double magnitude = std::fabs(value);
  const uint32_t zero = f.special == SmallFloat::minus_zero ? 0 : sign;
  if (magnitude == 0) return zero;

  auto overflow = [&](bool infinite) -> uint32_t {
    const bool away = infinite || how.stochastic || how.round == Round::nearest_even ||
                      (how.round == Round::up && !sign) || (how.round == Round::down && sign);
    if (f.special == SmallFloat::none || how.saturate || !away) return sign | f.largest();
    if (f.special == SmallFloat::ieee) return sign | f.largest_exponent() << f.mantissa_bits;
    return f.special == SmallFloat::minus_zero ? f.nan() : sign | f.nan();
  };
  if (std::isinf(value)) return overflow(true);

  int exponent;
  std::frexp(magnitude, &exponent);  // magnitude = m * 2^exponent, m in [1/2, 1)
  const int lowest = 1 - f.bias - f.mantissa_bits;
  const int last_bit = std::max(exponent - 1 - f.mantissa_bits, lowest);
  const double scaled = std::ldexp(magnitude, -last_bit);
  double whole = std::trunc(scaled);
  const double rest = scaled - whole;
  bool up = false;
  if (how.stochastic)
    up = rest + how.noise * 0x1p-32 >= 1.0;
  else if (how.round == Round::nearest_even)
    up = rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2) == 1);
  else
    up = rest > 0 && ((how.round == Round::up && !sign) || (how.round == Round::down && sign));
  whole += up;
  const double rounded = std::ldexp(whole, last_bit);
  if (rounded == 0) return zero;
  if (rounded > decode_float(f.largest(), f)) return overflow(false);
  std::frexp(rounded, &exponent);
  const int biased = exponent - 1 + f.bias;
  if (biased <= 0) return sign | static_cast<uint32_t>(std::ldexp(rounded, -lowest));
  const uint32_t mantissa =
      static_cast<uint32_t>(std::ldexp(rounded, f.mantissa_bits - (exponent - 1))) -
      (1u << f.mantissa_bits);
  return sign | static_cast<uint32_t>(biased) << f.mantissa_bits | mantissa;
}

inline float half_to_float(uint32_t half) {
#ifdef __F16C__
  return _cvtsh_ss(static_cast<uint16_t>(half));
#else
  return static_cast<float>(decode_float(half & 0xffff, half_format));
#endif
}

inline uint32_t float_to_half(float value) {  // nearest even
#ifdef __F16C__
  return static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
#else
  return encode_float(value, half_format);
#endif
}

inline uint32_t double_to_half(double value, Round round) {
  return encode_float(value, half_format, {round});
}

inline float bfloat_to_float(uint32_t bfloat) { return as_float(bfloat << 16); }

inline uint32_t float_to_bfloat(float value) {  // nearest even; a NaN stays one
  const uint32_t bits = as_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// The minimum and maximum of the ISA: a NaN loses against a number, -0 is below +0.
template <class T>
T ieee_min(T a, T b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <class T>
T ieee_max(T a, T b) {
  if (std::isnan(a)) return b;
  if (std::isnan(b)) return a;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
}
// minimum3 and maximum3 of gfx950: a NaN wins.
inline float propagating_min(float a, float b) {
  return std::isnan(a) || std::isnan(b) ? as_float(quiet_nan) : ieee_min(a, b);
}
inline float propagating_max(float a, float b) {
  return std::isnan(a) || std::isnan(b) ? as_float(quiet_nan) : ieee_max(a, b);
}
template <class T>
T median(T a, T b, T c) {
  if (std::isnan(a) || std::isnan(b) || std::isnan(c)) return ieee_min(ieee_min(a, b), c);
  const T largest = ieee_max(ieee_max(a, b), c);
  if (largest == a) return ieee_max(b, c);
  if (largest == b) return ieee_max(a, c);
  return ieee_max(a, b);
}

// The fp8 and bf8 of the machine: gfx942 has the fnuz ones, gfx950 those of the OCP standard.
inline SmallFloat fp8_of(bool ocp) { return ocp ? fp8_ocp : fp8_fnuz; }
inline SmallFloat bf8_of(bool ocp) { return ocp ? bf8_ocp : bf8_fnuz; }

}  // namespace emu
