// SPDX-License-Identifier: Apache-2.0
// Handlers from functions of one lane: `binary_f32([](float a, float b) { return a + b; })`.
#pragma once
#include "handlers.h"
#include "operands.h"

namespace emu {

// 32-bit integers.
template <class F>
constexpr Handler unary_u32(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, result;
    const uint32_t *x = read_u32(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_u32(wave, i, result);
  };
}
template <class F>
constexpr Handler binary_u32(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, b, result;
    const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l]);
    write_u32(wave, i, result);
  };
}
template <class F>
constexpr Handler ternary_u32(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, b, c, result;
    const uint32_t *x = read_u32(wave, i, 0, a), *y = read_u32(wave, i, 1, b);
    const uint32_t *z = read_u32(wave, i, 2, c);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l], z[l]);
    write_u32(wave, i, result);
  };
}
// Integer operations with a saturating form under "clamp".
template <class F, class G>
constexpr Handler clamped_u32(F, G) {
  return [](Wave &wave, const Instruction &i) {
    (i.clamp ? binary_u32(G{}) : binary_u32(F{}))(wave, i);
  };
}

// 32-bit floats.
template <class F>
constexpr Handler unary_f32(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a, result;
    const float *x = read_f32(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_f32(wave, i, result);
  };
}
template <class F>
constexpr Handler binary_f32(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a, b, result;
    const float *x = read_f32(wave, i, 0, a), *y = read_f32(wave, i, 1, b);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l]);
    write_f32(wave, i, result);
  };
}
template <class F>
constexpr Handler ternary_f32(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a, b, c, result;
    const float *x = read_f32(wave, i, 0, a), *y = read_f32(wave, i, 1, b);
    const float *z = read_f32(wave, i, 2, c);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l], z[l]);
    write_f32(wave, i, result);
  };
}
// The transcendental unit flushes denormals whatever the mode says.
template <class F>
constexpr Handler transcendental_f32(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a, result;
    const float *x = read_f32(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = flush_denormal(F{}(flush_denormal(x[l])));
    write_f32(wave, i, result);
  };
}

// Runs the host's arithmetic in another rounding mode for the life of the object.
class HostRounding {
 public:
  explicit HostRounding(Round round) : saved_(_mm_getcsr()) {
    constexpr unsigned host[] = {_MM_ROUND_NEAREST, _MM_ROUND_UP, _MM_ROUND_DOWN,
                                 _MM_ROUND_TOWARD_ZERO};
    _mm_setcsr((saved_ & ~_MM_ROUND_MASK) | host[static_cast<int>(round)]);
  }
  ~HostRounding() { _mm_setcsr(saved_); }
  HostRounding(const HostRounding &) = delete;

 private:
  unsigned saved_;
};

// 64-bit floats.
template <class F>
constexpr Handler unary_f64(F) {
  return [](Wave &wave, const Instruction &i) {
    HostRounding rounding(half_rounding(wave));
    Lanes<double> a, result;
    const double *x = read_f64(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l]);
    write_f64(wave, i, result);
  };
}
template <class F>
constexpr Handler binary_f64(F) {
  return [](Wave &wave, const Instruction &i) {
    HostRounding rounding(half_rounding(wave));
    Lanes<double> a, b, result;
    const double *x = read_f64(wave, i, 0, a), *y = read_f64(wave, i, 1, b);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l]);
    write_f64(wave, i, result);
  };
}
template <class F>
constexpr Handler ternary_f64(F) {
  return [](Wave &wave, const Instruction &i) {
    HostRounding rounding(half_rounding(wave));
    Lanes<double> a, b, c, result;
    const double *x = read_f64(wave, i, 0, a), *y = read_f64(wave, i, 1, b);
    const double *z = read_f64(wave, i, 2, c);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l], z[l]);
    write_f64(wave, i, result);
  };
}

// 16-bit floats: computed exactly in double (sums and products of halves are), rounded once.
template <class F>
constexpr Handler unary_f16(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a;
    Lanes<double> result;
    const float *x = read_f16(wave, i, 0, a);
    for (int l = 0; l < lanes; l++) result[l] = F{}(double{x[l]});
    write_f16(wave, i, result);
  };
}
template <class F>
constexpr Handler binary_f16(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a, b;
    Lanes<double> result;
    const float *x = read_f16(wave, i, 0, a), *y = read_f16(wave, i, 1, b);
    for (int l = 0; l < lanes; l++) result[l] = F{}(double{x[l]}, double{y[l]});
    write_f16(wave, i, result);
  };
}
enum class OtherHalf { cleared, kept };
template <OtherHalf other_half, class F>
constexpr Handler ternary_f16(F) {
  return [](Wave &wave, const Instruction &i) {
    FloatRow a, b, c;
    Lanes<double> result;
    const float *x = read_f16(wave, i, 0, a), *y = read_f16(wave, i, 1, b);
    const float *z = read_f16(wave, i, 2, c);
    for (int l = 0; l < lanes; l++) result[l] = F{}(double{x[l]}, double{y[l]}, double{z[l]});
    write_f16(wave, i, result, other_half == OtherHalf::kept);
  };
}

// 16-bit integers.
template <class F>
constexpr Handler binary_u16(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, b, result;
    const uint32_t *x = read_u16(wave, i, 0, a), *y = read_u16(wave, i, 1, b);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l]);
    write_u16(wave, i, result);
  };
}
template <class F, class G>
constexpr Handler clamped_u16(F, G) {
  return [](Wave &wave, const Instruction &i) {
    (i.clamp ? binary_u16(G{}) : binary_u16(F{}))(wave, i);
  };
}
template <OtherHalf other_half, class F>
constexpr Handler ternary_u16(F) {
  return [](Wave &wave, const Instruction &i) {
    Row a, b, c, result;
    const uint32_t *x = read_u16(wave, i, 0, a), *y = read_u16(wave, i, 1, b);
    const uint32_t *z = read_u16(wave, i, 2, c);
    for (int l = 0; l < lanes; l++) result[l] = F{}(x[l], y[l], z[l]);
    write_u16(wave, i, result, other_half == OtherHalf::kept);
  };
}

}  // namespace emu
