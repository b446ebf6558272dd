// SPDX-License-Identifier: Apache-2.0
// Vector comparisons: a bit for each lane, to VCC or any SGPR pair, and for v_cmpx to EXEC too.
#include "lanewise.h"

namespace emu {
namespace {

template <class T, class F>
uint64_t compare_lanes(const T *x, const T *y, F) {
  alignas(64) uint8_t holds[lanes];
  for (int l = 0; l < lanes; l++) holds[l] = F{}(x[l], y[l]);
  uint64_t mask = 0;
  for (int l = 0; l < lanes; l++) mask |= uint64_t{holds[l]} << l;
  return mask;
}

void write_mask(Wave &wave, const Instruction &i, uint64_t mask, bool to_exec) {
  mask &= written_lanes(wave, i);
  wave.set_pair(i.destination, mask);
  if (to_exec) wave.set_pair(exec, mask);
}

// Readers of one type's sources.
struct Float16 {
  using Type = float;
  FloatRow space;
  const float *read(Wave &wave, const Instruction &i, int k) { return read_f16(wave, i, k, space); }
};
struct Float32 {
  using Type = float;
  FloatRow space;
  const float *read(Wave &wave, const Instruction &i, int k) { return read_f32(wave, i, k, space); }
};
struct Float64 {
  using Type = double;
  Lanes<double> space;
  const double *read(Wave &wave, const Instruction &i, int k) {
    return read_f64(wave, i, k, space);
  }
};
struct Unsigned16 {
  using Type = uint32_t;
  Row space;
  const uint32_t *read(Wave &wave, const Instruction &i, int k) {
    return read_u16(wave, i, k, space);
  }
};
struct Signed16 {
  using Type = int32_t;
  Row space;
  const int32_t *read(Wave &wave, const Instruction &i, int k) {
    const uint32_t *row = read_u16(wave, i, k, space);
    for (int l = 0; l < lanes; l++) space[l] = static_cast<uint32_t>(static_cast<int16_t>(row[l]));
    return reinterpret_cast<const int32_t *>(space.lane);
  }
};
struct Unsigned32 {
  using Type = uint32_t;
  Row space;
  const uint32_t *read(Wave &wave, const Instruction &i, int k) {
    return read_u32(wave, i, k, space);
  }
};
struct Signed32 {
  using Type = int32_t;
  Row space;
  const int32_t *read(Wave &wave, const Instruction &i, int k) {
    return reinterpret_cast<const int32_t *>(read_u32(wave, i, k, space));
  }
};
struct Unsigned64 {
  using Type = uint64_t;
  WideRow space;
  const uint64_t *read(Wave &wave, const Instruction &i, int k) {
    return read_u64(wave, i, k, space);
  }
};
struct Signed64 {
  using Type = int64_t;
  WideRow space;
  const int64_t *read(Wave &wave, const Instruction &i, int k) {
    return reinterpret_cast<const int64_t *>(read_u64(wave, i, k, space));
  }
};

template <class Source, bool to_exec, class F>
constexpr Handler compare(F) {
  return [](Wave &wave, const Instruction &i) {
    Source a, b;
    const auto *x = a.read(wave, i, 0), *y = b.read(wave, i, 1);
    write_mask(wave, i, compare_lanes(x, y, F{}), to_exec);
  };
}

template <class Source, class F>
void add_comparison(Bindings &b, const std::string &condition, const std::string &type, F) {
  b.add("v_cmp_" + condition + "_" + type, compare<Source, false>(F{}));
  b.add("v_cmpx_" + condition + "_" + type, compare<Source, true>(F{}));
}

template <class Source>
void add_orders(Bindings &b, const std::string &type) {
  add_comparison<Source>(b, "lt", type, [](auto x, auto y) { return x < y; });
  add_comparison<Source>(b, "eq", type, [](auto x, auto y) { return x == y; });
  add_comparison<Source>(b, "le", type, [](auto x, auto y) { return x <= y; });
  add_comparison<Source>(b, "gt", type, [](auto x, auto y) { return x > y; });
  add_comparison<Source>(b, "ge", type, [](auto x, auto y) { return x >= y; });
  add_comparison<Source>(b, "f", type, [](auto, auto) { return false; });
}

template <class Source>
void add_integer(Bindings &b, const std::string &type) {
  add_orders<Source>(b, type);
  add_comparison<Source>(b, "ne", type, [](auto x, auto y) { return x != y; });
  add_comparison<Source>(b, "t", type, [](auto, auto) { return true; });
}

template <class Source>
void add_float(Bindings &b, const std::string &type) {
  add_orders<Source>(b, type);
  add_comparison<Source>(b, "lg", type, [](auto x, auto y) { return x < y || x > y; });
  add_comparison<Source>(b, "o", type, [](auto x, auto y) { return x == x && y == y; });
  add_comparison<Source>(b, "u", type, [](auto x, auto y) { return x != x || y != y; });
  add_comparison<Source>(b, "nge", type, [](auto x, auto y) { return !(x >= y); });
  add_comparison<Source>(b, "nlg", type, [](auto x, auto y) { return !(x < y || x > y); });
  add_comparison<Source>(b, "ngt", type, [](auto x, auto y) { return !(x > y); });
  add_comparison<Source>(b, "nle", type, [](auto x, auto y) { return !(x <= y); });
  add_comparison<Source>(b, "neq", type, [](auto x, auto y) { return !(x == y); });
  add_comparison<Source>(b, "nlt", type, [](auto x, auto y) { return !(x < y); });
  add_comparison<Source>(b, "tru", type, [](auto, auto) { return true; });
}

// v_cmp_class: which of ten classes a number is in, as bits of a mask.
enum Class {
  signaling_nan,
  quiet_nan_class,
  minus_infinity,
  minus_normal,
  minus_denormal,
  minus_zero,
  plus_zero,
  plus_denormal,
  plus_normal,
  plus_infinity
};

Class classify(uint64_t bits, int exponent_bits, int mantissa_bits) {
  const bool negative = bits >> (exponent_bits + mantissa_bits) & 1;
  const uint64_t top = (1ull << exponent_bits) - 1;
  const uint64_t exponent = bits >> mantissa_bits & top;
  const uint64_t fraction = bits & ((1ull << mantissa_bits) - 1);
  if (exponent == top && fraction)
    return fraction >> (mantissa_bits - 1) ? quiet_nan_class : signaling_nan;
  if (exponent == top) return negative ? minus_infinity : plus_infinity;
  if (exponent) return negative ? minus_normal : plus_normal;
  if (fraction) return negative ? minus_denormal : plus_denormal;
  return negative ? minus_zero : plus_zero;
}

template <int exponent_bits, int mantissa_bits, class T>
uint64_t class_mask(const T *value, const uint32_t *classes) {
  uint64_t mask = 0;
  for (int l = 0; l < lanes; l++)
    mask |= uint64_t{classes[l] >> classify(value[l], exponent_bits, mantissa_bits) & 1} << l;
  return mask;
}

template <bool to_exec>
void class_of_f32(Wave &wave, const Instruction &i) {
  FloatRow a;
  Row b;
  const float *x = read_f32(wave, i, 0, a, false);
  const auto *bits = reinterpret_cast<const uint32_t *>(x);
  write_mask(wave, i, class_mask<8, 23>(bits, read_u32(wave, i, 1, b)), to_exec);
}
template <bool to_exec>
void class_of_f16(Wave &wave, const Instruction &i) {
  Row a, b;
  const uint32_t *x = read_u16(wave, i, 0, a, true);
  write_mask(wave, i, class_mask<5, 10>(x, read_u32(wave, i, 1, b)), to_exec);
}
template <bool to_exec>
void class_of_f64(Wave &wave, const Instruction &i) {
  Lanes<double> a;
  Row b;
  const auto *x = reinterpret_cast<const uint64_t *>(read_f64(wave, i, 0, a));
  write_mask(wave, i, class_mask<11, 52>(x, read_u32(wave, i, 1, b)), to_exec);
}

}  // namespace

void add_vector_compare(Bindings &b) {
  add_float<Float16>(b, "f16");
  add_float<Float32>(b, "f32");
  add_float<Float64>(b, "f64");
  add_integer<Signed16>(b, "i16");
  add_integer<Unsigned16>(b, "u16");
  add_integer<Signed32>(b, "i32");
  add_integer<Unsigned32>(b, "u32");
  add_integer<Signed64>(b, "i64");
  add_integer<Unsigned64>(b, "u64");
  b.add("v_cmp_class_f32", class_of_f32<false>);
  b.add("v_cmpx_class_f32", class_of_f32<true>);
  b.add("v_cmp_class_f16", class_of_f16<false>);
  b.add("v_cmpx_class_f16", class_of_f16<true>);
  b.add("v_cmp_class_f64", class_of_f64<false>);
  b.add("v_cmpx_class_f64", class_of_f64<true>);
}

}  // namespace emu
