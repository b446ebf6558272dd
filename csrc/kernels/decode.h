// SPDX-License-Identifier: Apache-2.0
// Arguments of the decode kernels, the same on the host and on the device.
#pragma once

namespace jax_mla {

// Stage 1 of decode, in the partial results that kernels/merge.h merges: block j of
// kDecodeKvBlock keys of a sequence belongs to split j mod num_splits. A row is a (query, head)
// pair; a block of threads takes kDecodeRows of the q_len * heads rows of one sequence, and one
// split of it. It leaves alone what no row of its own has in that split.
struct DecodeArguments {
  const void* q;            // [batch, q_len, heads, width]
  const void* kv_pages;     // [pages, page_size, width]
  const int* lengths;       // [batch], clamped to 0 .. capacity
  const int* page_indices;  // [batch, pages_per_seq], clamped to 0 .. pages - 1
  const float* q_scale;     // of fp8 q; null for none
  const float* kv_scale;    // of an fp8 cache, applied to the scores alone; null for none
  float* partial;           // [batch, q_len, num_splits, heads, latent_dim]
  float* partial_lse;       // [batch, q_len, num_splits, heads]
  float scale;              // of the scores
  int q_len;
  int heads;
  int num_splits;
  int pages;
  int page_size;
  int pages_per_seq;
  int capacity;
};

// Grid (num_splits, row tiles, batch).
constexpr int kDecodeThreads = 256;
constexpr int kDecodeRows = 16;
constexpr int kDecodeKvBlock = 32;

}  // namespace jax_mla
