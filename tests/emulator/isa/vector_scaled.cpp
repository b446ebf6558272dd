// SPDX-License-Identifier: Apache-2.0
// gfx950's conversions of 8-bit floats with a scale: a power of two, the exponent of a float.
#include "lanewise.h"

namespace emu {
namespace {

float power_of_two(uint32_t scale) {
  const int exponent = static_cast<int>(scale >> 23 & 0xff);
  return exponent == 255 ? as_float(quiet_nan) : std::ldexp(1.0f, exponent - 127);
}

// The wider type: how a pair of elements is read from, and written to, registers.
struct Floats {
  static double read(const uint32_t *first, const uint32_t *second, int element, int lane) {
    return as_float((element ? second : first)[lane]);
  }
  static void write(Wave &wave, const Instruction &i, const FloatRow (&pair)[2]) {
    WideRow result;
    for (int l = 0; l < lanes; l++)
      result[l] = as_bits(pair[0][l]) | uint64_t{as_bits(pair[1][l])} << 32;
    write_u64(wave, i, result);
  }
};
template <float (*decode)(uint32_t), uint32_t (*encode)(float)>
struct Halves {
  static double read(const uint32_t *first, const uint32_t *, int element, int lane) {
    return decode(first[lane] >> (16 * element) & 0xffff);
  }
  static void write(Wave &wave, const Instruction &i, const FloatRow (&pair)[2]) {
    Row result;
    for (int l = 0; l < lanes; l++) result[l] = encode(pair[0][l]) | encode(pair[1][l]) << 16;
    write_u32(wave, i, result);
  }
};
using F16 = Halves<half_to_float, float_to_half>;
using Bf16 = Halves<bfloat_to_float, float_to_bfloat>;

// A pair of bytes, in the half of the destination that op_sel[3] picks; the scale is the last
// source.
template <class Wide, const SmallFloat &format>
void to_byte_pair(Wave &wave, const Instruction &i) {
  Row a, b, c, result;
  const int last = i.source_count - 1;
  const uint32_t *first = read_raw(wave, i, 0, a);
  const uint32_t *second = last == 2 ? read_raw(wave, i, 1, b) : first;
  const uint32_t *scale = read_raw(wave, i, last, c);
  for (int l = 0; l < lanes; l++) {
    result[l] = 0;
    for (int element = 0; element < 2; element++) {
      const double value = Wide::read(first, second, element, l) / power_of_two(scale[l]);
      result[l] |= encode_float(value, format, {.saturate = true}) << (8 * element);
    }
  }
  write_u16(wave, i, result, true);
}

// From the pair of bytes in the half of the source that op_sel[0] picks.
template <class Wide, const SmallFloat &format>
void from_byte_pair(Wave &wave, const Instruction &i) {
  Row a, b;
  FloatRow pair[2];
  const uint32_t *bytes = read_raw(wave, i, 0, a), *scale = read_raw(wave, i, 1, b);
  const int shift = i.op_sel & 1 ? 16 : 0;
  for (int l = 0; l < lanes; l++)
    for (int element = 0; element < 2; element++) {
      const uint32_t code = bytes[l] >> (shift + 8 * element) & 0xff;
      pair[element][l] = static_cast<float>(decode_float(code, format) * power_of_two(scale[l]));
    }
  Wide::write(wave, i, pair);
}

// From the byte that op_sel[0:1] picks.
template <const SmallFloat &format>
void from_byte(Wave &wave, const Instruction &i) {
  Row a, b;
  FloatRow result;
  const uint32_t *bytes = read_raw(wave, i, 0, a), *scale = read_raw(wave, i, 1, b);
  const int shift = 8 * (i.op_sel & 3);
  for (int l = 0; l < lanes; l++) {
    const double value = decode_float(bytes[l] >> shift & 0xff, format);
    result[l] = static_cast<float>(value * power_of_two(scale[l]));
  }
  write_f32(wave, i, result);
}

template <class Wide>
void add(Bindings &b, const std::string &wide) {
  b.add("v_cvt_scalef32_pk_fp8_" + wide, to_byte_pair<Wide, fp8_ocp>);
  b.add("v_cvt_scalef32_pk_bf8_" + wide, to_byte_pair<Wide, bf8_ocp>);
  b.add("v_cvt_scalef32_pk_" + wide + "_fp8", from_byte_pair<Wide, fp8_ocp>);
  b.add("v_cvt_scalef32_pk_" + wide + "_bf8", from_byte_pair<Wide, bf8_ocp>);
}

}  // namespace

void add_vector_scaled(Bindings &b) {
  add<Floats>(b, "f32");
  add<F16>(b, "f16");
  add<Bf16>(b, "bf16");
  b.add("v_cvt_scalef32_f32_fp8", from_byte<fp8_ocp>);
  b.add("v_cvt_scalef32_f32_bf8", from_byte<bf8_ocp>);
}

}  // namespace emu
