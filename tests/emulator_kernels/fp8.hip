// SPDX-License-Identifier: Apache-2.0
// Conversions between float32 and the 8-bit floats (fnuz on gfx942, OCP on gfx950) and packs.
// A kernel reads an x and a y, and writes one 32-bit word.
#include "device.h"

using i16x2 = i16 __attribute__((ext_vector_type(2)));

#define CONVERSION(name, Input, ...)                                               \
  KERNEL(256) name(const Input *xs, const Input *ys, u32 *results) {               \
    [[maybe_unused]] Input x = xs[global_id()], y = ys[global_id()];               \
    results[global_id()] = __builtin_bit_cast(u32, __VA_ARGS__);                    \
  }

CONVERSION(fp8_low, f32, __builtin_amdgcn_cvt_pk_fp8_f32(x, y, 0x5a5a5a5a, false))
CONVERSION(fp8_high, f32, __builtin_amdgcn_cvt_pk_fp8_f32(x, y, 0x5a5a5a5a, true))
CONVERSION(bf8_low, f32, __builtin_amdgcn_cvt_pk_bf8_f32(x, y, 0x5a5a5a5a, false))
CONVERSION(bf8_high, f32, __builtin_amdgcn_cvt_pk_bf8_f32(x, y, 0x5a5a5a5a, true))

CONVERSION(from_fp8_0, u32, __builtin_amdgcn_cvt_f32_fp8(x, 0))
CONVERSION(from_fp8_1, u32, __builtin_amdgcn_cvt_f32_fp8(x, 1))
CONVERSION(from_fp8_2, u32, __builtin_amdgcn_cvt_f32_fp8(x, 2))
CONVERSION(from_fp8_3, u32, __builtin_amdgcn_cvt_f32_fp8(x, 3))
CONVERSION(from_bf8_0, u32, __builtin_amdgcn_cvt_f32_bf8(x, 0))
CONVERSION(from_bf8_1, u32, __builtin_amdgcn_cvt_f32_bf8(x, 1))
CONVERSION(from_bf8_2, u32, __builtin_amdgcn_cvt_f32_bf8(x, 2))
CONVERSION(from_bf8_3, u32, __builtin_amdgcn_cvt_f32_bf8(x, 3))
// The casts matter: a bit cast of an indexed vector takes element 0 whatever the index.
CONVERSION(pair_from_fp8_0, u32, (f32)__builtin_amdgcn_cvt_pk_f32_fp8(x, false)[0])
CONVERSION(pair_from_fp8_1, u32, (f32)__builtin_amdgcn_cvt_pk_f32_fp8(x, false)[1])
CONVERSION(pair_from_fp8_2, u32, (f32)__builtin_amdgcn_cvt_pk_f32_fp8(x, true)[0])
CONVERSION(pair_from_bf8_3, u32, (f32)__builtin_amdgcn_cvt_pk_f32_bf8(x, true)[1])

CONVERSION(pack_half_to_zero, f32, __builtin_amdgcn_cvt_pkrtz(x, y))
CONVERSION(pack_normalised, f32, __builtin_amdgcn_cvt_pknorm_i16(x, y))
CONVERSION(pack_normalised_unsigned, f32, __builtin_amdgcn_cvt_pknorm_u16(x, y))

// MODE.FP16_OVFL, bit 23 of hardware register 1, makes conversions saturate.
#define SATURATE __builtin_amdgcn_s_setreg(1 | 23 << 6, 1)
CONVERSION(fp8_saturated, f32, (SATURATE, __builtin_amdgcn_cvt_pk_fp8_f32(x, y, 0, false)))
CONVERSION(bf8_saturated, f32, (SATURATE, __builtin_amdgcn_cvt_pk_bf8_f32(x, y, 0, false)))

#ifdef __gfx950__
// The scale is a power of two that converting down divides by.
CONVERSION(scaled_fp8, f32,
           __builtin_amdgcn_cvt_scalef32_pk_fp8_f32(i16x2{0x5a5a, 0x5a5a}, x, y, 4.0f, false))
CONVERSION(from_scaled_fp8_0, u32, __builtin_amdgcn_cvt_scalef32_f32_fp8(x, 4.0f, 0))
CONVERSION(from_scaled_fp8_1, u32, __builtin_amdgcn_cvt_scalef32_f32_fp8(x, 4.0f, 1))
CONVERSION(from_scaled_fp8_2, u32, __builtin_amdgcn_cvt_scalef32_f32_fp8(x, 4.0f, 2))
CONVERSION(from_scaled_bf8_3, u32, __builtin_amdgcn_cvt_scalef32_f32_bf8(x, 4.0f, 3))
#endif
