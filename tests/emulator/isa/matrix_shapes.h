// SPDX-License-Identifier: Apache-2.0
// The table of matrix instructions: mnemonic, M, K, blocks, element types of A and B.
#pragma once
#include "matrix.h"

namespace emu {

using enum Element;
constexpr MatrixShape float_shapes[] = {
    {"v_mfma_f32_32x32x1_2b_f32", 32, 1, 2, f32, f32},
    {"v_mfma_f32_16x16x1_4b_f32", 16, 1, 4, f32, f32},
    {"v_mfma_f32_4x4x1_16b_f32", 4, 1, 16, f32, f32},
    {"v_mfma_f32_32x32x2_f32", 32, 2, 1, f32, f32},
    {"v_mfma_f32_16x16x4_f32", 16, 4, 1, f32, f32},
    {"v_mfma_f32_16x16x8_xf32", 16, 8, 1, xf32, xf32},
    {"v_mfma_f32_32x32x4_xf32", 32, 4, 1, xf32, xf32},
    {"v_mfma_f32_32x32x4_2b_f16", 32, 4, 2, f16, f16},
    {"v_mfma_f32_16x16x4_4b_f16", 16, 4, 4, f16, f16},
    {"v_mfma_f32_4x4x4_16b_f16", 4, 4, 16, f16, f16},
    {"v_mfma_f32_32x32x8_f16", 32, 8, 1, f16, f16},
    {"v_mfma_f32_16x16x16_f16", 16, 16, 1, f16, f16},
    {"v_mfma_f32_32x32x16_f16", 32, 16, 1, f16, f16},
    {"v_mfma_f32_16x16x32_f16", 16, 32, 1, f16, f16},
    {"v_mfma_f32_32x32x4_2b_bf16", 32, 4, 2, bf16, bf16},
    {"v_mfma_f32_16x16x4_4b_bf16", 16, 4, 4, bf16, bf16},
    {"v_mfma_f32_4x4x4_16b_bf16", 4, 4, 16, bf16, bf16},
    {"v_mfma_f32_32x32x8_bf16", 32, 8, 1, bf16, bf16},
    {"v_mfma_f32_16x16x16_bf16", 16, 16, 1, bf16, bf16},
    {"v_mfma_f32_32x32x16_bf16", 32, 16, 1, bf16, bf16},
    {"v_mfma_f32_16x16x32_bf16", 16, 32, 1, bf16, bf16},
    {"v_mfma_f32_16x16x32_bf8_bf8", 16, 32, 1, bf8, bf8},
    {"v_mfma_f32_16x16x32_bf8_fp8", 16, 32, 1, bf8, fp8},
    {"v_mfma_f32_16x16x32_fp8_bf8", 16, 32, 1, fp8, bf8},
    {"v_mfma_f32_16x16x32_fp8_fp8", 16, 32, 1, fp8, fp8},
    {"v_mfma_f32_32x32x16_bf8_bf8", 32, 16, 1, bf8, bf8},
    {"v_mfma_f32_32x32x16_bf8_fp8", 32, 16, 1, bf8, fp8},
    {"v_mfma_f32_32x32x16_fp8_bf8", 32, 16, 1, fp8, bf8},
    {"v_mfma_f32_32x32x16_fp8_fp8", 32, 16, 1, fp8, fp8},
};
constexpr MatrixShape integer_shapes[] = {
    {"v_mfma_i32_32x32x4_2b_i8", 32, 4, 2, i8, i8}, {"v_mfma_i32_16x16x4_4b_i8", 16, 4, 4, i8, i8},
    {"v_mfma_i32_4x4x4_16b_i8", 4, 4, 16, i8, i8},  {"v_mfma_i32_32x32x16_i8", 32, 16, 1, i8, i8},
    {"v_mfma_i32_16x16x32_i8", 16, 32, 1, i8, i8},  {"v_mfma_i32_16x16x64_i8", 16, 64, 1, i8, i8},
    {"v_mfma_i32_32x32x32_i8", 32, 32, 1, i8, i8},
};
constexpr MatrixShape selected_shapes[] = {
    {"v_mfma_f32_16x16x128_f8f6f4", 16, 128, 1, selected, selected},
    {"v_mfma_f32_32x32x64_f8f6f4", 32, 64, 1, selected, selected},
};
constexpr MatrixShape scaled_shapes[] = {
    {"v_mfma_scale_f32_16x16x128_f8f6f4", 16, 128, 1, selected, selected},
    {"v_mfma_scale_f32_32x32x64_f8f6f4", 32, 64, 1, selected, selected},
};

}  // namespace emu
