// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "ffi/decode_call.h"
#include "ffi/handlers.h"
#include "kernels/decode.h"
#include "kernels/decode_sm90.h"

namespace jax_mla {
namespace {

// As jax_mla/lowering.py writes them.
struct DecodeKernelAttributes {
  std::string_view source;  // "decode", for every GPU, or "decode_sm90"
  int64_t heads;
  int64_t num_kv_splits;
  int64_t workers;  // where num_kv_splits is 0, else 0
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
constexpr int64_t kMostInt = std::numeric_limits<int>::max();
constexpr int64_t kMostParts = 1 << 16;  // kernels/shares.h

int Saturate(int64_t x) { return static_cast<int>(std::min(x, kMostInt)); }

// A call and how it is cut.
struct Work {
  const DecodeCall& call;
  bool sm90;
  int64_t num_splits;
  int64_t workers;

  int64_t rows() const { return call.q_len * call.plan.heads; }  // of a sequence
  int64_t tile_rows() const { return sm90 && rows() <= 8 ? 8 : kDecodeRows; }
  int64_t tiles() const { return (rows() + tile_rows() - 1) / tile_rows(); }
  int64_t jobs() const { return call.batch * tiles(); }
  int64_t kv_block() const { return sm90 ? kSm90KvBlock : kDecodeKvBlock; }
  int64_t parts() const { return num_splits > 0 ? jobs() * num_splits : jobs() + workers; }
  int64_t partial_rows() const { return parts() * tile_rows(); }
  int64_t weights() const { return sm90 ? 2 : 1; }  // of such a row
};

ffi::Error CheckWork(const Work& work) {
  if ((work.num_splits > 0) == (work.workers > 0) || work.num_splits < 0 || work.workers < 0) {
    return InvalidArgument("jax_mla decode: expected num_kv_splits or workers to be positive, got ",
                           work.num_splits, " and ", work.workers);
  }
  if (work.num_splits > kMostParts || work.workers > kMostParts) {
    return InvalidArgument("jax_mla decode: expected at most ", kMostParts,
                           " num_kv_splits or workers, got ", work.num_splits, " and ",
                           work.workers);
  }
  const int64_t blocks = (work.call.capacity() + work.kv_block() - 1) / work.kv_block();
  if (work.jobs() > 0 && blocks > kMostInt / work.jobs()) {
    return InvalidArgument("jax_mla decode: expected fewer than 2^31 blocks of ", work.kv_block(),
                           " keys, got ", work.jobs(), " times ", blocks);
  }
  return ffi::Error::Success();
}

// Copies take lines of a ninth of a row, which have to begin at multiples of 128 bytes.
constexpr int64_t kLinesOfRow = 9;

ffi::Error CheckSm90(const DecodeCall& call) {
  if (call.width != kSm90Width || call.latent_dim != kSm90Latent) {
    return InvalidArgument("jax_mla decode: the kernels for sm_90 take rows of ", kSm90Width,
                           " with ", kSm90Latent, " of latent, got ", call.width, " with ",
                           call.latent_dim);
  }
  if (call.kv_dtype == ffi::DataType::F8E4M3FN && call.page_size % 2 != 0) {
    return InvalidArgument("jax_mla decode: the kernels for sm_90 take an fp8 cache with an even "
                           "page_size, got ",
                           call.page_size);
  }
  if (call.tokens() > kMostInt / kLinesOfRow) {
    return InvalidArgument("jax_mla decode: the kernels for sm_90 take fewer than 2^31 lines of "
                           "cache, got ",
                           kLinesOfRow, " times ", call.tokens());
  }
  return ffi::Error::Success();
}

// The kernels are named for dtypes and widths. One that there is none of is refused by its name.
std::string KernelName(const DecodeCall& call) {
  return std::string("jax_mla_decode_") + DtypeName(call.q_dtype, call.kv_dtype) + "_" +
         std::to_string(call.latent_dim) + "_" + std::to_string(call.width - call.latent_dim);
}

DecodeArguments MakeArguments(const Work& work, const Workspace& workspace, float scale) {
  const DecodeCall& call = work.call;
  DecodeArguments a = {};
  a.q = call.q;
  a.kv_pages = call.kv_pages;
  a.lengths = call.lengths;
  a.page_indices = call.page_indices;
  a.q_scale = call.q_scale;
  a.kv_scale = call.kv_scale;
  a.partial = reinterpret_cast<float*>(call.workspace + workspace.partial);
  a.partial_lse = reinterpret_cast<float*>(call.workspace + workspace.partial_lse);
  a.out = call.out;
  a.lse = call.lse;
  a.scale = scale;
  a.batch = static_cast<int>(call.batch);
  a.q_len = static_cast<int>(call.q_len);
  a.heads = static_cast<int>(call.plan.heads);
  a.num_splits = static_cast<int>(work.num_splits);
  a.workers = static_cast<int>(work.workers);
  a.pages = Saturate(call.pages);  // page ids are 32-bit
  a.page_size = static_cast<int>(call.page_size);
  a.pages_per_seq = static_cast<int>(call.pages_per_seq);
  a.capacity = Saturate(call.capacity());  // and lengths
  return a;
}

// What stage 1 of either source may touch.
template <typename Arguments>
Status LaunchStage1(const Launcher& launcher, const Work& work, const char* source,
                    const std::string& name, Block block, const Arguments& a) {
  const DecodeCall& call = work.call;
  const Grid grid = a.num_splits > 0 ? Grid{static_cast<uint32_t>(a.num_splits),
                                            static_cast<uint32_t>(work.tiles()),
                                            static_cast<uint32_t>(a.batch)}
                                     : Grid{static_cast<uint32_t>(a.workers), 1, 1};
  const size_t rows = call.batch * work.rows();
  return launcher.Launch(
      source, name.c_str(), grid, block, a,
      {{"q", a.q, rows * call.width * ffi::ByteWidth(call.q_dtype), Extent::kRead},
       {"kv_pages", a.kv_pages, call.tokens() * call.width * ffi::ByteWidth(call.kv_dtype),
        Extent::kRead},
       {"lengths", a.lengths, call.batch * sizeof(int), Extent::kRead},
       {"page_indices", a.page_indices, call.batch * call.pages_per_seq * sizeof(int),
        Extent::kRead},
       {"q_scale", a.q_scale, sizeof(float), Extent::kRead},
       {"kv_scale", a.kv_scale, sizeof(float), Extent::kRead},
       {"partial", a.partial, work.partial_rows() * call.latent_dim * sizeof(float),
        Extent::kWrite},
       {"partial_lse", a.partial_lse, work.partial_rows() * work.weights() * sizeof(float),
        Extent::kWrite},
       {"out", a.out, rows * call.latent_dim * ffi::ByteWidth(call.out_dtype), Extent::kWrite},
       {"lse", a.lse, rows * sizeof(float), Extent::kWrite}});
}

Status LaunchPortable(const Launcher& launcher, const Work& work, const Workspace& workspace,
                      const DecodeArguments& arguments) {
  const DecodeCall& call = work.call;
  const Status status = LaunchStage1(launcher, work, "decode", KernelName(call), kDecodeThreads,
                                     arguments);
  if (!status.ok()) return status;
  MergeArguments merge =
      MakeMergeArguments(call, workspace, work.num_splits, kDecodeKvBlock, nullptr);
  merge.capacity = arguments.capacity;
  merge.out_scale = call.kv_scale;
  merge.tile_rows = static_cast<int>(work.tile_rows());
  merge.workers = arguments.workers;
  merge.part_blocks = kDecodePartBlocks;
  return LaunchMerge(launcher, merge, call.out_dtype, work.partial_rows());
}

// How stage 2 goes about a job's pieces, by the parts that it is likely to have. With fixed splits the
// bits of a sum must not depend on the batch, so nor does this.
struct MergePlan {
  const char* name;
  int64_t blocks;  // of threads, to a job
};
MergePlan PlanMerge(const Work& work) {
  constexpr int64_t kWaves = kSm90MergeThreads / 32;
  const int64_t pieces = work.tile_rows() / kSm90PieceRows * (kSm90Latent / kSm90PieceColumns);
  const int64_t parts = work.num_splits > 0 ? work.num_splits : work.workers / work.jobs() + 1;
  if (parts > 16) return {"8x1", pieces};
  if (parts > 4) return {"1x1", pieces / kWaves};
  return {"1x4", pieces / kWaves / 4};
}

Status LaunchSm90(const Launcher& launcher, const Work& work, const DecodeArguments& arguments) {
  const DecodeCall& call = work.call;
  const auto tile_rows = static_cast<int>(work.tile_rows());
  const int box_keys = std::gcd(static_cast<int>(call.page_size), kSm90BoxKeys);
  DecodeSm90Arguments a = {arguments, tile_rows, __builtin_ctz(box_keys), {}};
  const size_t row_bytes = call.width * ffi::ByteWidth(call.kv_dtype);
  Status status = launcher.MapLines(call.kv_pages, call.tokens() * kLinesOfRow,
                                    static_cast<uint32_t>(row_bytes / kLinesOfRow),
                                    static_cast<uint32_t>(box_keys * kLinesOfRow), &a.kv_lines);
  if (!status.ok()) return status;
  const std::string dtypes = DtypeName(call.q_dtype, call.kv_dtype);
  status = LaunchStage1(launcher, work, "decode_sm90",
                        "jax_mla_decode_sm90_" + dtypes + "_" + std::to_string(tile_rows),
                        {kSm90Threads, kSm90SharedBytes}, a);
  if (!status.ok()) return status;

  const MergePlan merge = PlanMerge(work);
  const char* out = call.out_dtype == ffi::DataType::F16 ? "f16" : "bf16";
  const std::string name = std::string("jax_mla_merge_sm90_") + out + "_" + merge.name;
  const Grid grid{static_cast<uint32_t>(merge.blocks), static_cast<uint32_t>(work.tiles()),
                  static_cast<uint32_t>(a.batch)};
  return launcher.Launch("merge_sm90", name.c_str(), grid, {kSm90MergeThreads, 0, true}, a, {});
}

// Operands and results of ffi/decode_call.h, in which no head is padded.
ffi::Error DecodeKernel(const Launcher& launcher, ffi::RemainingArgs operands,
                        ffi::RemainingRets results, const DecodeKernelAttributes& attributes) {
  DecodeCall call = {};
  Operands in(kOp, operands);
  JAX_MLA_RETURN_IF_ERROR(ReadOperands(in, {attributes.heads, attributes.heads, 1}, call));
  JAX_MLA_RETURN_IF_ERROR(ReadScales(in, call));
  if (call.groups != 1) {
    return InvalidArgument("jax_mla decode: q: expected ", attributes.heads, " heads, got ",
                           call.group_rows);
  }
  const Work work = {call, attributes.source == "decode_sm90", attributes.num_kv_splits,
                     attributes.workers};
  JAX_MLA_RETURN_IF_ERROR(CheckWork(work));
  Results out(kOp, results);
  Workspace workspace;
  JAX_MLA_RETURN_IF_ERROR(ReadResults(out, work.partial_rows(), false, work.weights(), call, workspace));
  if (work.sm90) JAX_MLA_RETURN_IF_ERROR(CheckSm90(call));

  Status status = launcher.CheckArch(attributes.arch);
  if (status.ok() && work.jobs() > 0) {
    const DecodeArguments arguments = MakeArguments(work, workspace, attributes.scale);
    status = work.sm90 ? LaunchSm90(launcher, work, arguments)
                       : LaunchPortable(launcher, work, workspace, arguments);
  }
  return status.ok() ? ffi::Error::Success() : FailedPrecondition(kOp, status);
}

}  // namespace

StagedHandler DecodeKernelHandler(Platform platform) {
  return MakeStagedHandler<DecodeKernelAttributes, DecodeKernel>(platform);
}

}  // namespace jax_mla
