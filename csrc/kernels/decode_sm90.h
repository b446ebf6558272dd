// SPDX-License-Identifier: Apache-2.0
// Arguments of Hopper's decode kernels, the same on the host and on the device.
#pragma once

namespace jax_mla {

// What the driver makes for the copy engine (CUtensorMap).
struct alignas(64) TensorMap {
  unsigned char bytes[128];
};

// Both stages of decode. A row is a (query, head) pair. A tile of 8 or 16 rows of one sequence is a
// job: job sequence * tiles + tile. The keys of a job are cut into blocks of kSm90Keys, and the
// blocks dealt out in contiguous parts (kernels/shares.h): a job has `num_splits` parts, or fewer if
// it has fewer blocks; with num_splits 0, `workers` blocks of threads share the blocks of all jobs
// evenly, whatever the lengths are.
//
// Stage 1 leaves a job of one part finished in out and lse, and partial results of all others, which
// stage 2 merges: the normalised output and the natural log-sum-exp of each row. It does nothing for
// a sequence without keys; stage 2 does.
struct DecodeSm90Arguments {
  TensorMap kv_lines;       // of the cache: lines of 128 bytes, of 64 for fp8, in boxes of box_keys keys
  const void* q;            // [batch, q_len, heads, 576]
  const int* lengths;       // [batch], clamped to 0 .. capacity
  const int* page_indices;  // [batch, pages_per_seq], clamped to 0 .. pages - 1
  const float* q_scale;     // of fp8 q; null for none
  const float* kv_scale;    // of an fp8 cache; null for none
  float* partial;           // [parts, rows of a tile, 512]
  float* partial_lse;       // [parts, rows of a tile]
  void* out;                // [batch, q_len, heads, 512]
  float* lse;               // [batch, q_len, heads]
  float scale;              // of the scores
  int batch;
  int q_len;
  int heads;
  int tile_rows;  // 8 or 16
  int num_splits;
  int workers;
  int pages;
  int page_size;
  int pages_per_seq;
  int capacity;
  int box_keys;     // divides page_size and 16
  int merge_waves;  // that share a row's 128 columns in stage 2: 1, or all 8 of a block of threads
};

constexpr int kSm90Keys = 64;
constexpr int kSm90Latent = 512;
constexpr int kSm90Width = 576;

// Stage 1: grid (workers) or (num_splits, tiles, batch).
constexpr int kSm90Threads = 384;
constexpr int kSm90SharedBytes = 174 * 1024;
// Stage 2: grid (heads * kSm90MergeChunks * merge_waves / 8, q_len, batch), the first rounded up.
constexpr int kSm90MergeThreads = 256;
constexpr int kSm90MergeChunks = 4;

}  // namespace jax_mla
