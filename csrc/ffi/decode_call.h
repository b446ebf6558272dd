// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "xla/ffi/api/ffi.h"

namespace jax_mla {

// Attributes of the GPU custom call v1, as jax_mla/lowering.py writes them.
struct DecodeAttributes {
  int64_t heads;                    // real query heads
  int64_t padded_heads;             // rows per query token, over all groups of heads
  int64_t head_stride;              // row h * head_stride of the kernel belongs to head h
  std::string_view implementation;  // "asm" or "kernel"
  std::string_view mode;            // "split" or "persistent"
  int64_t num_kv_splits;            // of split mode; 1 in persistent mode
  float scale;
  std::string_view arch;
  int64_t compute_units;
};

// The GPU custom call v1, decoded and checked.
//
//   operands  q [groups * batch, q_len, rows, width] with groups * rows = padded_heads, group after
//             group; kv_pages [pages, page_size, width],
//             lengths i32 [batch], page_indices i32 [batch, pages_per_seq],
//             for "asm" kv_indptr i32 [batch + 1] and kv_indices i32 [capacity of the batch],
//             in persistent mode work_indptr i32 [units + 1], work_info i32 [works, 8] and
//             reduce_indptr i32 [batch * groups + 1] (jax_mla/persistent.py),
//             q_scale f32 [] if q is fp8, kv_scale f32 [] if kv_pages is fp8
//   results   out [batch, q_len, heads, latent_dim], lse f32 [batch, q_len, heads], workspace u8
//
// lengths and page_indices come as the caller gave them: kernels clamp them.
struct DecodeCall {
  int64_t batch;
  int64_t groups;  // of heads
  int64_t units;   // workgroups of persistent mode; 0 in split mode
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
  const int32_t* kv_indptr;   // null for "kernel"
  const int32_t* kv_indices;  // null for "kernel"
  const int32_t* work_indptr;    // these three null in split mode
  const int32_t* work_info;
  const int32_t* reduce_indptr;
  const float* q_scale;       // null unless q is fp8
  const float* kv_scale;      // null unless kv_pages is fp8
  void* out;
  float* lse;
  uint8_t* workspace;
  int64_t workspace_bytes;
};

// Fills `call`, or says in which operand, result or attribute the program breaks the contract.
xla::ffi::Error DecodeCustomCall(xla::ffi::RemainingArgs operands, xla::ffi::RemainingRets results,
                                 const DecodeAttributes& attributes, DecodeCall& call);

}  // namespace jax_mla
