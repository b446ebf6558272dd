// SPDX-License-Identifier: Apache-2.0
// Conversions between 32-bit floats and the 8-bit floats fp8 (e4m3) and bf8 (e5m2).
#include <array>

#include "lanewise.h"

namespace emu {
namespace {

SmallFloat format_of(const Wave &wave, bool bf8) {
  const bool ocp = wave.workgroup->arch() == Arch::gfx950;
  return bf8 ? bf8_of(ocp) : fp8_of(ocp);
}

struct DecodedBytes {
  std::array<float, 256> value;
  explicit DecodedBytes(SmallFloat format) {
    for (unsigned code = 0; code < 256; code++)
      value[code] = static_cast<float>(decode_float(code, format));
  }
};

template <bool bf8>
const DecodedBytes &decoded(const Wave &wave) {
  static const DecodedBytes fnuz(bf8 ? bf8_fnuz : fp8_fnuz), ocp(bf8 ? bf8_ocp : fp8_ocp);
  return wave.workgroup->arch() == Arch::gfx950 ? ocp : fnuz;
}

template <bool bf8>
void from_byte(Wave &wave, const Instruction &i) {
  const auto &table = decoded<bf8>(wave).value;
  // VOP3 picks the byte by op_sel[0:1], of which the first is the higher bit.
  const bool long_form = i.opcode->format == Format::VOP3;
  const int byte = long_form ? (i.op_sel & 1) << 1 | (i.op_sel >> 1 & 1) : 0;
  Row a;
  FloatRow result;
  const uint32_t *x = read_u32(wave, i, 0, a);
  for (int l = 0; l < lanes; l++) result[l] = table[x[l] >> (8 * byte) & 0xff];
  write_f32(wave, i, result);
}

template <bool bf8>
void from_byte_pair(Wave &wave, const Instruction &i) {
  const auto &table = decoded<bf8>(wave).value;
  const int shift = i.opcode->format == Format::VOP3 && i.op_sel & 1 ? 16 : 0;
  Row space;
  const uint32_t *x = read_u32(wave, i, 0, space);
  WideRow result;
  for (int l = 0; l < lanes; l++)
    result[l] = as_bits(table[x[l] >> shift & 0xff]) |
                uint64_t{as_bits(table[x[l] >> (shift + 8) & 0xff])} << 32;
  write_u64(wave, i, result);
}

Encoding encoding_of(const Wave &wave) {
  return {.saturate = (wave.mode & mode_fp16_overflow_clamps) != 0};
}

template <bool bf8>
void to_byte_pair(Wave &wave, const Instruction &i) {
  const SmallFloat format = format_of(wave, bf8);
  const Encoding how = encoding_of(wave);
  FloatRow a, b;
  Row result;
  const float *x = read_f32(wave, i, 0, a, false), *y = read_f32(wave, i, 1, b, false);
  for (int l = 0; l < lanes; l++)
    result[l] = encode_float(x[l], format, how) | encode_float(y[l], format, how) << 8;
  write_u16(wave, i, result, true);
}

template <bool bf8>
void to_byte_stochastic(Wave &wave, const Instruction &i) {
  const SmallFloat format = format_of(wave, bf8);
  Encoding how = encoding_of(wave);
  how.stochastic = true;
  FloatRow a;
  Row b, result;
  const float *x = read_f32(wave, i, 0, a, false);
  const uint32_t *noise = read_u32(wave, i, 1, b), *old = wave.row(i.destination);
  const int shift = 8 * (i.op_sel >> 2 & 3);
  for (int l = 0; l < lanes; l++) {
    how.noise = noise[l];
    result[l] = (old[l] & ~(0xffu << shift)) | encode_float(x[l], format, how) << shift;
  }
  write_u32(wave, i, result);
}

}  // namespace

void add_vector_convert8(Bindings &b) {
  b.add("v_cvt_f32_fp8", from_byte<false>);
  b.add("v_cvt_f32_bf8", from_byte<true>);
  b.add("v_cvt_pk_f32_fp8", from_byte_pair<false>);
  b.add("v_cvt_pk_f32_bf8", from_byte_pair<true>);
  b.add("v_cvt_pk_fp8_f32", to_byte_pair<false>);
  b.add("v_cvt_pk_bf8_f32", to_byte_pair<true>);
  b.add("v_cvt_sr_fp8_f32", to_byte_stochastic<false>);
  b.add("v_cvt_sr_bf8_f32", to_byte_stochastic<true>);
}

}  // namespace emu
