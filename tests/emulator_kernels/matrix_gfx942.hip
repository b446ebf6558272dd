// SPDX-License-Identifier: Apache-2.0
// The matrix instructions that gfx950 lost: float32 cut to 10 bits of mantissa.
#include "matrix.h"

using f32x2 = vector<f32, 2>;

#define MFMA(instruction) __builtin_amdgcn_mfma_##instruction(a, b, c, 0, 0, 0)

MATRIX(f32_32x32x4x1_xf32_xf32, f32x2, f32x2, f32x16, MFMA(f32_32x32x4_xf32))
MATRIX(f32_16x16x8x1_xf32_xf32, f32x2, f32x2, f32x4, MFMA(f32_16x16x8_xf32))
