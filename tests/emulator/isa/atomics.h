// SPDX-License-Identifier: Apache-2.0
// The functions of atomic read-modify-writes: f(old, operand, second operand) is the new value.
#pragma once
#include <type_traits>

#include "memory_operation.h"
#include "numeric.h"

namespace emu {

template <class T>
using AtomicFunction = T (*)(T old, T x, T y);

template <class T>
using FloatOf = std::conditional_t<sizeof(T) == 8, double, float>;

// Applies a function of two floats to their bit patterns.
template <class T, class F>
T on_floats(T a, T b, F f) {
  using Float = FloatOf<T>;
  return std::bit_cast<T>(static_cast<Float>(f(std::bit_cast<Float>(a), std::bit_cast<Float>(b))));
}

template <class T>
AtomicFunction<T> atomic_function(Atomic operation) {
  using S = std::make_signed_t<T>;
  switch (operation) {
    case Atomic::swap: return [](T, T x, T) { return x; };
    case Atomic::compare_swap: return [](T old, T x, T y) { return old == y ? x : old; };
    case Atomic::float_compare_swap:
      return [](T old, T x, T y) {
        return std::bit_cast<FloatOf<T>>(old) == std::bit_cast<FloatOf<T>>(y) ? x : old;
      };
    case Atomic::add: return [](T old, T x, T) { return old + x; };
    case Atomic::subtract: return [](T old, T x, T) { return old - x; };
    case Atomic::reverse_subtract: return [](T old, T x, T) { return x - old; };
    case Atomic::signed_min: return [](T old, T x, T) { return S(old) < S(x) ? old : x; };
    case Atomic::signed_max: return [](T old, T x, T) { return S(old) > S(x) ? old : x; };
    case Atomic::unsigned_min: return [](T old, T x, T) { return old < x ? old : x; };
    case Atomic::unsigned_max: return [](T old, T x, T) { return old > x ? old : x; };
    case Atomic::bit_and: return [](T old, T x, T) { return old & x; };
    case Atomic::bit_or: return [](T old, T x, T) { return old | x; };
    case Atomic::bit_xor: return [](T old, T x, T) { return old ^ x; };
    case Atomic::masked_or: return [](T old, T x, T y) { return (old & ~x) | y; };
    case Atomic::increment: return [](T old, T x, T) { return old >= x ? T(0) : old + 1; };
    case Atomic::decrement: return [](T old, T x, T) { return old == 0 || old > x ? x : old - 1; };
    case Atomic::float_add:
      return [](T old, T x, T) { return on_floats(old, x, [](auto a, auto b) { return a + b; }); };
    case Atomic::float_min:
      return [](T old, T x, T) {
        return on_floats(old, x, [](auto a, auto b) { return ieee_min(a, b); });
      };
    case Atomic::float_max:
      return [](T old, T x, T) {
        return on_floats(old, x, [](auto a, auto b) { return ieee_max(a, b); });
      };
    case Atomic::packed_half_add:
      return [](T old, T x, T) -> T {
        const auto add = [](uint32_t a, uint32_t b) {
          return double_to_half(double{half_to_float(a)} + half_to_float(b), Round::nearest_even);
        };
        return add(old & 0xffff, x & 0xffff) | add(old >> 16 & 0xffff, x >> 16 & 0xffff) << 16;
      };
    case Atomic::packed_bfloat_add:
      return [](T old, T x, T) -> T {
        const auto add = [](uint32_t a, uint32_t b) {
          return float_to_bfloat(bfloat_to_float(a) + bfloat_to_float(b));
        };
        return add(old & 0xffff, x & 0xffff) | add(old >> 16 & 0xffff, x >> 16 & 0xffff) << 16;
      };
    case Atomic::none: break;
  }
  return nullptr;
}

// Workgroups may run on several host threads, so the host does it atomically too.
template <class T>
T modify(T *target, AtomicFunction<T> function, T x, T y) {
  T old = __atomic_load_n(target, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(target, &old, function(old, x, y), false, __ATOMIC_SEQ_CST,
                                      __ATOMIC_RELAXED)) {
  }
  return old;
}

}  // namespace emu
