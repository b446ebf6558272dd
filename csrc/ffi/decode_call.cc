// SPDX-License-Identifier: Apache-2.0
#include "ffi/decode_call.h"

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

bool IsFp8(ffi::DataType dtype) {
  return dtype == ffi::DataType::F8E4M3FN || dtype == ffi::DataType::F8E4M3FNUZ;
}

ffi::Error CheckPlan(const HeadPlan& plan) {
  const bool repeated = plan.head_stride > 1 && plan.heads * plan.head_stride == plan.padded_heads;
  const bool trailing = plan.head_stride == 1 && plan.heads <= plan.padded_heads;
  if (plan.heads >= 1 && (repeated || trailing)) return ffi::Error::Success();
  return InvalidArgument("jax_mla decode: heads ", plan.heads, ", padded_heads ",
                         plan.padded_heads, ", head_stride ", plan.head_stride, ": no such plan");
}

ffi::Error CheckDtypes(ffi::DataType q, ffi::DataType kv) {
  const bool served = q == ffi::DataType::BF16 || q == ffi::DataType::F16 || IsFp8(q);
  const bool pair = q == kv || (q == ffi::DataType::BF16 && IsFp8(kv));
  if (served && pair) return ffi::Error::Success();
  return InvalidArgument("jax_mla decode: no such pair of dtypes: q ", q, ", kv_pages ", kv);
}

}  // namespace

ffi::Error ReadOperands(Operands& operands, const HeadPlan& plan, DecodeCall& call) {
  constexpr auto kI32 = ffi::DataType::S32;
  JAX_MLA_RETURN_IF_ERROR(CheckPlan(plan));
  call.plan = plan;
  std::optional<ffi::AnyBuffer> buffer;
  JAX_MLA_RETURN_IF_ERROR(operands.Next("q", {kAny, kAny, kAny, kAny}, {}, buffer));
  call.q = Data<void>(buffer);
  call.q_dtype = buffer->element_type();
  const int64_t sequences = buffer->dimensions()[0];  // those of all groups
  call.q_len = buffer->dimensions()[1];
  call.group_rows = buffer->dimensions()[2];
  call.width = buffer->dimensions()[3];
  if (call.group_rows < 1 || plan.padded_heads % call.group_rows != 0) {
    return InvalidArgument("jax_mla decode: q: expected rows that divide padded_heads ",
                           plan.padded_heads, ", got ", call.group_rows);
  }
  call.groups = plan.padded_heads / call.group_rows;
  if (sequences % call.groups != 0) {
    return InvalidArgument("jax_mla decode: q: expected sequences of ", call.groups,
                           " groups, got ", sequences);
  }
  call.batch = sequences / call.groups;

  JAX_MLA_RETURN_IF_ERROR(operands.Next("kv_pages", {kAny, kAny, call.width}, {}, buffer));
  call.kv_pages = Data<void>(buffer);
  call.kv_dtype = buffer->element_type();
  call.pages = buffer->dimensions()[0];
  call.page_size = buffer->dimensions()[1];
  JAX_MLA_RETURN_IF_ERROR(CheckDtypes(call.q_dtype, call.kv_dtype));

  JAX_MLA_RETURN_IF_ERROR(operands.Next("lengths", {call.batch}, kI32, buffer));
  call.lengths = Data<int32_t>(buffer);
  JAX_MLA_RETURN_IF_ERROR(operands.Next("page_indices", {call.batch, kAny}, kI32, buffer));
  call.page_indices = Data<int32_t>(buffer);
  call.pages_per_seq = buffer->dimensions()[1];
  return ffi::Error::Success();
}

const char* DtypeName(ffi::DataType q, ffi::DataType kv) {
  if (q == ffi::DataType::F16) return "f16";
  if (q != ffi::DataType::BF16) return "fp8";
  return q == kv ? "bf16" : "bf16_fp8";
}

ffi::Error ReadScales(Operands& operands, DecodeCall& call) {
  constexpr auto kF32 = ffi::DataType::F32;
  std::optional<ffi::AnyBuffer> buffer;
  if (IsFp8(call.q_dtype)) {
    JAX_MLA_RETURN_IF_ERROR(operands.Next("q_scale", {}, kF32, buffer));
    call.q_scale = Data<float>(buffer);
  }
  if (IsFp8(call.kv_dtype)) {
    JAX_MLA_RETURN_IF_ERROR(operands.Next("kv_scale", {}, kF32, buffer));
    call.kv_scale = Data<float>(buffer);
  }
  return operands.Done();
}

ffi::Error ReadResults(Results& results, int64_t partial_rows, bool pointers, int64_t weights,
                       DecodeCall& call, Workspace& workspace) {
  const int64_t heads = call.plan.heads;
  std::optional<ffi::AnyBuffer> buffer;
  call.out_dtype = IsFp8(call.q_dtype) ? ffi::DataType::BF16 : call.q_dtype;
  JAX_MLA_RETURN_IF_ERROR(
      results.Next("out", {call.batch, call.q_len, heads, kAny}, call.out_dtype, buffer));
  call.out = Data<void>(buffer);
  call.latent_dim = buffer->dimensions()[3];
  if (call.latent_dim > call.width) {
    return InvalidArgument("jax_mla decode: out: expected at most ", call.width,
                           " as the last dimension, got ", call.latent_dim);
  }
  JAX_MLA_RETURN_IF_ERROR(
      results.Next("lse", {call.batch, call.q_len, heads}, ffi::DataType::F32, buffer));
  call.lse = Data<float>(buffer);
  workspace = CarveWorkspace(partial_rows, call.latent_dim, pointers, weights);
  JAX_MLA_RETURN_IF_ERROR(
      results.Next("workspace", {workspace.bytes}, ffi::DataType::U8, buffer));
  call.workspace = Data<uint8_t>(buffer);
  return results.Done();
}

MergeArguments MakeMergeArguments(const DecodeCall& call, const Workspace& workspace,
                                  int64_t num_splits, int64_t kv_block,
                                  const int32_t* reduce_indptr) {
  MergeArguments merge = {};
  merge.partial = reinterpret_cast<const float*>(call.workspace + workspace.partial);
  merge.partial_lse = reinterpret_cast<const float*>(call.workspace + workspace.partial_lse);
  merge.lengths = call.lengths;
  merge.reduce_indptr = reduce_indptr;
  merge.out = call.out;
  merge.lse = call.lse;
  merge.batch = static_cast<int>(call.batch);
  merge.q_len = static_cast<int>(call.q_len);
  merge.heads = static_cast<int>(call.plan.heads);
  merge.head_stride = static_cast<int>(call.plan.head_stride);
  merge.group_rows = static_cast<int>(call.group_rows);
  merge.groups = static_cast<int>(call.groups);
  merge.num_splits = static_cast<int>(num_splits);
  merge.kv_block = static_cast<int>(kv_block);
  merge.capacity = static_cast<int>(call.capacity());
  merge.latent_dim = static_cast<int>(call.latent_dim);
  return merge;
}

}  // namespace jax_mla
