// SPDX-License-Identifier: Apache-2.0
// Packed arithmetic: two 16-bit or two 32-bit elements at once, and the mixed multiply-adds.
#include "bit_operations.h"
#include "lanewise.h"

namespace emu {
namespace {

bool bit(uint8_t mask, int k) { return mask >> k & 1; }

// op_sel picks the source elements of the low result, op_sel_hi those of the high one.
uint8_t selectors(const Instruction &i, bool high) { return high ? i.op_sel_high : i.op_sel; }
uint8_t negations(const Instruction &i, bool high) { return high ? i.negate_high : i.negate; }

// Pairs of 32-bit floats in register pairs.
template <class F>
constexpr Handler packed_f32(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow result[2];
    for (int half = 0; half < 2; half++) {
      Row space[3];
      const float *source[3] = {};
      for (int k = 0; k < i.source_count; k++) {
        const uint32_t *row = read_raw(wave, i, k, space[k], bit(selectors(i, half), k));
        const uint32_t flip = bit(negations(i, half), k) ? 0x80000000u : 0;
        const bool flush = !(wave.mode & mode_f32_input_denormals);
        if (flip || flush)
          for (int l = 0; l < lanes; l++)
            space[k][l] = flush ? flush_denormal(row[l] ^ flip) : row[l] ^ flip;
        source[k] = reinterpret_cast<const float *>(flip || flush ? space[k].lane : row);
      }
      const float *third = i.source_count > 2 ? source[2] : source[1];
      for (int l = 0; l < lanes; l++) result[half][l] = F{}(source[0][l], source[1][l], third[l]);
    }
    for (int half = 0; half < 2; half++) {
      Row &bits = reinterpret_cast<Row &>(result[half]);
      if (i.clamp)
        for (int l = 0; l < lanes; l++) result[half][l] = apply_output_modifier(result[half][l], i);
      if (!(wave.mode & mode_f32_output_denormals))
        for (int l = 0; l < lanes; l++) bits[l] = flush_denormal(bits[l]);
      store_row(wave, destination_of(wave, i) + half, bits.lane, wave.exec_mask());
    }
  };
}

void packed_move(Wave &wave,
                 const Instruction &i) {  // the low result from source 0, the high from 1
  Row space[2];
  Row result[2];
  for (int k = 0; k < 2; k++)
    std::memcpy(result[k].lane, read_raw(wave, i, k, space[k], bit(i.op_sel, k)), sizeof(Row));
  for (int k = 0; k < 2; k++)
    store_row(wave, destination_of(wave, i) + k, result[k].lane, wave.exec_mask());
}

struct HalfSources {
  Row space[3];
  const uint32_t *row[3];
  const Instruction &i;
  HalfSources(Wave &wave, const Instruction &instruction) : i(instruction) {
    for (int k = 0; k < 3; k++)
      row[k] = k < i.source_count ? read_raw(wave, i, k, space[k], 0, true) : row[0];
  }
  uint32_t element(int k, bool high, int lane) const {
    return row[k][lane] >> (bit(selectors(i, high), k) ? 16 : 0) & 0xffff;
  }
  double number(int k, bool high, int lane) const {
    return half_to_float(element(k, high, lane) ^ (bit(negations(i, high), k) ? 0x8000 : 0));
  }
};

template <class F>
constexpr Handler packed_u16(F) {
  return [](Wave &wave, const Instruction &i) {
    const HalfSources sources(wave, i);
    Row result;
    for (int l = 0; l < lanes; l++) {
      uint32_t halves[2];
      for (int h = 0; h < 2; h++)
        halves[h] = F{}(sources.element(0, h, l), sources.element(1, h, l),
                        sources.element(2, h, l), i.clamp);
      result[l] = (halves[0] & 0xffff) | halves[1] << 16;
    }
    write_u32(wave, i, result);
  };
}

template <class F>
constexpr Handler packed_f16(F) {
  return [](Wave &wave, const Instruction &i) {
    const HalfSources sources(wave, i);
    const bool flush = !(wave.mode & mode_f64_output_denormals);
    Row result;
    for (int l = 0; l < lanes; l++) {
      uint32_t halves[2];
      for (int h = 0; h < 2; h++) {
        const double value =
            F{}(sources.number(0, h, l), sources.number(1, h, l), sources.number(2, h, l));
        halves[h] = double_to_half(apply_output_modifier(value, i), half_rounding(wave));
        if (flush && !(halves[h] & 0x7c00)) halves[h] &= 0x8000;
      }
      result[l] = halves[0] | halves[1] << 16;
    }
    write_u32(wave, i, result);
  };
}

void packed_multiply_accumulate(Wave &wave, const Instruction &i) {  // v_pk_fmac_f16
  Row a, b, result;
  const uint32_t *x = read_raw(wave, i, 0, a, 0, true), *y = read_raw(wave, i, 1, b, 0, true);
  const uint32_t *sum = wave.row(i.destination);
  for (int l = 0; l < lanes; l++) {
    result[l] = 0;
    for (int shift : {0, 16})
      result[l] |= double_to_half(std::fma(double{half_to_float(x[l] >> shift)},
                                           double{half_to_float(y[l] >> shift)},
                                           double{half_to_float(sum[l] >> shift)}),
                                  half_rounding(wave))
                   << shift;
  }
  write_u32(wave, i, result);
}

// v_fma_mix: op_sel_hi says that a source is a half, op_sel which one; neg_hi is abs here.
void mixed_fma(Wave &wave, const Instruction &i, FloatRow &result) {
  FloatRow source[3];
  for (int k = 0; k < 3; k++) {
    Row space;
    const bool half = bit(i.op_sel_high, k);
    const uint32_t *row = read_raw(wave, i, k, space, 0, half);
    for (int l = 0; l < lanes; l++) {
      float x = half ? half_to_float(row[l] >> (bit(i.op_sel, k) ? 16 : 0)) : as_float(row[l]);
      if (bit(i.negate_high, k)) x = std::fabs(x);
      source[k][l] = bit(i.negate, k) ? -x : x;
    }
  }
  for (int l = 0; l < lanes; l++) result[l] = std::fma(source[0][l], source[1][l], source[2][l]);
}

void mixed_to_float(Wave &wave, const Instruction &i) {
  FloatRow result;
  mixed_fma(wave, i, result);
  write_f32(wave, i, result);
}

template <int shift>
void mixed_to_half(Wave &wave, const Instruction &i) {
  FloatRow sum;
  mixed_fma(wave, i, sum);
  const uint32_t *old = wave.row(i.destination);
  Row result;
  for (int l = 0; l < lanes; l++)
    result[l] = (old[l] & ~(0xffffu << shift)) | float_to_half(apply_output_modifier(sum[l], i))
                                                     << shift;
  write_u32(wave, i, result);
}

}  // namespace

