// SPDX-License-Identifier: Apache-2.0
// Dot products of the small elements of two registers.
#include "bit_operations.h"
#include "lanewise.h"

namespace emu {
namespace {

template <int bits, bool is_signed>
uint32_t integer_dot(uint32_t x, uint32_t y, uint32_t sum) {
  for (int at = 0; at < 32; at += bits) {
    const unsigned offset = static_cast<unsigned>(at);
    sum += is_signed ? extract_signed(x, offset, bits) * extract_signed(y, offset, bits)
                     : extract_unsigned(x, offset, bits) * extract_unsigned(y, offset, bits);
  }
  return sum;
}

// v_dot2c and the like add to the destination.
template <class F>
constexpr Handler accumulate_u32(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, b, result;
    const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
    const uint32_t *sum = wave.row(destination_of(wave, i));
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l], sum[l]);
    write_u32(wave, i, result);
  };
}

float half_element(uint32_t x) { return half_to_float(x); }
float bfloat_element(uint32_t x) { return bfloat_to_float(x & 0xffff); }

template <float (*element)(uint32_t)>
float float_dot(uint32_t x, uint32_t y, float sum) {
  for (int shift : {0, 16}) sum = std::fma(element(x >> shift), element(y >> shift), sum);
  return sum;
}

template <float (*element)(uint32_t)>
void accumulate_f32(Wave &wave, const Instruction &i) {
  Row a, b;
  FloatRow result;
  const uint32_t *x = read_raw(wave, i, 0, a, 0, true), *y = read_raw(wave, i, 1, b, 0, true);
  const auto *sum = reinterpret_cast<const float *>(wave.row(destination_of(wave, i)));
  for (int l = 0; l < lanes; l++) result[l] = float_dot<element>(x[l], y[l], sum[l]);
  write_f32(wave, i, result);
}

template <float (*element)(uint32_t)>
void packed_dot(Wave &wave, const Instruction &i) {  // VOP3P, with element selection and negation
  Row space[3];
  FloatRow result;
  const uint32_t *source[3];
  for (int k = 0; k < 3; k++) source[k] = read_raw(wave, i, k, space[k], 0, k < 2);
  for (int l = 0; l < lanes; l++) {
    float sum = as_float(source[2][l] ^ (i.negate & 4 ? 0x80000000u : 0));
    for (int half = 0; half < 2; half++) {
      const uint8_t select = half ? i.op_sel_high : i.op_sel,
                    negate = half ? i.negate_high : i.negate;
      float factor[2];
      for (int k = 0; k < 2; k++) {
        const uint32_t code = source[k][l] >> (select >> k & 1 ? 16 : 0) & 0xffff;
        factor[k] = element(code ^ (negate >> k & 1 ? 0x8000 : 0));
      }
      sum = std::fma(factor[0], factor[1], sum);
    }
    result[l] = sum;
  }
  write_f32(wave, i, result);
}

}  // namespace

void add_vector_dot(Bindings &b) {
  using U = uint32_t;
  auto signed16 = [](U x, U y, U z) { return integer_dot<16, true>(x, y, z); };
  auto signed8 = [](U x, U y, U z) { return integer_dot<8, true>(x, y, z); };
  auto signed4 = [](U x, U y, U z) { return integer_dot<4, true>(x, y, z); };
  b.add("v_dot2_i32_i16", ternary_u32(signed16));
  b.add("v_dot4_i32_i8", ternary_u32(signed8));
  b.add("v_dot8_i32_i4", ternary_u32(signed4));
  b.add("v_dot2c_i32_i16", accumulate_u32(signed16));
  b.add("v_dot4c_i32_i8", accumulate_u32(signed8));
  b.add("v_dot8c_i32_i4", accumulate_u32(signed4));
  b.add("v_dot2_u32_u16",
        ternary_u32([](U x, U y, U z) { return integer_dot<16, false>(x, y, z); }));
  b.add("v_dot4_u32_u8", ternary_u32([](U x, U y, U z) { return integer_dot<8, false>(x, y, z); }));
  b.add("v_dot8_u32_u4", ternary_u32([](U x, U y, U z) { return integer_dot<4, false>(x, y, z); }));
  b.add("v_dot2_f32_f16", packed_dot<half_element>);
  b.add("v_dot2_f32_bf16", packed_dot<bfloat_element>);
  b.add("v_dot2c_f32_f16", accumulate_f32<half_element>);
  b.add("v_dot2c_f32_bf16", accumulate_f32<bfloat_element>);
}

}  // namespace emu
