// SPDX-License-Identifier: Apache-2.0
// The shape and the element types of a matrix instruction.
#pragma once
#include <cstdint>

namespace emu {

enum class Element : uint8_t { f32, xf32, f16, bf16, fp8, bf8, f6, b6, f4, i8, selected };

// D[M][M] = A[M][K] * B[K][M] + C for each of `blocks` independent blocks.
struct MatrixShape {
  const char *mnemonic;
  int rows, depth, blocks;  // M, K
  Element a, b;
};

}  // namespace emu
