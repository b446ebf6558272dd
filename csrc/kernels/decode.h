// SPDX-License-Identifier: Apache-2.0
// Arguments of the decode kernels, the same on the host and on the device.
#pragma once

namespace jax_mla {

// A row is a (query, head) pair. Up to kDecodeRows rows of one sequence are a tile, and a tile with
// the keys that it sees is a job: job sequence * tiles + tile. A job's keys are cut into blocks, and the
// blocks dealt out in contiguous parts (kernels/shares.h): a job has `num_splits` parts, or fewer if
// it has fewer blocks; with num_splits 0, `workers` blocks of threads share the blocks of all jobs
// evenly, whatever the lengths are.
//
// Stage 1 leaves a job of one part finished in out and lse, and partial results of all others, which
// stage 2 merges: the normalised output and the natural log-sum-exp of each row (Hopper's kernels have
// partial results of their own). It does nothing for a sequence without keys; stage 2 does.
struct DecodeArguments {
  const void* q;            // [batch, q_len, heads, width]
  const void* kv_pages;     // [pages, page_size, width]
  const int* lengths;       // [batch], clamped to 0 .. capacity
  const int* page_indices;  // [batch, pages_per_seq], clamped to 0 .. pages - 1
  const float* q_scale;     // of fp8 q
  const float* kv_scale;    // of an fp8 cache
  float* partial;           // [parts, rows of a tile, latent_dim]
  float* partial_lse;       // [parts, rows of a tile]
  void* out;                // [batch, q_len, heads, latent_dim]
  float* lse;               // [batch, q_len, heads]
  float scale;              // of the scores
  int batch;
  int q_len;
  int heads;
  int num_splits;
  int workers;
  int pages;
  int page_size;
  int pages_per_seq;
  int capacity;
};

// Of decode.hip: grid (workers) or (num_splits, tiles, batch).
constexpr int kDecodeThreads = 256;
constexpr int kDecodeRows = 16;
constexpr int kDecodeKvBlock = 32;
constexpr int kDecodePartBlocks = 4;  // of a worker's part, at least: kernels/shares.h

}  // namespace jax_mla
