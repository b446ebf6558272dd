// SPDX-License-Identifier: Apache-2.0
// What lies where in the workspace of decode: the numbers of jax_mla/workspace.py.
#pragma once

#include <cstdint>

namespace jax_mla {

struct Workspace {
  int64_t pointers;     // offset of two addresses; they take 256 bytes, which aligns what follows
  int64_t partial;      // offset of float32 [rows, latent_dim]
  int64_t partial_lse;  // offset of float32 [rows, weights]
  int64_t bytes;        // of all
};

// For `rows` rows of partial results, with as many `weights` of each in the merge; with `pointers` in
// persistent mode.
constexpr Workspace CarveWorkspace(int64_t rows, int64_t latent_dim, bool pointers,
                                   int64_t weights) {
  constexpr int64_t kFloat = sizeof(float);
  Workspace workspace = {};
  workspace.partial = pointers ? 256 : 0;
  workspace.partial_lse = workspace.partial + rows * latent_dim * kFloat;
  workspace.bytes = workspace.partial_lse + rows * weights * kFloat;
  return workspace;
}

}  // namespace jax_mla
