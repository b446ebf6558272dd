// SPDX-License-Identifier: Apache-2.0
#include "aiter/stage1.h"
#include "ffi/decode_call.h"
#include "ffi/handlers.h"
#include "kernels/plan.h"
#include "kernels/pointers.h"

namespace jax_mla {
namespace {

// As jax_mla/lowering.py writes them.
struct DecodeAsmAttributes {
  int64_t heads;                // these three: ffi/decode_call.h
  int64_t padded_heads;
  int64_t head_stride;
  std::string_view mode;        // "split" or "persistent"
  int64_t num_kv_splits;        // of split mode; 1 in persistent mode
  float scale;
  std::string_view arch;
  int64_t compute_units;
  std::string_view code_object; // SHA-256 of AITER's code object
  int64_t workgroup_rows;       // these four: how that code object is used, see jax_mla/kernels.py
  int64_t row_argument;
  int64_t kv_block;
  bool scale_out;               // whether the merge applies kv_scale, as the kernel does not
};

}  // namespace
}  // namespace jax_mla

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(jax_mla::DecodeAsmAttributes,
                                      xla::ffi::StructMember<int64_t>("heads"),
                                      xla::ffi::StructMember<int64_t>("padded_heads"),
                                      xla::ffi::StructMember<int64_t>("head_stride"),
                                      xla::ffi::StructMember<std::string_view>("mode"),
                                      xla::ffi::StructMember<int64_t>("num_kv_splits"),
                                      xla::ffi::StructMember<float>("scale"),
                                      xla::ffi::StructMember<std::string_view>("arch"),
                                      xla::ffi::StructMember<int64_t>("compute_units"),
                                      xla::ffi::StructMember<std::string_view>("code_object"),
                                      xla::ffi::StructMember<int64_t>("workgroup_rows"),
                                      xla::ffi::StructMember<int64_t>("row_argument"),
                                      xla::ffi::StructMember<int64_t>("kv_block"),
                                      xla::ffi::StructMember<bool>("scale_out"));

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

constexpr char kOp[] = "decode";
constexpr int64_t kLatentDim = 512, kWidth = 576;  // all that AITER's kernels take

// The metadata, after the operands that every decode has.
struct AsmOperands {
  const int32_t* kv_indptr;
  const int32_t* kv_indices;
  const int32_t* qo_indptr;
  const int32_t* num_kv_splits_indptr;  // null in persistent mode, these four in split mode
  const int32_t* work_indptr;
  const int32_t* work_info;
  const int32_t* reduce_indptr;
  int64_t units;
};

ffi::Error CheckAttributes(const DecodeAsmAttributes& a) {
  if (a.mode != "split" && a.mode != "persistent") {
    return InvalidArgument("jax_mla decode: mode: expected split or persistent, got ", a.mode);
  }
  const std::pair<const char*, int64_t> numbers[] = {{"num_kv_splits", a.num_kv_splits},
                                                     {"workgroup_rows", a.workgroup_rows},
                                                     {"row_argument", a.row_argument},
                                                     {"kv_block", a.kv_block}};
  for (const auto& [name, number] : numbers) {
    if (number >= 1) continue;
    return InvalidArgument("jax_mla decode: ", name, ": expected a positive number, got ", number);
  }
  return ffi::Error::Success();
}

// kv_indptr i32 [batch + 1], kv_indices i32 [batch * capacity], in persistent mode work_indptr i32
// [units + 1], work_info i32 [works, 8] and reduce_indptr i32 [batch * groups + 1]; then qo_indptr
// i32 [1, batch * groups + 1], in split mode num_kv_splits_indptr i32 [1, batch + 1].
ffi::Error ReadMetadata(Operands& in, const DecodeCall& call, bool persistent, AsmOperands& asm_) {
  constexpr auto kI32 = ffi::DataType::S32;
  const int64_t jobs = call.batch * call.groups;
  std::optional<ffi::AnyBuffer> buffer;
  const auto next = [&](const char* name, const Shape& shape, const int32_t*& data) {
    ffi::Error error = in.Next(name, shape, kI32, buffer);
    if (error.success()) data = Data<int32_t>(buffer);
    return error;
  };
  JAX_MLA_RETURN_IF_ERROR(next("kv_indptr", {call.batch + 1}, asm_.kv_indptr));
  JAX_MLA_RETURN_IF_ERROR(next("kv_indices", {call.batch * call.capacity()}, asm_.kv_indices));
  if (persistent) {
    JAX_MLA_RETURN_IF_ERROR(next("work_indptr", {kAny}, asm_.work_indptr));
    asm_.units = buffer->dimensions()[0] - 1;
    if (asm_.units < 1) return InvalidArgument("jax_mla decode: work_indptr: expected a unit");
    JAX_MLA_RETURN_IF_ERROR(
        next("work_info", {jobs + asm_.units - 1, sizeof(Work) / sizeof(int)}, asm_.work_info));
    JAX_MLA_RETURN_IF_ERROR(next("reduce_indptr", {jobs + 1}, asm_.reduce_indptr));
  }
  JAX_MLA_RETURN_IF_ERROR(next("qo_indptr", {1, jobs + 1}, asm_.qo_indptr));
  if (persistent) return ffi::Error::Success();
  return next("num_kv_splits_indptr", {1, call.batch + 1}, asm_.num_kv_splits_indptr);
}

