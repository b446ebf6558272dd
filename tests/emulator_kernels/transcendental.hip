// SPDX-License-Identifier: Apache-2.0
// The approximate instructions, and the C functions that the compiler builds from them.
#include "device.h"

ITEM(exp2, f32, f32, __builtin_amdgcn_exp2f(x))
ITEM(log2, f32, f32, __builtin_amdgcn_logf(x))
ITEM(reciprocal, f32, f32, __builtin_amdgcn_rcpf(x))
ITEM(reciprocal_root, f32, f32, __builtin_amdgcn_rsqf(x))
ITEM(root, f32, f32, __builtin_amdgcn_sqrtf(x))
ITEM(sine, f32, f32, __builtin_amdgcn_sinf(x))
ITEM(cosine, f32, f32, __builtin_amdgcn_cosf(x))
ITEM(exp2_function, f32, f32, __builtin_exp2f(x))
ITEM(exp_function, f32, f32, __builtin_expf(x))
ITEM(log2_function, f32, f32, __builtin_log2f(x))
ITEM(log_function, f32, f32, __builtin_logf(x))

ITEM(half_exp2, f16, f16, __builtin_exp2f16(x))
ITEM(half_log2, f16, f16, __builtin_log2f16(x))
ITEM(half_reciprocal, f16, f16, __builtin_amdgcn_rcph(x))
ITEM(half_reciprocal_root, f16, f16, __builtin_amdgcn_rsqh(x))
ITEM(half_root, f16, f16, __builtin_amdgcn_sqrth(x))
ITEM(half_sine, f16, f16, __builtin_amdgcn_sinh(x))
ITEM(half_cosine, f16, f16, __builtin_amdgcn_cosh(x))

ITEM(wide_reciprocal, f64, f64, __builtin_amdgcn_rcp(x))
ITEM(wide_reciprocal_root, f64, f64, __builtin_amdgcn_rsq(x))
