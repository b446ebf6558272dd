// SPDX-License-Identifier: Apache-2.0
// The matrix instructions that gfx950 adds.
#include "matrix.h"

#define MFMA(instruction) __builtin_amdgcn_mfma_##instruction(a, b, c, 0, 0, 0)

MATRIX(f32_32x32x16x1_f16_f16, f16x8, f16x8, f32x16, MFMA(f32_32x32x16_f16))
MATRIX(f32_16x16x32x1_f16_f16, f16x8, f16x8, f32x4, MFMA(f32_16x16x32_f16))
MATRIX(f32_32x32x16x1_bf16_bf16, bf16x8, bf16x8, f32x16, MFMA(f32_32x32x16_bf16))
MATRIX(f32_16x16x32x1_bf16_bf16, bf16x8, bf16x8, f32x4, MFMA(f32_16x16x32_bf16))
MATRIX(i32_32x32x32x1_i8_i8, i32x4, i32x4, i32x16, MFMA(i32_32x32x32_i8))
MATRIX(i32_16x16x64x1_i8_i8, i32x4, i32x4, i32x4, MFMA(i32_16x16x64_i8))

// The formats of a and b are immediates: 0 fp8, 1 bf8. Without scales, as AITER uses them.
#define SCALED(instruction, a_format, b_format) \
  __builtin_amdgcn_mfma_scale_##instruction(a, b, c, a_format, b_format, 0, 0, 0, 0)
MATRIX(f32_32x32x64x1_fp8_fp8, i32x8, i32x8, f32x16, SCALED(f32_32x32x64_f8f6f4, 0, 0))
MATRIX(f32_32x32x64x1_bf8_fp8, i32x8, i32x8, f32x16, SCALED(f32_32x32x64_f8f6f4, 1, 0))
MATRIX(f32_32x32x64x1_fp8_bf8, i32x8, i32x8, f32x16, SCALED(f32_32x32x64_f8f6f4, 0, 1))
MATRIX(f32_16x16x128x1_fp8_fp8, i32x8, i32x8, f32x4, SCALED(f32_16x16x128_f8f6f4, 0, 0))
MATRIX(f32_16x16x128x1_bf8_fp8, i32x8, i32x8, f32x4, SCALED(f32_16x16x128_f8f6f4, 1, 0))
MATRIX(f32_16x16x128x1_bf8_bf8, i32x8, i32x8, f32x4, SCALED(f32_16x16x128_f8f6f4, 1, 1))

// With scales: powers of two for 32 values of k each, biased by 127, in byte 1 and 2 of a word.
#define WITH_SCALES(name, C, instruction)                                                  \
  KERNEL(64) name(const i32x8 *as, const i32x8 *bs, const C *cs, C *results,               \
                  const i32 *a_scales, const i32 *b_scales) {                              \
    u32 lane = thread_id();                                                                \
    results[lane] = __builtin_amdgcn_mfma_scale_##instruction(                             \
        as[lane], bs[lane], cs[lane], 0, 0, 1, a_scales[lane], 2, b_scales[lane]);         \
  }
WITH_SCALES(scaled_32x32x64, f32x16, f32_32x32x64_f8f6f4)
WITH_SCALES(scaled_16x16x128, f32x4, f32_16x16x128_f8f6f4)
