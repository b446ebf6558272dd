// SPDX-License-Identifier: Apache-2.0
#include "ffi/decode_call.h"

#include <optional>

#include "ffi/buffers.h"

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

constexpr char kOp[] = "decode";
constexpr int64_t kWorkFields = 8;

bool IsFp8(ffi::DataType dtype) {
  return dtype == ffi::DataType::F8E4M3FN || dtype == ffi::DataType::F8E4M3FNUZ;
}

ffi::Error CheckAttributes(const DecodeAttributes& a) {
  const bool repeated = a.head_stride > 1 && a.heads * a.head_stride == a.padded_heads;
  const bool trailing = a.head_stride == 1 && a.heads <= a.padded_heads;
  if (a.heads < 1 || !(repeated || trailing)) {
    return InvalidArgument("jax_mla decode: heads ", a.heads, ", padded_heads ", a.padded_heads,
                           ", head_stride ", a.head_stride, ": no such plan");
  }
  if (a.implementation != "asm" && a.implementation != "kernel") {
    return InvalidArgument("jax_mla decode: implementation: expected asm or kernel, got ",
                           a.implementation);
  }
  const bool persistent = a.mode == "persistent";
  if (a.mode != "split" && !(persistent && a.implementation == "asm")) {
    return InvalidArgument("jax_mla decode: mode: expected split, or persistent for asm, got ",
                           a.mode);
  }
  if (a.num_kv_splits < 1) {
    return InvalidArgument("jax_mla decode: num_kv_splits: expected a positive number, got ",
                           a.num_kv_splits);
  }
  return ffi::Error::Success();
}

ffi::Error CheckDtypes(ffi::DataType q, ffi::DataType kv) {
  const bool served = q == ffi::DataType::BF16 || q == ffi::DataType::F16 || IsFp8(q);
  const bool pair = q == kv || (q == ffi::DataType::BF16 && IsFp8(kv));
  if (served && pair) return ffi::Error::Success();
  return InvalidArgument("jax_mla decode: no such pair of dtypes: q ", q, ", kv_pages ", kv);
}

}  // namespace

ffi::Error DecodeCustomCall(ffi::RemainingArgs operands, ffi::RemainingRets results,
                            const DecodeAttributes& attributes, DecodeCall& call) {
  constexpr auto kI32 = ffi::DataType::S32;
  constexpr auto kF32 = ffi::DataType::F32;
  JAX_MLA_RETURN_IF_ERROR(CheckAttributes(attributes));
  call = {};

  Buffers in(kOp, operands);
  std::optional<ffi::AnyBuffer> buffer;
  JAX_MLA_RETURN_IF_ERROR(in.Next("q", {kAny, kAny, kAny, kAny}, std::nullopt, buffer));
  call.q = Data<void>(buffer);
  call.q_dtype = buffer->element_type();
  const int64_t sequences = buffer->dimensions()[0];  // those of all groups
  const int64_t rows = buffer->dimensions()[2];
  call.q_len = buffer->dimensions()[1];
  call.width = buffer->dimensions()[3];
  if (rows < 1 || attributes.padded_heads % rows != 0) {
    return InvalidArgument("jax_mla decode: q: expected rows that divide padded_heads ",
                           attributes.padded_heads, ", got ", rows);
  }
  call.groups = attributes.padded_heads / rows;
  if (sequences % call.groups != 0) {
    return InvalidArgument("jax_mla decode: q: expected sequences of ", call.groups,
                           " groups, got ", sequences);
  }
  call.batch = sequences / call.groups;

  JAX_MLA_RETURN_IF_ERROR(
      in.Next("kv_pages", {kAny, kAny, call.width}, std::nullopt, buffer));
  call.kv_pages = Data<void>(buffer);
  call.kv_dtype = buffer->element_type();
  call.pages = buffer->dimensions()[0];
  call.page_size = buffer->dimensions()[1];
  JAX_MLA_RETURN_IF_ERROR(CheckDtypes(call.q_dtype, call.kv_dtype));

  JAX_MLA_RETURN_IF_ERROR(in.Next("lengths", {call.batch}, kI32, buffer));
  call.lengths = Data<int32_t>(buffer);
  JAX_MLA_RETURN_IF_ERROR(in.Next("page_indices", {call.batch, kAny}, kI32, buffer));
  call.page_indices = Data<int32_t>(buffer);
  call.pages_per_seq = buffer->dimensions()[1];

  if (attributes.implementation == "asm") {
    JAX_MLA_RETURN_IF_ERROR(in.Next("kv_indptr", {call.batch + 1}, kI32, buffer));
    call.kv_indptr = Data<int32_t>(buffer);
    const int64_t capacity = call.batch * call.pages_per_seq * call.page_size;
    JAX_MLA_RETURN_IF_ERROR(in.Next("kv_indices", {capacity}, kI32, buffer));
    call.kv_indices = Data<int32_t>(buffer);
  }
  // (sequence, group, part) triples that have partial results.
  int64_t partials = call.batch * call.groups * attributes.num_kv_splits;
  if (attributes.mode == "persistent") {
    JAX_MLA_RETURN_IF_ERROR(in.Next("work_indptr", {kAny}, kI32, buffer));
    call.work_indptr = Data<int32_t>(buffer);
    call.units = buffer->dimensions()[0] - 1;
    partials = call.batch * call.groups + call.units - 1;
    JAX_MLA_RETURN_IF_ERROR(in.Next("work_info", {partials, kWorkFields}, kI32, buffer));
    call.work_info = Data<int32_t>(buffer);
    JAX_MLA_RETURN_IF_ERROR(
        in.Next("reduce_indptr", {call.batch * call.groups + 1}, kI32, buffer));
    call.reduce_indptr = Data<int32_t>(buffer);
  }
  if (IsFp8(call.q_dtype)) {
    JAX_MLA_RETURN_IF_ERROR(in.Next("q_scale", {}, kF32, buffer));
    call.q_scale = Data<float>(buffer);
  }
  if (IsFp8(call.kv_dtype)) {
    JAX_MLA_RETURN_IF_ERROR(in.Next("kv_scale", {}, kF32, buffer));
    call.kv_scale = Data<float>(buffer);
  }
  JAX_MLA_RETURN_IF_ERROR(in.Done());

  Buffers rets(kOp, results);
  call.out_dtype = IsFp8(call.q_dtype) ? ffi::DataType::BF16 : call.q_dtype;
  JAX_MLA_RETURN_IF_ERROR(rets.Next("out", {call.batch, call.q_len, attributes.heads, kAny},
                                    call.out_dtype, buffer));
  call.out = Data<void>(buffer);
  call.latent_dim = buffer->dimensions()[3];
  if (call.latent_dim > call.width) {
    return InvalidArgument("jax_mla decode: out: expected at most ", call.width,
                           " as the last dimension, got ", call.latent_dim);
  }
  JAX_MLA_RETURN_IF_ERROR(
      rets.Next("lse", {call.batch, call.q_len, attributes.heads}, kF32, buffer));
  call.lse = Data<float>(buffer);

  // One float32 partial output and log-sum-exp per part, query and row of a group.
  call.workspace_bytes = partials * call.q_len * rows * (call.latent_dim + 1) * static_cast<int64_t>(sizeof(float));
  JAX_MLA_RETURN_IF_ERROR(
      rets.Next("workspace", {call.workspace_bytes}, ffi::DataType::U8, buffer));
  call.workspace = Data<uint8_t>(buffer);
  return rets.Done();
}

}  // namespace jax_mla
