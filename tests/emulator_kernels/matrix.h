// SPDX-License-Identifier: Apache-2.0
// A kernel of one wave around one matrix instruction, d = a b + c.
#pragma once
#include "device.h"

template <class Element, int count>
using vector = Element __attribute__((ext_vector_type(count)));

// MATRIX(result_MxNxKxBLOCKS_typeA_typeB, what a lane holds of a, b and c, instruction)
#define MATRIX(name, A, B, C, ...)                                     \
  KERNEL(64) name(const A *as, const B *bs, const C *cs, C *results) { \
    A a = as[thread_id()];                                             \
    B b = bs[thread_id()];                                             \
    C c = cs[thread_id()];                                             \
    results[thread_id()] = __VA_ARGS__;                                \
  }

using f32x4 = vector<f32, 4>;
using f32x16 = vector<f32, 16>;
using f32x32 = vector<f32, 32>;
using f16x4 = vector<f16, 4>;
using f16x8 = vector<f16, 8>;
using bf16x4 = vector<short, 4>;
using bf16x8 = vector<__bf16, 8>;
using f64x4 = vector<f64, 4>;
using i32x4 = vector<i32, 4>;
using i32x8 = vector<i32, 8>;
using i32x16 = vector<i32, 16>;
using i32x32 = vector<i32, 32>;
