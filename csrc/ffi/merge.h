// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ffi/stage.h"
#include "gpu/launcher.h"
#include "kernels/merge.h"
#include "xla/ffi/api/ffi.h"

namespace jax_mla {

// Launches the merge of `partial_rows` rows of partial results, stage 2 of decode. out is bfloat16,
// float16 or float32.
Status LaunchMerge(const Launcher& launcher, const MergeArguments& arguments,
                   xla::ffi::DataType out_dtype, int64_t partial_rows);

// The merge as a custom call of its own, jax_mla_merge_<platform>_v1.
//
//   operands    partial f32 [lanes, q_len, num_splits, group_rows, latent_dim], partial_lse f32
//               [lanes, q_len, num_splits, group_rows], lengths i32 [batch], in persistent mode
//               reduce_indptr i32 [batch * groups + 1], out_scale f32 []; lanes is groups * batch,
//               in persistent mode works, with num_splits 1
//   results     out [batch, q_len, heads, latent_dim], lse f32 [batch, q_len, heads]
//   attributes  persistent, groups, head_stride, kv_block, capacity as in kernels/merge.h
StagedHandler MergeHandler(Platform platform);

}  // namespace jax_mla