void add_vector_packed(Bindings &b) {
  b.add("v_pk_fma_f32", packed_f32([](float x, float y, float z) { return std::fma(x, y, z); }));
  b.add("v_pk_mul_f32", packed_f32([](float x, float y, float) { return x * y; }));
  b.add("v_pk_add_f32", packed_f32([](float x, float y, float) { return x + y; }));
  b.add("v_pk_mov_b32", packed_move);
  b.add("v_pk_fma_f16", packed_f16([](double x, double y, double z) { return std::fma(x, y, z); }));
  b.add("v_pk_add_f16", packed_f16([](double x, double y, double) { return x + y; }));
  b.add("v_pk_mul_f16", packed_f16([](double x, double y, double) { return x * y; }));
  b.add("v_pk_min_f16", packed_f16([](double x, double y, double) { return ieee_min(x, y); }));
  b.add("v_pk_max_f16", packed_f16([](double x, double y, double) { return ieee_max(x, y); }));
  b.add("v_pk_minimum3_f16", packed_f16([](double x, double y, double z) {
          return double{propagating_min(propagating_min(float(x), float(y)), float(z))};
        }));
  b.add("v_pk_maximum3_f16", packed_f16([](double x, double y, double z) {
          return double{propagating_max(propagating_max(float(x), float(y)), float(z))};
        }));
  b.add("v_pk_fmac_f16", packed_multiply_accumulate);
  using U = uint32_t;
  b.add("v_pk_mad_i16", packed_u16([](U x, U y, U z, bool) { return x * y + z; }));
  b.add("v_pk_mad_u16", packed_u16([](U x, U y, U z, bool) { return x * y + z; }));
  b.add("v_pk_mul_lo_u16", packed_u16([](U x, U y, U, bool) { return x * y; }));
  b.add("v_pk_add_u16", packed_u16([](U x, U y, U, bool clamp) {
          return clamp ? std::min(x + y, 65535u) : x + y;
        }));
  b.add("v_pk_sub_u16",
        packed_u16([](U x, U y, U, bool clamp) { return clamp && y > x ? 0 : x - y; }));
  b.add("v_pk_add_i16", packed_u16([](U x, U y, U, bool clamp) {
          const int sum = signed16(x) + signed16(y);
          return as_unsigned(clamp ? std::clamp(sum, -32768, 32767) : sum);
        }));
  b.add("v_pk_sub_i16", packed_u16([](U x, U y, U, bool clamp) {
          const int difference = signed16(x) - signed16(y);
          return as_unsigned(clamp ? std::clamp(difference, -32768, 32767) : difference);
        }));
  b.add("v_pk_lshlrev_b16", packed_u16([](U x, U y, U, bool) { return y << (x & 15); }));
  b.add("v_pk_lshrrev_b16", packed_u16([](U x, U y, U, bool) { return y >> (x & 15); }));
  b.add("v_pk_ashrrev_i16",
        packed_u16([](U x, U y, U, bool) { return as_unsigned(signed16(y) >> (x & 15)); }));
  b.add("v_pk_max_i16", packed_u16([](U x, U y, U, bool) {
          return as_unsigned(std::max(signed16(x), signed16(y)));
        }));
  b.add("v_pk_min_i16", packed_u16([](U x, U y, U, bool) {
          return as_unsigned(std::min(signed16(x), signed16(y)));
        }));
  b.add("v_pk_max_u16", packed_u16([](U x, U y, U, bool) { return std::max(x, y); }));
  b.add("v_pk_min_u16", packed_u16([](U x, U y, U, bool) { return std::min(x, y); }));
  b.add("v_fma_mix_f32", mixed_to_float);
  b.add("v_fma_mixlo_f16", mixed_to_half<0>);
  b.add("v_fma_mixhi_f16", mixed_to_half<16>);
}

}  // namespace emu