aiter::Stage1 MakeStage1(const DecodeCall& call, const AsmOperands& asm_,
                         const DecodeAsmAttributes& attributes, const Workspace& workspace) {
  aiter::Stage1 stage = {};
  stage.q = call.q;
  stage.kv = call.kv_pages;
  stage.kv_indptr = asm_.kv_indptr;
  stage.kv_indices = asm_.kv_indices;
  stage.qo_indptr = asm_.qo_indptr;
  stage.num_kv_splits_indptr = asm_.num_kv_splits_indptr;
  stage.work_indptr = asm_.work_indptr;
  stage.work_info = asm_.work_info;
  stage.q_scale = call.q_scale;
  stage.kv_scale = call.kv_scale;
  stage.partial = reinterpret_cast<float*>(call.workspace + workspace.partial);
  stage.partial_lse = reinterpret_cast<float*>(call.workspace + workspace.partial_lse);
  stage.scale = attributes.scale;
  stage.batch = call.batch;
  stage.sequences = call.batch;
  stage.q_len = call.q_len;
  stage.rows = call.group_rows;
  stage.q_row_bytes = call.width * ffi::ByteWidth(call.q_dtype);
  stage.kv_row_bytes = call.width * ffi::ByteWidth(call.kv_dtype);
  stage.tokens = call.tokens();
  stage.slots = call.batch * call.capacity();
  stage.num_kv_splits = attributes.num_kv_splits;
  stage.partial_rows = call.batch * call.q_len * attributes.num_kv_splits * call.group_rows;
  return stage;
}

// One launch for each group of heads: in one grid they would write over one another.
Status LaunchSplits(const Launcher& launcher, const aiter::Kernel& kernel, int64_t groups,
                    aiter::Stage1 stage) {
  const int64_t q_bytes = stage.sequences * stage.q_len * stage.rows * stage.q_row_bytes;
  for (int64_t group = 0; group < groups; ++group) {
    const Status status = aiter::LaunchStage1(launcher, kernel, stage);
    if (!status.ok()) return status;
    stage.q = static_cast<const char*>(stage.q) + q_bytes;
    stage.partial += stage.partial_rows * kLatentDim;
    stage.partial_lse += stage.partial_rows;
  }
  return {};
}

// All groups are in the works. The kernel takes the addresses of the two lists from memory.
Status LaunchWorks(const Launcher& launcher, const aiter::Kernel& kernel, const DecodeCall& call,
                   const AsmOperands& asm_, const Workspace& workspace, aiter::Stage1 stage) {
  auto* pair = reinterpret_cast<uint64_t*>(call.workspace + workspace.pointers);
  const PointersArguments pointers = {asm_.work_indptr, asm_.work_info,
                                      reinterpret_cast<unsigned long long*>(pair)};
  const Status status =
      launcher.Launch("pointers", "jax_mla_pointers", {}, kPointersThreads, pointers,
                      {{"work_pointers", pair, 2 * sizeof(uint64_t), Extent::kWrite}});
  if (!status.ok()) return status;
  stage.work_pointers = pair;
  stage.units = asm_.units;
  stage.sequences = call.batch * call.groups;
  stage.works = stage.sequences + asm_.units - 1;
  stage.partial_rows = stage.works * call.q_len * call.group_rows;
  return aiter::LaunchStage1(launcher, kernel, stage);
}

ffi::Error DecodeAsm(const Launcher& launcher, ffi::RemainingArgs operands,
                     ffi::RemainingRets results, const DecodeAsmAttributes& attributes) {
  JAX_MLA_RETURN_IF_ERROR(CheckAttributes(attributes));
  const bool persistent = attributes.mode == "persistent";
  DecodeCall call = {};
  Operands in(kOp, operands);
  JAX_MLA_RETURN_IF_ERROR(ReadOperands(
      in, {attributes.heads, attributes.padded_heads, attributes.head_stride}, call));
  AsmOperands asm_ = {};
  JAX_MLA_RETURN_IF_ERROR(ReadMetadata(in, call, persistent, asm_));
  JAX_MLA_RETURN_IF_ERROR(ReadScales(in, call));

  const int64_t jobs = call.batch * call.groups;
  const int64_t parts = persistent ? jobs + asm_.units - 1 : jobs * attributes.num_kv_splits;
  Results out(kOp, results);
  Workspace workspace;
  JAX_MLA_RETURN_IF_ERROR(
      ReadResults(out, parts * call.q_len * call.group_rows, persistent, 1, call, workspace));
  if (call.width != kWidth || call.latent_dim != kLatentDim) {
    return InvalidArgument("jax_mla decode: AITER's kernels take rows of 576 with 512 of latent, ",
                           "got ", call.width, " with ", call.latent_dim);
  }

  const aiter::Kernel kernel = {attributes.code_object, attributes.arch,
                                attributes.workgroup_rows, attributes.row_argument};
  const aiter::Stage1 stage = MakeStage1(call, asm_, attributes, workspace);
  MergeArguments merge = MakeMergeArguments(call, workspace, attributes.num_kv_splits,
                                            attributes.kv_block, asm_.reduce_indptr);
  if (attributes.scale_out) merge.out_scale = call.kv_scale;

  Status status = launcher.CheckArch(attributes.arch);
  if (status.ok()) {
    status = persistent ? LaunchWorks(launcher, kernel, call, asm_, workspace, stage)
                        : LaunchSplits(launcher, kernel, call.groups, stage);
  }
  if (status.ok()) {
    status = LaunchMerge(launcher, merge, call.out_dtype, parts * call.q_len * call.group_rows);
  }
  return status.ok() ? ffi::Error::Success() : FailedPrecondition(kOp, status);
}

}  // namespace

StagedHandler DecodeAsmHandler(Platform platform) {
  return MakeStagedHandler<DecodeAsmAttributes, DecodeAsm>(platform);
}

}  // namespace jax_mla
