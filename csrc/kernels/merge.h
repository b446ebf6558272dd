// SPDX-License-Identifier: Apache-2.0
// Arguments of the merge kernel, the same on the host and on the device.
#pragma once

namespace jax_mla {

// Partial results of every (group of heads, sequence, query, row of the group) are merged to out
// and lse of the real heads. A partial result is a normalised output, float32 [latent_dim], with
// the natural log-sum-exp of its scores. Rows lie
//   in split mode       [groups * batch, q_len, num_splits, group_rows]
//   in persistent mode  [works, q_len, group_rows]
//   of our own kernels  [parts, tile_rows], the parts as in kernels/decode.h
// and only those are read that the stage before wrote: in split mode, where block j of kv_block
// keys belongs to split j mod num_splits, the splits that hold a key which the query sees. What our
// own kernels did not cut is in out and lse already.
struct MergeArguments {
  const float* partial;           // rows as above, latent_dim each
  const float* partial_lse;       // rows as above
  const int* lengths;             // [batch], clamped to 0 .. capacity
  const int* reduce_indptr;       // [batch * groups + 1] of persistent mode; null in split mode
  const float* out_scale;         // factor of out; null for none
  void* out;                      // [batch, q_len, heads, latent_dim]
  float* lse;                     // [batch, q_len, heads]
  int batch;
  int q_len;
  int heads;
  int head_stride;                // row h * head_stride, over the rows of all groups, is head h
  int group_rows;
  int groups;
  int num_splits;                 // of split mode and of our own kernels
  int kv_block;                   // of split mode and of our own kernels
  int capacity;
  int latent_dim;                 // a multiple of 4, at most 512
  int tile_rows;                  // of our own kernels, else 0
  int workers;                    // of our own kernels where num_splits is 0
  int part_blocks;                // the same: kernels/shares.h
};

// One block of threads to an output row; grid (heads, q_len, batch). The kernels "_many" have more
// threads, and take many parts of a row in less time.
constexpr int kMergeThreads = 128;
constexpr int kMergeManyThreads = 512;

}  // namespace jax_mla
