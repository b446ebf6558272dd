// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "ffi/buffers.h"
#include "ffi/handlers.h"
#include "kernels/expand.h"
#include "kernels/plan.h"

namespace jax_mla {
namespace {

// As jax_mla/metadata.py writes them. Without persistent mode, units is 0.
struct MetadataAttributes {
  int64_t page_size;
  int64_t num_pages;
  int64_t groups;
  int64_t q_len;
  int64_t block;
  int64_t units;
};

}  // namespace
}  // namespace jax_mla

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(jax_mla::MetadataAttributes,
                                      xla::ffi::StructMember<int64_t>("page_size"),
                                      xla::ffi::StructMember<int64_t>("num_pages"),
                                      xla::ffi::StructMember<int64_t>("groups"),
                                      xla::ffi::StructMember<int64_t>("q_len"),
                                      xla::ffi::StructMember<int64_t>("block"),
                                      xla::ffi::StructMember<int64_t>("units"));

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

constexpr char kOp[] = "make_metadata";

struct Table {
  ExpandArguments expand;
  int64_t slots;  // of kv_indices
};

// Python checks these too, but for symbolic shapes.
ffi::Error CheckInt32(const MetadataAttributes& a, int64_t slots) {
  for (const int64_t number : {a.page_size, a.num_pages, a.page_size * a.num_pages, slots,
                               a.groups, a.q_len, a.block, a.units}) {
    if (number < 0 || number > std::numeric_limits<int>::max()) {
      return InvalidArgument("jax_mla make_metadata: expected an int32 of 0 or more, got ", number);
    }
  }
  return ffi::Error::Success();
}

Status LaunchExpand(const Launcher& launcher, const Table& table) {
  const ExpandArguments& a = table.expand;
  const Grid grid{static_cast<uint32_t>(a.blocks), static_cast<uint32_t>(a.batch)};
  const size_t entries = size_t(a.batch) * a.pages_per_seq;
  return launcher.Launch(
      "expand", "jax_mla_expand", grid, kExpandThreads, a,
      {{"lengths", a.lengths, a.batch * sizeof(int), Extent::kRead},
       {"page_indices", a.page_indices, entries * sizeof(int), Extent::kRead},
       {"kv_indptr", a.kv_indptr, (a.batch + 1) * sizeof(int), Extent::kWrite},
       {"kv_indices", a.kv_indices, table.slots * sizeof(int), Extent::kWrite}});
}

Status LaunchPlan(const Launcher& launcher, const PlanArguments& a, int64_t works) {
  const size_t jobs = size_t(a.batch) * a.groups;
  return launcher.Launch(
      "plan", "jax_mla_plan", {}, kPlanThreads, a,
      {{"kv_indptr", a.kv_indptr, (a.batch + 1) * sizeof(int), Extent::kRead},
       {"work_indptr", a.work_indptr, (a.units + 1) * sizeof(int), Extent::kReadWrite},
       {"work_info", a.work_info, works * sizeof(Work), Extent::kReadWrite},
       {"reduce_indptr", a.reduce_indptr, (jobs + 1) * sizeof(int), Extent::kReadWrite}});
}

// Operands lengths i32 [batch] and page_indices i32 [batch, pages_per_seq]; results kv_indptr i32
// [batch + 1] and kv_indices i32 [batch * pages_per_seq * page_size], in persistent mode also
// work_indptr i32 [units + 1], work_info i32 [works, 8] and reduce_indptr i32 [batch * groups + 1].
ffi::Error Metadata(const Launcher& launcher, ffi::RemainingArgs operands,
                    ffi::RemainingRets results, const MetadataAttributes& attributes) {
  constexpr auto kI32 = ffi::DataType::S32;
  std::optional<ffi::AnyBuffer> buffer;
  Table table = {};
  ExpandArguments& expand = table.expand;
  Buffers in(kOp, operands);
  JAX_MLA_RETURN_IF_ERROR(in.Next("lengths", {kAny}, kI32, buffer));
  expand.lengths = Data<int>(buffer);
  const int64_t batch = buffer->dimensions()[0];
  JAX_MLA_RETURN_IF_ERROR(in.Next("page_indices", {batch, kAny}, kI32, buffer));
  expand.page_indices = Data<int>(buffer);
  const int64_t pages_per_seq = buffer->dimensions()[1];
  JAX_MLA_RETURN_IF_ERROR(in.Done());
  table.slots = batch * pages_per_seq * attributes.page_size;
  JAX_MLA_RETURN_IF_ERROR(CheckInt32(attributes, table.slots));

  Buffers out(kOp, results);
  JAX_MLA_RETURN_IF_ERROR(out.Next("kv_indptr", {batch + 1}, kI32, buffer));
  expand.kv_indptr = Data<int>(buffer);
  JAX_MLA_RETURN_IF_ERROR(out.Next("kv_indices", {table.slots}, kI32, buffer));
  expand.kv_indices = Data<int>(buffer);
  expand.batch = static_cast<int>(batch);
  expand.pages_per_seq = static_cast<int>(pages_per_seq);
  expand.page_size = static_cast<int>(attributes.page_size);
  expand.num_pages = static_cast<int>(attributes.num_pages);
  expand.blocks = ExpandBlocks(std::max(expand.batch, 1), expand.pages_per_seq, expand.page_size);

  PlanArguments plan = {};
  const int64_t jobs = batch * attributes.groups, works = jobs + attributes.units - 1;
  if (attributes.units > 0) {
    JAX_MLA_RETURN_IF_ERROR(
        out.Next("work_indptr", {attributes.units + 1}, kI32, buffer));
    plan.work_indptr = Data<int>(buffer);
    JAX_MLA_RETURN_IF_ERROR(
        out.Next("work_info", {works, sizeof(Work) / sizeof(int)}, kI32, buffer));
    plan.work_info = Data<Work>(buffer);
    JAX_MLA_RETURN_IF_ERROR(out.Next("reduce_indptr", {jobs + 1}, kI32, buffer));
    plan.reduce_indptr = Data<int>(buffer);
    plan.kv_indptr = expand.kv_indptr;
    plan.batch = expand.batch;
    plan.groups = static_cast<int>(attributes.groups);
    plan.q_len = static_cast<int>(attributes.q_len);
    plan.block = static_cast<int>(attributes.block);
    plan.units = static_cast<int>(attributes.units);
  }
  JAX_MLA_RETURN_IF_ERROR(out.Done());

  Status status = LaunchExpand(launcher, table);
  if (status.ok() && attributes.units > 0) status = LaunchPlan(launcher, plan, works);
  return status.ok() ? ffi::Error::Success() : FailedPrecondition(kOp, status);
}

}  // namespace

StagedHandler MetadataHandler(Platform platform) {
  return MakeStagedHandler<MetadataAttributes, Metadata>(platform);
}

}  // namespace jax_mla
