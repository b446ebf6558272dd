// SPDX-License-Identifier: Apache-2.0
// Double precision, item by item.
#include "floats.h"

ITEM(add, f64, f64, x + y)
ITEM(sub, f64, f64, x - y)
ITEM(mul, f64, f64, x * y)
ITEM(fma, f64, f64, __builtin_fma(x, y, -z))
ITEM(divide, f64, f64, x / y)
ITEM(square_root, f64, f64, __builtin_sqrt(x))
ITEM(floor, f64, f64, __builtin_floor(x))
ITEM(ceil, f64, f64, __builtin_ceil(x))
ITEM(trunc, f64, f64, __builtin_trunc(x))
ITEM(round_even, f64, f64, __builtin_rint(x))
ITEM(fraction, f64, f64,
     PICK(__builtin_amdgcn_fract(finite(x)), fraction_of(finite(x), 0x1.fffffffffffffp-1)))
ITEM(scale, f64, f64, __builtin_ldexp(x, (i32)(bit_cast<u64>(y) % 4400) - 2200))
ITEM(mantissa_of, f64, f64, PICK(__builtin_amdgcn_frexp_mant(x), mantissa(x)))
ITEM(exponent_of, f64, i32, PICK(__builtin_amdgcn_frexp_exp(x), exponent(x)))
ITEM(minimum, f64, f64, PICK(__builtin_fmin(x, y), smaller(x, y)))
ITEM(maximum, f64, f64, PICK(__builtin_fmax(x, y), larger(x, y)))
ITEM(magnitude, f64, f64, -__builtin_fabs(x))
ITEM(compares, f64, u32,
     (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | (x > z) << 4 | (x >= z) << 5)
ITEM(compares_negated, f64, u32, !(x < y) | !(x <= y) << 1 | !(x > z) << 2 |
     __builtin_isunordered(x, y) << 3 | __builtin_islessgreater(x, y) << 4)
ITEM(class_of, u64, u32, PICK(__builtin_amdgcn_class(bit_cast<f64>(x), y & 1023),
                              (classes(x, 11, 52) & y & 1023) != 0))
ITEM(to_signed, f64, i32, PICK((i32)x, to_i32(x)))
ITEM(to_unsigned, f64, u32, PICK((u32)x, to_u32(x)))
ITEM(from_signed, i32, f64, (f64)x)
ITEM(from_unsigned, u32, f64, (f64)x)
ITEM(from_wide_signed, i64, f64, (f64)x)
ITEM(from_wide_unsigned, u64, f64, (f64)x)
ITEM(to_wide_signed, f64, i64, __builtin_fabs(x) < 9e18 ? (i64)x : 1)
ITEM(to_single, f64, f32, (f32)x)
ITEM(from_single, f32, f64, (f64)x)
ITEM(to_half, f64, f16, PICK((f16)x, (f16)to_f32_odd(x)))
