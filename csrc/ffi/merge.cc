// SPDX-License-Identifier: Apache-2.0
#include "ffi/merge.h"

#include "ffi/buffers.h"

namespace jax_mla {
namespace {

struct MergeAttributes {
  bool persistent;
  int64_t groups;
  int64_t head_stride;
  int64_t kv_block;
  int64_t capacity;
};

}  // namespace
}  // namespace jax_mla

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(jax_mla::MergeAttributes,
                                      xla::ffi::StructMember<bool>("persistent"),
                                      xla::ffi::StructMember<int64_t>("groups"),
                                      xla::ffi::StructMember<int64_t>("head_stride"),
                                      xla::ffi::StructMember<int64_t>("kv_block"),
                                      xla::ffi::StructMember<int64_t>("capacity"));

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

constexpr char kOp[] = "merge";

const char* KernelName(ffi::DataType out, bool many) {
  switch (out) {
    case ffi::DataType::BF16: return many ? "jax_mla_merge_bf16_many" : "jax_mla_merge_bf16";
    case ffi::DataType::F16: return many ? "jax_mla_merge_f16_many" : "jax_mla_merge_f16";
    case ffi::DataType::F32: return many ? "jax_mla_merge_f32_many" : "jax_mla_merge_f32";
    default: return nullptr;
  }
}

ffi::Error CheckPlan(const MergeArguments& a) {
  if (a.head_stride < 1 || int64_t{a.heads - 1} * a.head_stride >= int64_t{a.groups} * a.group_rows) {
    return InvalidArgument("jax_mla merge: ", a.groups, " groups of ", a.group_rows,
                           " rows do not hold ", a.heads, " heads of stride ", a.head_stride);
  }
  if (a.kv_block < 1 || a.latent_dim % 4 != 0 || a.latent_dim > 512) {
    return InvalidArgument("jax_mla merge: expected a positive kv_block and a latent_dim of at "
                           "most 512 that 4 divides, got ",
                           a.kv_block, " and ", a.latent_dim);
  }
  return ffi::Error::Success();
}

ffi::Error Merge(const Launcher& launcher, ffi::RemainingArgs operands, ffi::RemainingRets results,
                 const MergeAttributes& attributes) {
  constexpr auto kF32 = ffi::DataType::F32;
  constexpr auto kI32 = ffi::DataType::S32;
  MergeArguments a = {};
  Buffers in(kOp, operands);
  std::optional<ffi::AnyBuffer> buffer;
  JAX_MLA_RETURN_IF_ERROR(in.Next("partial", {kAny, kAny, kAny, kAny, kAny}, kF32, buffer));
  a.partial = Data<float>(buffer);
  const auto dims = buffer->dimensions();
  a.q_len = static_cast<int>(dims[1]);
  a.num_splits = static_cast<int>(dims[2]);
  a.group_rows = static_cast<int>(dims[3]);
  a.latent_dim = static_cast<int>(dims[4]);
  JAX_MLA_RETURN_IF_ERROR(
      in.Next("partial_lse", {dims[0], dims[1], dims[2], dims[3]}, kF32, buffer));
  a.partial_lse = Data<float>(buffer);
  const auto partial_rows = static_cast<int64_t>(buffer->element_count());
  JAX_MLA_RETURN_IF_ERROR(in.Next("lengths", {kAny}, kI32, buffer));
  a.lengths = Data<int>(buffer);
  a.batch = static_cast<int>(buffer->dimensions()[0]);
  a.groups = static_cast<int>(attributes.groups);
  if (attributes.persistent) {
    JAX_MLA_RETURN_IF_ERROR(
        in.Next("reduce_indptr", {int64_t{a.batch} * a.groups + 1}, kI32, buffer));
    a.reduce_indptr = Data<int>(buffer);
  } else if (dims[0] != int64_t{a.batch} * a.groups) {
    return InvalidArgument("jax_mla merge: partial: expected ", a.groups, " groups of ", a.batch,
                           " sequences, got ", dims[0]);
  }
  JAX_MLA_RETURN_IF_ERROR(in.Next("out_scale", {}, kF32, buffer));
  a.out_scale = Data<float>(buffer);
  JAX_MLA_RETURN_IF_ERROR(in.Done());

  Buffers out(kOp, results);
  JAX_MLA_RETURN_IF_ERROR(out.Next("out", {a.batch, a.q_len, kAny, a.latent_dim}, {}, buffer));
  const ffi::DataType out_dtype = buffer->element_type();
  if (KernelName(out_dtype, false) == nullptr) {
    return InvalidArgument("jax_mla merge: out: expected dtype BF16, F16 or F32, got ", out_dtype);
  }
  a.out = Data<void>(buffer);
  a.heads = static_cast<int>(buffer->dimensions()[2]);
  JAX_MLA_RETURN_IF_ERROR(out.Next("lse", {a.batch, a.q_len, a.heads}, kF32, buffer));
  a.lse = Data<float>(buffer);
  JAX_MLA_RETURN_IF_ERROR(out.Done());

  a.head_stride = static_cast<int>(attributes.head_stride);
  a.kv_block = static_cast<int>(attributes.kv_block);
  a.capacity = static_cast<int>(attributes.capacity);
  JAX_MLA_RETURN_IF_ERROR(CheckPlan(a));
  const Status status = LaunchMerge(launcher, a, out_dtype, partial_rows);
  return status.ok() ? ffi::Error::Success() : FailedPrecondition(kOp, status);
}

// Whether there are more than a few parts to a row, on average. With fixed splits that does not
// depend on the batch: nor do the bits then.
bool HasManyParts(const MergeArguments& a, int64_t partial_rows) {
  constexpr int64_t kFew = 8;
  const bool own = a.tile_rows > 0;
  const int64_t tile_rows = own ? a.tile_rows : a.group_rows;
  const int64_t tiles = own ? (int64_t{a.q_len} * a.heads + tile_rows - 1) / tile_rows
                            : int64_t{a.groups} * a.q_len;
  return partial_rows > kFew * a.batch * tiles * tile_rows;
}

}  // namespace

Status LaunchMerge(const Launcher& launcher, const MergeArguments& a, ffi::DataType out_dtype,
                   int64_t partial_rows) {
  const size_t out_rows = size_t(a.batch) * a.q_len * a.heads;
  if (out_rows == 0) return {};
  const size_t row_bytes = a.latent_dim * sizeof(float);
  const Grid grid{static_cast<uint32_t>(a.heads), static_cast<uint32_t>(a.q_len),
                  static_cast<uint32_t>(a.batch)};
  const bool many = HasManyParts(a, partial_rows);
  return launcher.Launch(
      "merge", KernelName(out_dtype, many), grid, many ? kMergeManyThreads : kMergeThreads, a,
      {{"partial", a.partial, partial_rows * row_bytes, Extent::kRead},
       {"partial_lse", a.partial_lse, partial_rows * sizeof(float), Extent::kRead},
       {"lengths", a.lengths, a.batch * sizeof(int), Extent::kRead},
       {"reduce_indptr", a.reduce_indptr, (size_t(a.batch) * a.groups + 1) * sizeof(int),
        Extent::kRead},
       {"out_scale", a.out_scale, sizeof(float), Extent::kRead},
       {"out", a.out, out_rows * a.latent_dim * ffi::ByteWidth(out_dtype), Extent::kWrite},
       {"lse", a.lse, out_rows * sizeof(float), Extent::kWrite}});
}

StagedHandler MergeHandler(Platform platform) {
  return MakeStagedHandler<MergeAttributes, Merge>(platform);
}

}  // namespace jax_mla
