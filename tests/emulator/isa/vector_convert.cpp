// SPDX-License-Identifier: Apache-2.0
// Conversions between integers and 16-, 32- and 64-bit floats.
#include <algorithm>

#include "bit_operations.h"
#include "lanewise.h"

namespace emu {
namespace {

// Float to integer: saturates, NaN gives 0.
int32_t to_signed(double x) {
  if (std::isnan(x)) return 0;
  return static_cast<int32_t>(std::clamp(std::trunc(x), -2147483648.0, 2147483647.0));
}
uint32_t to_unsigned(double x, double largest = 4294967295.0) {
  return std::isnan(x) ? 0 : static_cast<uint32_t>(std::clamp(std::trunc(x), 0.0, largest));
}
double number_or_zero(double x) { return std::isnan(x) ? 0 : x; }

template <class F>
constexpr Handler float_from_u32(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a;
    FloatRow result;
    const uint32_t *x = read_u32(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_f32(wave, i, result);
  };
}
template <class F>
constexpr Handler u32_from_float(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a;
    Row result;
    const float *x = read_f32(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_u32(wave, i, result);
  };
}
template <class F>
constexpr Handler packed_from_floats(F) {  // two floats to the halves of a register
  return [](Wave &wave, const Instruction &i) {
    FloatRow a, b;
    Row result;
    const float *x = read_f32(wave, i, 0, a), *y = read_f32(wave, i, 1, b);
    for (int l = 0; l < lanes; l++) result[l] = (F{}(x[l]) & 0xffff) | F{}(y[l]) << 16;
    write_u32(wave, i, result);
  };
}
template <class F>
constexpr Handler half_from_u16(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a;
    Lanes<double> result;
    const uint32_t *x = read_u16(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_f16(wave, i, result);
  };
}
template <class F>
constexpr Handler u16_from_half(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a;
    Row result;
    const float *x = read_f16(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_u16(wave, i, result);
  };
}
template <class F>
constexpr Handler double_from_u32(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a;
    Lanes<double> result;
    const uint32_t *x = read_u32(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_f64(wave, i, result);
  };
}
template <class F>
constexpr Handler u32_from_double(F) {
  return [](Wave &wave, const Instruction &i) {
    Lanes<double> a;
    Row result;
    const double *x = read_f64(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_u32(wave, i, result);
  };
}

void half_from_float(Wave &wave, const Instruction &i) {
  FloatRow a;
  const float *x = read_f32(wave, i, 0, a);
  if (i.output_modifier || i.clamp || half_rounding(wave) != Round::nearest_even ||
      !(wave.mode & mode_f64_output_denormals)) {
    Lanes<double> result;
    for (int l = 0; l < lanes; l++) result[l] = x[l];
    return write_f16(wave, i, result);
  }
  Row result;
  for (int l = 0; l < lanes; l++) result[l] = float_to_half(x[l]);
  write_u16(wave, i, result);
}

void float_from_half(Wave &wave, const Instruction &i) {
  FloatRow a, result;
  std::memcpy(result.lane, read_f16(wave, i, 0, a), sizeof result);
  write_f32(wave, i, result);
}

void float_from_bfloat(Wave &wave, const Instruction &i) {  // v_cvt_f32_bf16
  Row a;
  FloatRow result;
  const uint32_t *x = read_u16(wave, i, 0, a);
  for (int l = 0; l < lanes; l++) result[l] = bfloat_to_float(x[l]);
  write_f32(wave, i, result);
}

void float_from_double(Wave &wave, const Instruction &i) {
  Lanes<double> a;
  FloatRow result;
  const double *x = read_f64(wave, i, 0, a);
  for (int l = 0; l < lanes; l++) result[l] = static_cast<float>(x[l]);
  write_f32(wave, i, result);
}

void double_from_float(Wave &wave, const Instruction &i) {
  FloatRow a;
  Lanes<double> result;
  const float *x = read_f32(wave, i, 0, a);
  for (int l = 0; l < lanes; l++) result[l] = x[l];
  write_f64(wave, i, result);
}

// A 16-bit float with stochastic rounding: the noise is added below the last bit kept.
template <const SmallFloat &target, int noise_bits>
void stochastic_half(Wave &wave, const Instruction &i) {
  FloatRow a;
  Row b, result;
  const float *x = read_f32(wave, i, 0, a, false);
  const uint32_t *noise = read_u32(wave, i, 1, b);
  for (int l = 0; l < lanes; l++)
    result[l] =
        encode_float(x[l], target, {.stochastic = true, .noise = noise[l] << (32 - noise_bits)});
  write_u16(wave, i, result, true);
}

void pack_byte(Wave &wave, const Instruction &i) {  // v_cvt_pk_u8_f32
  FloatRow a;
  Row b, c, result;
  const float *x = read_f32(wave, i, 0, a);
  const uint32_t *position = read_u32(wave, i, 1, b), *old = read_u32(wave, i, 2, c);
  for (int l = 0; l < lanes; l++) {
    const int shift = 8 * static_cast<int>(position[l] & 3);
    const uint32_t byte = to_unsigned(round_even(number_or_zero(x[l])), 255);
    result[l] = (old[l] & ~(0xffu << shift)) | byte << shift;
  }
  write_u32(wave, i, result);
}

void pack_halves(Wave &wave, const Instruction &i) {  // v_pack_b32_f16
  Row a, b, result;
  const uint32_t *x = read_u16(wave, i, 0, a, true), *y = read_u16(wave, i, 1, b, true);
  for (int l = 0; l < lanes; l++) result[l] = x[l] | y[l] << 16;
  write_u32(wave, i, result);
}

uint32_t normalised_signed(float x) {
  return as_unsigned(
      static_cast<int>(round_even(std::clamp(number_or_zero(x), -1.0, 1.0) * 32767.0)));
}
uint32_t normalised_unsigned(float x) {
  return static_cast<uint32_t>(round_even(std::clamp(number_or_zero(x), 0.0, 1.0) * 65535.0));
}

// v_ashr_pk: two words shifted right and saturated to bytes.
template <int low, int high>
void shift_and_pack(Wave &wave, const Instruction &i) {
  Row a, b, c, result;
  const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
  const uint32_t *shift = read_u32(wave, i, 2, c);
  for (int l = 0; l < lanes; l++) {
    const int amount = static_cast<int>(shift[l] & 31);
    const auto byte = [&](uint32_t value) {
      return static_cast<uint32_t>(std::clamp(as_signed(value) >> amount, low, high)) & 0xff;
    };
    result[l] = byte(x[l]) | byte(y[l]) << 8;
  }
  write_u16(wave, i, result, true);
}

}  // namespace

void add_vector_convert(Bindings &b) {
  b.add("v_cvt_f32_i32",
        float_from_u32([](uint32_t x) { return static_cast<float>(as_signed(x)); }));
  b.add("v_cvt_f32_u32", float_from_u32([](uint32_t x) { return static_cast<float>(x); }));
  b.add("v_cvt_f32_ubyte0",
        float_from_u32([](uint32_t x) { return static_cast<float>(x & 0xff); }));
  b.add("v_cvt_f32_ubyte1",
        float_from_u32([](uint32_t x) { return static_cast<float>(x >> 8 & 0xff); }));
  b.add("v_cvt_f32_ubyte2",
        float_from_u32([](uint32_t x) { return static_cast<float>(x >> 16 & 0xff); }));
  b.add("v_cvt_f32_ubyte3", float_from_u32([](uint32_t x) { return static_cast<float>(x >> 24); }));
  b.add("v_cvt_off_f32_i4", float_from_u32([](uint32_t x) {
          return static_cast<float>(as_signed(x << 28) >> 28) / 16.0f;
        }));
  b.add("v_cvt_u32_f32", u32_from_float([](float x) { return to_unsigned(x); }));
  b.add("v_cvt_i32_f32", u32_from_float([](float x) { return as_unsigned(to_signed(x)); }));
  b.add("v_cvt_rpi_i32_f32", u32_from_float([](float x) {
          return as_unsigned(to_signed(std::floor(double{x} + 0.5)));
        }));
  b.add("v_cvt_flr_i32_f32",
        u32_from_float([](float x) { return as_unsigned(to_signed(std::floor(x))); }));
  b.add("v_cvt_f16_f32", half_from_float);
  b.add("v_cvt_f32_f16", float_from_half);
  b.add("v_cvt_f32_bf16", float_from_bfloat);
  b.add("v_cvt_f32_f64", float_from_double);
  b.add("v_cvt_f64_f32", double_from_float);
  b.add("v_cvt_f64_i32", double_from_u32([](uint32_t x) { return double(as_signed(x)); }));
  b.add("v_cvt_f64_u32", double_from_u32([](uint32_t x) { return double(x); }));
  b.add("v_cvt_i32_f64", u32_from_double([](double x) { return as_unsigned(to_signed(x)); }));
  b.add("v_cvt_u32_f64", u32_from_double([](double x) { return to_unsigned(x); }));
  b.add("v_cvt_f16_u16", half_from_u16([](uint32_t x) { return double(x); }));
  b.add("v_cvt_f16_i16", half_from_u16([](uint32_t x) { return double(signed16(x)); }));
  b.add("v_cvt_u16_f16", u16_from_half([](float x) { return to_unsigned(x, 65535); }));
  b.add("v_cvt_i16_f16", u16_from_half([](float x) {
          return as_unsigned(std::clamp(to_signed(x), -32768, 32767));
        }));
  b.add("v_cvt_norm_i16_f16", u16_from_half([](float x) { return normalised_signed(x); }));
  b.add("v_cvt_norm_u16_f16", u16_from_half([](float x) { return normalised_unsigned(x); }));
  b.add("v_cvt_pkrtz_f16_f32",
        packed_from_floats([](float x) { return double_to_half(x, Round::toward_zero); }));
  b.add("v_cvt_pk_f16_f32", packed_from_floats([](float x) { return float_to_half(x); }));
  b.add("v_cvt_pk_bf16_f32", packed_from_floats([](float x) { return float_to_bfloat(x); }));
  b.add("v_cvt_pknorm_i16_f32", packed_from_floats([](float x) { return normalised_signed(x); }));
  b.add("v_cvt_pknorm_u16_f32", packed_from_floats([](float x) { return normalised_unsigned(x); }));
  b.add("v_cvt_pk_u16_u32", binary_u32([](uint32_t x, uint32_t y) {
          return std::min(x, 65535u) | std::min(y, 65535u) << 16;
        }));
  b.add("v_cvt_pk_i16_i32", binary_u32([](uint32_t x, uint32_t y) {
          auto narrow = [](uint32_t v) {
            return as_unsigned(std::clamp(as_signed(v), -32768, 32767));
          };
          return (narrow(x) & 0xffff) | narrow(y) << 16;
        }));
  b.add("v_cvt_sr_f16_f32", stochastic_half<half_format, 13>);
  b.add("v_cvt_sr_bf16_f32", stochastic_half<bfloat_format, 16>);
  b.add("v_cvt_pk_u8_f32", pack_byte);
  b.add("v_pack_b32_f16", pack_halves);
  b.add("v_ashr_pk_i8_i32", shift_and_pack<-128, 127>);
  b.add("v_ashr_pk_u8_i32", shift_and_pack<0, 255>);
  b.add("v_sat_pk_u8_i16", unary_u32([](uint32_t x) {
          auto byte = [](uint32_t v) {
            return static_cast<uint32_t>(std::clamp(signed16(v), 0, 255));
          };
          return byte(x) | byte(x >> 16) << 8;
        }));
}

}  // namespace emu
