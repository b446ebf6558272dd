// SPDX-License-Identifier: Apache-2.0
// Single precision and bfloat16, item by item.
#include "floats.h"

ITEM(add, f32, f32, x + y)
ITEM(sub, f32, f32, x - y)
ITEM(mul, f32, f32, x * y)
ITEM(fma, f32, f32, __builtin_fmaf(x, y, z))
ITEM(fma_negated, f32, f32, __builtin_fmaf(-x, __builtin_fabsf(y), -z))
ITEM(mul_then_add, f32, f32, x * y + z)
ITEM(add_constant, f32, f32, (x + 0.5f) * -4.0f)
ITEM(fma_constant, f32, f32, __builtin_fmaf(x, y, 3.14f) + __builtin_fmaf(x, 2.71f, z))
ITEM(divide, f32, f32, x / y)
ITEM(reciprocal, f32, f32, 1.0f / x)
ITEM(square_root, f32, f32, __builtin_sqrtf(__builtin_fabsf(x)))
ITEM(square_root_signed, f32, f32, __builtin_sqrtf(x))
ITEM(floor, f32, f32, __builtin_floorf(x))
ITEM(ceil, f32, f32, __builtin_ceilf(x))
ITEM(trunc, f32, f32, __builtin_truncf(x))
ITEM(round_even, f32, f32, __builtin_rintf(x))
ITEM(round_away, f32, f32, __builtin_roundf(x))
ITEM(fraction, f32, f32,
     PICK(__builtin_amdgcn_fractf(finite(x)), fraction_of(finite(x), 0x1.fffffep-1f)))
ITEM(scale, f32, f32, __builtin_ldexpf(x, (i32)(bit_cast<u32>(y) % 600) - 300))
ITEM(scale_far, f32, f32, __builtin_ldexpf(x, (i32)(bit_cast<u32>(y) % 65000) - 32500))
ITEM(mantissa_of, f32, f32, PICK(__builtin_amdgcn_frexp_mantf(x), mantissa(x)))
ITEM(exponent_of, f32, i32, PICK(__builtin_amdgcn_frexp_expf(x), exponent(x)))
ITEM(minimum, f32, f32, PICK(__builtin_fminf(x, y), smaller(x, y)))
ITEM(maximum, f32, f32, PICK(__builtin_fmaxf(x, y), larger(x, y)))
ITEM(minimum3, f32, f32,
     PICK(__builtin_fminf(__builtin_fminf(x, y), z), smaller(smaller(x, y), z)))
ITEM(maximum3, f32, f32, PICK(__builtin_fmaxf(__builtin_fmaxf(x, y), z), larger(larger(x, y), z)))
// Which zero is the middle one is left open, hence the sum.
ITEM(median, f32, f32, PICK(__builtin_amdgcn_fmed3f(x, y, z), middle(x, y, z)) + 0.0f)
ITEM(minimum_by_choice, f32, f32, x < y ? x : y)
ITEM(clamp, f32, f32, x != x ? 0.0f : x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x)
ITEM(magnitude, f32, f32, -__builtin_fabsf(x))
ITEM(copy_sign, f32, f32, __builtin_copysignf(x, y))
ITEM(compares, f32, u32,
     (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > z) << 4 | (x >= z) << 5)
ITEM(compares_negated, f32, u32, !(x < y) | !(x <= y) << 1 | !(x > z) << 2 | !(x >= z) << 3 |
     __builtin_isunordered(x, y) << 4 | __builtin_islessgreater(x, y) << 5)
ITEM(is_nan, f32, u32, (x != x) | !!__builtin_isinf(y) << 1 | !!__builtin_isfinite(z) << 2)
ITEM(class_of, u32, u32, PICK(__builtin_amdgcn_classf(bit_cast<f32>(x), y & 1023),
                              (classes(x, 8, 23) & y & 1023) != 0))

ITEM(to_signed, f32, i32, PICK((i32)x, to_i32(x)))
ITEM(to_unsigned, f32, u32, PICK((u32)x, to_u32(x)))
ITEM(from_signed, i32, f32, (f32)x)
ITEM(from_unsigned, u32, f32, (f32)x)
ITEM(from_bytes, u32, f32,
     (f32)(x & 255) * 0.1f - (f32)(x >> 8 & 255) * 0.7f + (f32)(x >> 16 & 255) / (f32)(x >> 24))
ITEM(from_wide_signed, i64, f32, (f32)x)
ITEM(from_wide_unsigned, u64, f32, (f32)x)
ITEM(to_wide_signed, f32, i64, __builtin_fabsf(x) < 9e18f ? (i64)x : 1)
ITEM(to_wide_unsigned, f32, u64, x > -1 && x < 1.8e19f ? (u64)x : 1)
ITEM(to_half, f32, f16, (f16)x)
ITEM(from_half, f16, f32, (f32)x)
ITEM(to_bfloat, f32, u16, to_bf16(x))
ITEM(bfloat_add, u16, u16, to_bf16(from_bf16(x) + from_bf16(y)))
ITEM(bfloat_fma, u16, u16, to_bf16(__builtin_fmaf(from_bf16(x), from_bf16(y), from_bf16(z))))
ITEM(bfloat_pair, f32, u32, to_bf16(x) | (u32)to_bf16(y) << 16)
ITEM(to_byte, f32, u32,
     PICK(__builtin_amdgcn_cvt_pk_u8_f32(x, 2, bit_cast<u32>(y)),
          (bit_cast<u32>(y) & 0xff00ffff) |
              (u32)(x > 255 ? 255 : x > 0 ? __builtin_rintf(x) : 0) << 16))

DEVICE f32x2 pair_fma(f32x2 a, f32x2 b, f32x2 c) { return __builtin_elementwise_fma(a, b, c); }
DEVICE f32 folded(f32x2 pair) { return pair.x - 2 * pair.y; }
ITEM(pair_add, f32, f32, folded(f32x2{x, y} + f32x2{z, x}))
ITEM(pair_mul, f32, f32, folded(f32x2{x, y} * f32x2{z, z}))
ITEM(pair_fma_of, f32, f32, folded(pair_fma(f32x2{x, y}, f32x2{z, x}, f32x2{y, z})))
