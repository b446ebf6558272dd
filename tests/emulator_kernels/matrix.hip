// SPDX-License-Identifier: Apache-2.0
// The matrix instructions that gfx942 and gfx950 share.
#include "matrix.h"

#define MFMA(instruction) __builtin_amdgcn_mfma_##instruction(a, b, c, 0, 0, 0)

MATRIX(f32_32x32x1x2_f32_f32, f32, f32, f32x32, MFMA(f32_32x32x1f32))
MATRIX(f32_16x16x1x4_f32_f32, f32, f32, f32x16, MFMA(f32_16x16x1f32))
MATRIX(f32_4x4x1x16_f32_f32, f32, f32, f32x4, MFMA(f32_4x4x1f32))
MATRIX(f32_32x32x2x1_f32_f32, f32, f32, f32x16, MFMA(f32_32x32x2f32))
MATRIX(f32_16x16x4x1_f32_f32, f32, f32, f32x4, MFMA(f32_16x16x4f32))
MATRIX(f64_16x16x4x1_f64_f64, f64, f64, f64x4, MFMA(f64_16x16x4f64))
MATRIX(f64_4x4x4x4_f64_f64, f64, f64, f64, MFMA(f64_4x4x4f64))

MATRIX(f32_32x32x4x2_f16_f16, f16x4, f16x4, f32x32, MFMA(f32_32x32x4f16))
MATRIX(f32_16x16x4x4_f16_f16, f16x4, f16x4, f32x16, MFMA(f32_16x16x4f16))
MATRIX(f32_4x4x4x16_f16_f16, f16x4, f16x4, f32x4, MFMA(f32_4x4x4f16))
MATRIX(f32_32x32x8x1_f16_f16, f16x4, f16x4, f32x16, MFMA(f32_32x32x8f16))
MATRIX(f32_16x16x16x1_f16_f16, f16x4, f16x4, f32x4, MFMA(f32_16x16x16f16))

MATRIX(f32_32x32x4x2_bf16_bf16, bf16x4, bf16x4, f32x32, MFMA(f32_32x32x4bf16_1k))
MATRIX(f32_16x16x4x4_bf16_bf16, bf16x4, bf16x4, f32x16, MFMA(f32_16x16x4bf16_1k))
MATRIX(f32_4x4x4x16_bf16_bf16, bf16x4, bf16x4, f32x4, MFMA(f32_4x4x4bf16_1k))
MATRIX(f32_32x32x8x1_bf16_bf16, bf16x4, bf16x4, f32x16, MFMA(f32_32x32x8bf16_1k))
MATRIX(f32_16x16x16x1_bf16_bf16, bf16x4, bf16x4, f32x4, MFMA(f32_16x16x16bf16_1k))

MATRIX(i32_32x32x4x2_i8_i8, i32, i32, i32x32, MFMA(i32_32x32x4i8))
MATRIX(i32_16x16x4x4_i8_i8, i32, i32, i32x16, MFMA(i32_16x16x4i8))
MATRIX(i32_4x4x4x16_i8_i8, i32, i32, i32x4, MFMA(i32_4x4x4i8))
MATRIX(i32_32x32x16x1_i8_i8, i64, i64, i32x16, MFMA(i32_32x32x16_i8))
MATRIX(i32_16x16x32x1_i8_i8, i64, i64, i32x4, MFMA(i32_16x16x32_i8))

MATRIX(f32_32x32x16x1_fp8_fp8, i64, i64, f32x16, MFMA(f32_32x32x16_fp8_fp8))
MATRIX(f32_32x32x16x1_fp8_bf8, i64, i64, f32x16, MFMA(f32_32x32x16_fp8_bf8))
MATRIX(f32_32x32x16x1_bf8_fp8, i64, i64, f32x16, MFMA(f32_32x32x16_bf8_fp8))
MATRIX(f32_32x32x16x1_bf8_bf8, i64, i64, f32x16, MFMA(f32_32x32x16_bf8_bf8))
MATRIX(f32_16x16x32x1_fp8_fp8, i64, i64, f32x4, MFMA(f32_16x16x32_fp8_fp8))
MATRIX(f32_16x16x32x1_fp8_bf8, i64, i64, f32x4, MFMA(f32_16x16x32_fp8_bf8))
MATRIX(f32_16x16x32x1_bf8_fp8, i64, i64, f32x4, MFMA(f32_16x16x32_bf8_fp8))
MATRIX(f32_16x16x32x1_bf8_bf8, i64, i64, f32x4, MFMA(f32_16x16x32_bf8_bf8))
