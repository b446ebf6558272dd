// SPDX-License-Identifier: Apache-2.0
#include "aiter/stage1.h"

#include <limits>

#include "aiter/arguments.h"
#include "aiter/code_objects.h"
#include "kernels/plan.h"

namespace jax_mla::aiter {
namespace {

constexpr uint32_t kThreads = 256;
constexpr int64_t kLatentBytes = 512 * sizeof(float);

// A number that the kernels take as 32 bits.
Status Narrow(const char* name, int64_t value, Number& number) {
  if (value < 0 || value > std::numeric_limits<uint32_t>::max()) {
    return Status::Failure(name, ": AITER's kernels take 32 bits, got ", value);
  }
  number.value = static_cast<uint32_t>(value);
  return {};
}

Status FillArguments(const Kernel& kernel, const Stage1& call, DecodeArguments& a) {
  a.R.value = call.partial;
  a.LSE.value = call.partial_lse;
  a.Q.value = call.q;
  a.KV.value = call.kv;
  a.LTP.value = call.kv_indptr;
  a.LTD.value = call.kv_indices;
  a.LTL.value = call.kv_indptr;  // loaded by some, but not followed: any pointer will do
  a.scalar.value = call.scale;
  a.QTP.value = call.qo_indptr;
  a.STP.value = call.units > 0 ? static_cast<const void*>(call.work_pointers)
                               : static_cast<const void*>(call.num_kv_splits_indptr);
  a.QSCALE.value = call.q_scale;
  a.KVSCALE.value = call.kv_scale;
  a.out_16_nosplit.value = call.units > 0 ? 1 : 0;
  a.s_cp_world_size.value = 1;
  for (const Status& status : {
           Narrow("s_MQA", kernel.row_argument, a.s_MQA),
           Narrow("s_kv_split", call.num_kv_splits, a.s_kv_split),
           Narrow("s_Q_Bs", call.q_len * call.rows * call.q_row_bytes, a.s_Q_Bs),
           Narrow("s_Bs", call.kv_row_bytes, a.s_Bs),
       }) {
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace

Status LaunchStage1(const Launcher& launcher, const Kernel& kernel, const Stage1& call) {
  const CodeObject* object = FindCodeObject(kernel.sha256);
  if (object == nullptr) {
    return Status::Failure("the program needs AITER's code object with SHA-256 ", kernel.sha256,
                           ", which was not found or is not trusted");
  }
  if (object->code.arch != kernel.arch) {
    return Status::Failure("AITER's ", object->code.name, " is for ", object->code.arch, ", not ",
                           kernel.arch);
  }
  DecodeArguments arguments = {};
  const Status status = FillArguments(kernel, call, arguments);
  if (!status.ok()) return status;

  const int64_t workgroups =
      (call.q_len * call.rows + kernel.workgroup_rows - 1) / kernel.workgroup_rows;
  const Grid grid = call.units > 0 ? Grid{static_cast<uint32_t>(call.units)}
                                   : Grid{static_cast<uint32_t>(workgroups),
                                          static_cast<uint32_t>(call.batch),
                                          static_cast<uint32_t>(call.num_kv_splits)};
  const size_t indptr_bytes = (call.batch + 1) * sizeof(int32_t);
  const size_t q_bytes = call.sequences * call.q_len * call.rows * call.q_row_bytes;
  return launcher.LaunchRaw(
      object->code, object->symbol, grid, kThreads, arguments,
      {{"q", call.q, q_bytes, Extent::kRead},
       {"kv_pages", call.kv, size_t(call.tokens * call.kv_row_bytes), Extent::kRead},
       {"kv_indptr", call.kv_indptr, indptr_bytes, Extent::kRead},
       {"kv_indices", call.kv_indices, call.slots * sizeof(int32_t), Extent::kRead},
       {"qo_indptr", call.qo_indptr, (call.sequences + 1) * sizeof(int32_t), Extent::kRead},
       {"num_kv_splits_indptr", call.num_kv_splits_indptr, indptr_bytes, Extent::kRead},
       {"work_pointers", call.work_pointers, 2 * sizeof(uint64_t), Extent::kRead},
       {"work_indptr", call.work_indptr, (call.units + 1) * sizeof(int32_t), Extent::kRead},
       {"work_info", call.work_info, call.works * sizeof(Work), Extent::kRead},
       {"q_scale", call.q_scale, sizeof(float), Extent::kRead},
       {"kv_scale", call.kv_scale, sizeof(float), Extent::kRead},
       {"partial", call.partial, size_t(call.partial_rows * kLatentBytes), Extent::kWrite},
       {"partial_lse", call.partial_lse, call.partial_rows * sizeof(float), Extent::kWrite}});
}

}  // namespace jax_mla::aiter
