// SPDX-License-Identifier: Apache-2.0
#include "kernels/read.h"

#include "ffi/buffers.h"
#include "ffi/handlers.h"

namespace jax_mla {
namespace {

// The part of the operand that is read, in bytes.
struct ReadAttributes {
  int64_t first;
  int64_t size;
};

}  // namespace
}  // namespace jax_mla

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(jax_mla::ReadAttributes,
                                      xla::ffi::StructMember<int64_t>("first"),
                                      xla::ffi::StructMember<int64_t>("size"));

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

constexpr char kOp[] = "read";
constexpr int64_t kPiece = 16;

ffi::Error Read(const Launcher& launcher, ffi::RemainingArgs operands, ffi::RemainingRets results,
                const ReadAttributes& attributes) {
  Buffers in(kOp, operands);
  std::optional<ffi::AnyBuffer> buffer;
  JAX_MLA_RETURN_IF_ERROR(in.Next("kv_pages", {kAny, kAny, kAny}, {}, buffer));
  JAX_MLA_RETURN_IF_ERROR(in.Done());
  const auto [first, size] = attributes;
  const auto bytes = static_cast<int64_t>(buffer->size_bytes());
  if (first < 0 || size < 0 || first > bytes || size > bytes - first || first % kPiece != 0 ||
      size % kPiece != 0) {
    return InvalidArgument("jax_mla read: expected a part of ", bytes, " bytes in multiples of ",
                           kPiece, ", got ", size, " from ", first);
  }
  ReadArguments a = {};
  a.source = Data<const char>(buffer) + first;
  a.pieces = static_cast<unsigned long long>(size / kPiece);

  Buffers out(kOp, results);
  JAX_MLA_RETURN_IF_ERROR(out.Next("sums", {kAny, kReadSums}, ffi::DataType::U32, buffer));
  JAX_MLA_RETURN_IF_ERROR(out.Done());
  a.sums = Data<unsigned>(buffer);
  a.blocks = static_cast<int>(buffer->dimensions()[0]);
  if (a.blocks == 0) return ffi::Error::Success();
  const Status status = launcher.Launch(
      "read", "jax_mla_read", {static_cast<uint32_t>(a.blocks), 1, 1}, kReadThreads, a,
      {{"kv_pages", a.source, static_cast<size_t>(size), Extent::kRead},
       {"sums", a.sums, buffer->size_bytes(), Extent::kWrite}});
  return status.ok() ? ffi::Error::Success() : FailedPrecondition(kOp, status);
}

}  // namespace

StagedHandler ReadHandler(Platform platform) {
  return MakeStagedHandler<ReadAttributes, Read>(platform);
}

}  // namespace jax_mla
