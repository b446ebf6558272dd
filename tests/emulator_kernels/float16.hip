// SPDX-License-Identifier: Apache-2.0
// Half precision, single and packed, item by item.
#include "floats.h"

DEVICE f16 half_of(f32 value) { return (f16)value; }

ITEM(add, f16, f16, x + y)
ITEM(sub, f16, f16, x - y)
ITEM(mul, f16, f16, x * y)
ITEM(fma, f16, f16, PICK(__builtin_fmaf16(x, y, z), fused_half(x, y, z)))
ITEM(divide, f16, f16, x / y)
ITEM(square_root, f16, f16,
     PICK(__builtin_sqrtf16(x), half_of(__builtin_sqrtf((f32)x))))
ITEM(floor, f16, f16, PICK(__builtin_floorf16(x), half_of(__builtin_floorf((f32)x))))
ITEM(ceil, f16, f16, PICK(__builtin_ceilf16(x), half_of(__builtin_ceilf((f32)x))))
ITEM(trunc, f16, f16, PICK(__builtin_truncf16(x), half_of(__builtin_truncf((f32)x))))
ITEM(round_even, f16, f16, PICK(__builtin_rintf16(x), half_of(__builtin_rintf((f32)x))))
ITEM(fraction, f16, f16,
     PICK(__builtin_amdgcn_fracth(finite(x)), half_of(fraction_of((f32)finite(x), 0x1.ffcp-1f))))
ITEM(scale, f16, f16,
     PICK(__builtin_ldexpf16(x, (i32)(bit_cast<u16>(y) % 80) - 40),
          half_of(__builtin_ldexpf((f32)x, (i32)(bit_cast<u16>(y) % 80) - 40))))
ITEM(mantissa_of, f16, f16, PICK(__builtin_amdgcn_frexp_manth(x), half_of(mantissa((f32)x))))
ITEM(exponent_of, f16, i16, PICK(__builtin_amdgcn_frexp_exph(x), exponent((f32)x)))
ITEM(minimum, f16, f16, PICK(__builtin_fminf16(x, y), smaller(x, y)))
ITEM(maximum, f16, f16, PICK(__builtin_fmaxf16(x, y), larger(x, y)))
ITEM(minimum3, f16, f16,
     PICK(__builtin_fminf16(__builtin_fminf16(x, y), z), smaller(smaller(x, y), z)))
ITEM(maximum3, f16, f16,
     PICK(__builtin_fmaxf16(__builtin_fmaxf16(x, y), z), larger(larger(x, y), z)))
ITEM(median, f16, f16, PICK(__builtin_amdgcn_fmed3h(x, y, z), middle(x, y, z)) + half_of(0))
ITEM(magnitude, f16, f16, PICK(-__builtin_fabsf16(x), half_of(-__builtin_fabsf((f32)x))))
ITEM(compares, f16, u32,
     (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > z) << 4 | (x >= z) << 5)
ITEM(compares_negated, f16, u32, !(x < y) | !(x <= y) << 1 | !(x > z) << 2 | (x != x) << 3)
ITEM(class_of, u16, u32, PICK(__builtin_amdgcn_classh(bit_cast<f16>(x), y & 1023),
                              (classes(x, 5, 10) & y & 1023) != 0))
ITEM(to_signed, f16, i16,
     PICK((i16)x, (i16)(x != x ? 0.0f : larger(-32768.0f, smaller(32767.0f, (f32)x)))))
ITEM(to_unsigned, f16, u16,
     PICK((u16)x, (u16)(x != x ? 0.0f : larger(0.0f, smaller(65535.0f, (f32)x)))))
ITEM(from_signed, i16, f16, (f16)x)
ITEM(from_unsigned, u16, f16, (f16)x)
ITEM(to_word, f16, i32, PICK((i32)x, to_i32((f32)x)))

ITEM(pair_add, f16, u32, packed(f16x2{x, y} + f16x2{z, x}))
ITEM(pair_mul, f16, u32, packed(f16x2{x, y} * f16x2{z, -x}))
ITEM(pair_fma, f16, u32,
     PICK(packed(__builtin_elementwise_fma(f16x2{x, y}, f16x2{z, x}, f16x2{y, z})),
          packed(f16x2{fused_half(x, z, y), fused_half(y, x, z)})))
ITEM(pair_minimum, f16, u32,
     PICK(packed(__builtin_elementwise_min(f16x2{x, y}, f16x2{z, x})),
          packed(f16x2{smaller(x, z), smaller(y, x)})))
ITEM(pair_maximum, f16, u32,
     PICK(packed(__builtin_elementwise_max(f16x2{x, y}, f16x2{z, x})),
          packed(f16x2{larger(x, z), larger(y, x)})))
ITEM(narrowed_fma, f16, f16, (f16)__builtin_fmaf((f32)x, (f32)y, (f32)z))
ITEM(mixed_fma, f16, f32, __builtin_fmaf((f32)x, (f32)y, (f32)z))
