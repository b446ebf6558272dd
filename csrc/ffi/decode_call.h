// SPDX-License-Identifier: Apache-2.0
// What the custom calls of decode have in common, decoded and checked.
#pragma once

#include <cstdint>

#include "ffi/buffers.h"
#include "ffi/merge.h"
#include "workspace.h"
#include "xla/ffi/api/ffi.h"

namespace jax_mla {

using Operands = Buffers<xla::ffi::RemainingArgs>;
using Results = Buffers<xla::ffi::RemainingRets>;

// How the heads of a call lie in q and in the results of a kernel (jax_mla/heads.py).
struct HeadPlan {
  int64_t heads;         // real query heads
  int64_t padded_heads;  // rows per query token, over all groups of heads
  int64_t head_stride;   // row h * head_stride of the kernel belongs to head h
};

// lengths and page_indices come as the caller gave them: kernels clamp them.
struct DecodeCall {
  HeadPlan plan;
  int64_t batch;
  int64_t groups;      // of heads
  int64_t group_rows;  // per query token, of one group
  int64_t q_len;
  int64_t width;
  int64_t latent_dim;
  int64_t pages;
  int64_t page_size;
  int64_t pages_per_seq;
  xla::ffi::DataType q_dtype;
  xla::ffi::DataType kv_dtype;
  xla::ffi::DataType out_dtype;

  const void* q;
  const void* kv_pages;
  const int32_t* lengths;
  const int32_t* page_indices;
  const float* q_scale;   // null unless q is fp8
  const float* kv_scale;  // null unless kv_pages is fp8
  void* out;
  float* lse;
  uint8_t* workspace;

  int64_t capacity() const { return pages_per_seq * page_size; }
  int64_t tokens() const { return pages * page_size; }
};

// Operands q [groups * batch, q_len, rows, width], group after group, kv_pages [pages, page_size,
// width], lengths i32 [batch] and page_indices i32 [batch, pages_per_seq].
xla::ffi::Error ReadOperands(Operands& operands, const HeadPlan& plan, DecodeCall& call);

// What kernels are named for: "bf16", "f16", "fp8", or "bf16_fp8" for q and the cache.
const char* DtypeName(xla::ffi::DataType q, xla::ffi::DataType kv);

// Operands q_scale f32 [] if q is fp8, and kv_scale f32 [] if kv_pages is.
xla::ffi::Error ReadScales(Operands& operands, DecodeCall& call);

// Results out [batch, q_len, heads, latent_dim], lse f32 [batch, q_len, heads], and workspace u8 for
// `partial_rows` rows of partial results (csrc/workspace.h).
xla::ffi::Error ReadResults(Results& results, int64_t partial_rows, bool pointers, int64_t weights,
                            DecodeCall& call, Workspace& workspace);

// The merge that takes the partial results in `workspace` to the results. `num_splits` and
// `kv_block` are of split mode, `reduce_indptr` of persistent mode or null.
MergeArguments MakeMergeArguments(const DecodeCall& call, const Workspace& workspace,
                                  int64_t num_splits, int64_t kv_block,
                                  const int32_t* reduce_indptr);

}  // namespace jax_mla
