// SPDX-License-Identifier: Apache-2.0
// Stage 1 of decode on AITER's kernels: arguments and launches.
#pragma once

#include <cstdint>
#include <string_view>

#include "gpu/launcher.h"
#include "gpu/status.h"

namespace jax_mla::aiter {

// How to use one of AITER's code objects, from jax_mla/aiter_kernels.csv.
struct Kernel {
  std::string_view sha256;
  std::string_view arch;
  int64_t workgroup_rows;  // (query, head) pairs of a workgroup
  int64_t row_argument;    // what it takes for the number of rows
};

// One group of heads in split mode, or all of them in persistent mode. Memory of the cache and of
// the token indices is what must be there, not what is read.
struct Stage1 {
  const void* q;          // [sequences, q_len, rows, width]
  const void* kv;         // [tokens, width]
  const int32_t* kv_indptr;             // [batch + 1]
  const int32_t* kv_indices;            // [slots]
  const int32_t* qo_indptr;             // [sequences + 1], q_len apart
  const int32_t* num_kv_splits_indptr;  // [batch + 1], num_kv_splits apart; split mode
  const uint64_t* work_pointers;        // addresses of work_indptr and work_info; persistent mode
  const int32_t* work_indptr;           // [units + 1]; persistent mode
  const int32_t* work_info;             // [works, 8]; persistent mode
  const float* q_scale;   // null unless q is fp8
  const float* kv_scale;  // null unless the cache is fp8
  float* partial;         // [partial_rows, 512]
  float* partial_lse;     // [partial_rows]
  float scale;
  int64_t batch;
  int64_t sequences;      // of q: batch, times the groups in persistent mode
  int64_t q_len;
  int64_t rows;           // per query
  int64_t q_row_bytes;
  int64_t kv_row_bytes;
  int64_t tokens;
  int64_t slots;
  int64_t num_kv_splits;  // 1 in persistent mode
  int64_t units;          // 0 in split mode
  int64_t works;
  int64_t partial_rows;
};

// Launches it, or with a launcher that initializes makes sure of the code object.
Status LaunchStage1(const Launcher& launcher, const Kernel& kernel, const Stage1& call);

}  // namespace jax_mla::aiter
