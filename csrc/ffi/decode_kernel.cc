// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <string>

#include "ffi/decode_call.h"
#include "ffi/decode_sm90.h"
#include "ffi/handlers.h"
#include "kernels/decode.h"

namespace jax_mla {
namespace {

// As jax_mla/lowering.py writes them.
struct DecodeKernelAttributes {
  std::string_view source;  // "decode", for every GPU, or "decode_sm90"
  int64_t heads;
  int64_t num_kv_splits;
  int64_t workers;  // of decode_sm90 where num_kv_splits is 0, else 0
  float scale;
  std::string_view arch;
  int64_t compute_units;
};

}  // namespace
}  // namespace jax_mla

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(jax_mla::DecodeKernelAttributes,
                                      xla::ffi::StructMember<std::string_view>("source"),
                                      xla::ffi::StructMember<int64_t>("heads"),
                                      xla::ffi::StructMember<int64_t>("num_kv_splits"),
                                      xla::ffi::StructMember<int64_t>("workers"),
                                      xla::ffi::StructMember<float>("scale"),
                                      xla::ffi::StructMember<std::string_view>("arch"),
                                      xla::ffi::StructMember<int64_t>("compute_units"));

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

constexpr char kOp[] = "decode";

// The kernels are named for dtypes and widths. One that there is none of is refused by its name.
std::string KernelName(const DecodeCall& call) {
  return std::string("jax_mla_decode_") + DtypeName(call.q_dtype, call.kv_dtype) + "_" +
         std::to_string(call.latent_dim) + "_" + std::to_string(call.width - call.latent_dim);
}

int Saturate(int64_t x) {
  return static_cast<int>(std::min<int64_t>(x, std::numeric_limits<int>::max()));
}

DecodeArguments MakeArguments(const DecodeCall& call, const Workspace& workspace,
                              const DecodeKernelAttributes& attributes) {
  DecodeArguments a = {};
  a.q = call.q;
  a.kv_pages = call.kv_pages;
  a.lengths = call.lengths;
  a.page_indices = call.page_indices;
  a.q_scale = call.q_scale;
  a.kv_scale = call.kv_scale;
  a.partial = reinterpret_cast<float*>(call.workspace + workspace.partial);
  a.partial_lse = reinterpret_cast<float*>(call.workspace + workspace.partial_lse);
  a.scale = attributes.scale;
  a.q_len = static_cast<int>(call.q_len);
  a.heads = static_cast<int>(call.plan.heads);
  a.num_splits = static_cast<int>(attributes.num_kv_splits);
  a.pages = Saturate(call.pages);  // page ids are 32-bit
  a.page_size = static_cast<int>(call.page_size);
  a.pages_per_seq = static_cast<int>(call.pages_per_seq);
  a.capacity = Saturate(call.capacity());  // and lengths
  return a;
}

Status LaunchDecode(const Launcher& launcher, const DecodeCall& call, const DecodeArguments& a,
                    int64_t partial_rows) {
  const int64_t rows = call.q_len * call.plan.heads;
  if (call.batch == 0 || rows == 0) return {};
  const Grid grid{static_cast<uint32_t>(a.num_splits),
                  static_cast<uint32_t>((rows + kDecodeRows - 1) / kDecodeRows),
                  static_cast<uint32_t>(call.batch)};
  const size_t q_bytes = call.batch * rows * call.width * ffi::ByteWidth(call.q_dtype);
  const size_t kv_bytes = call.tokens() * call.width * ffi::ByteWidth(call.kv_dtype);
  const std::string name = KernelName(call);
  return launcher.Launch(
      "decode", name.c_str(), grid, kDecodeThreads, a,
      {{"q", a.q, q_bytes, Extent::kRead},
       {"kv_pages", a.kv_pages, kv_bytes, Extent::kRead},
       {"lengths", a.lengths, call.batch * sizeof(int), Extent::kRead},
       {"page_indices", a.page_indices, call.batch * call.pages_per_seq * sizeof(int),
        Extent::kRead},
       {"q_scale", a.q_scale, sizeof(float), Extent::kRead},
       {"kv_scale", a.kv_scale, sizeof(float), Extent::kRead},
       {"partial", a.partial, partial_rows * call.latent_dim * sizeof(float), Extent::kWrite},
       {"partial_lse", a.partial_lse, partial_rows * sizeof(float), Extent::kWrite}});
}

Status LaunchPortable(const Launcher& launcher, const DecodeCall& call, const Workspace& workspace,
                      const DecodeKernelAttributes& attributes, int64_t partial_rows) {
  MergeArguments merge =
      MakeMergeArguments(call, workspace, attributes.num_kv_splits, kDecodeKvBlock, nullptr);
  merge.capacity = Saturate(call.capacity());
  merge.out_scale = call.kv_scale;
  const DecodeArguments arguments = MakeArguments(call, workspace, attributes);
  const Status status = LaunchDecode(launcher, call, arguments, partial_rows);
  return status.ok() ? LaunchMerge(launcher, merge, call.out_dtype, partial_rows) : status;
}

// Operands and results of ffi/decode_call.h, in which no head is padded.
ffi::Error DecodeKernel(const Launcher& launcher, ffi::RemainingArgs operands,
                        ffi::RemainingRets results, const DecodeKernelAttributes& attributes) {
  const Sm90Parts parts = {attributes.num_kv_splits, attributes.workers};
  const bool sm90 = attributes.source == "decode_sm90";
  if (!sm90 && attributes.num_kv_splits < 1) {
    return InvalidArgument("jax_mla decode: num_kv_splits: expected a positive number, got ",
                           attributes.num_kv_splits);
  }
  DecodeCall call = {};
  Operands in(kOp, operands);
  JAX_MLA_RETURN_IF_ERROR(ReadOperands(in, {attributes.heads, attributes.heads, 1}, call));
  JAX_MLA_RETURN_IF_ERROR(ReadScales(in, call));
  if (call.groups != 1) {
    return InvalidArgument("jax_mla decode: q: expected ", attributes.heads, " heads, got ",
                           call.group_rows);
  }
  const int64_t partial_rows =
      sm90 ? CountSm90PartialRows(call, parts)
           : call.batch * attributes.num_kv_splits * call.q_len * call.plan.heads;
  Results out(kOp, results);
  Workspace workspace;
  JAX_MLA_RETURN_IF_ERROR(ReadResults(out, partial_rows, false, call, workspace));
  if (sm90) JAX_MLA_RETURN_IF_ERROR(CheckSm90(call, parts));

  Status status = launcher.CheckArch(attributes.arch);
  if (status.ok()) {
    status = sm90 ? LaunchDecodeSm90(launcher, call, workspace, parts, attributes.scale)
                  : LaunchPortable(launcher, call, workspace, attributes, partial_rows);
  }
  return status.ok() ? ffi::Error::Success() : FailedPrecondition(kOp, status);
}

}  // namespace

StagedHandler DecodeKernelHandler(Platform platform) {
  return MakeStagedHandler<DecodeKernelAttributes, DecodeKernel>(platform);
}

}  // namespace jax_mla
