// SPDX-License-Identifier: Apache-2.0
#include "ffi/decode_call.h"
#include "ffi/handlers.h"

namespace jax_mla {
namespace {

// As jax_mla/lowering.py writes them.
struct DecodeKernelAttributes {
  int64_t heads;
  int64_t num_kv_splits;
  float scale;
  std::string_view arch;
  int64_t compute_units;
};

}  // namespace
}  // namespace jax_mla

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(jax_mla::DecodeKernelAttributes,
                                      xla::ffi::StructMember<int64_t>("heads"),
                                      xla::ffi::StructMember<int64_t>("num_kv_splits"),
                                      xla::ffi::StructMember<float>("scale"),
                                      xla::ffi::StructMember<std::string_view>("arch"),
                                      xla::ffi::StructMember<int64_t>("compute_units"));

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

// Operands and results of ffi/decode_call.h, in which no head is padded.
ffi::Error DecodeKernel(const Launcher&, ffi::RemainingArgs operands, ffi::RemainingRets results,
                        const DecodeKernelAttributes& attributes) {
  if (attributes.num_kv_splits < 1) {
    return InvalidArgument("jax_mla decode: num_kv_splits: expected a positive number, got ",
                           attributes.num_kv_splits);
  }
  DecodeCall call = {};
  Operands in("decode", operands);
  JAX_MLA_RETURN_IF_ERROR(ReadOperands(in, {attributes.heads, attributes.heads, 1}, call));
  JAX_MLA_RETURN_IF_ERROR(ReadScales(in, call));
  Results out("decode", results);
  Workspace workspace;
  JAX_MLA_RETURN_IF_ERROR(
      ReadResults(out, call.batch * attributes.num_kv_splits, false, call, workspace));
  return FailedPrecondition(
      "decode", Status::Failure("this version has no decode kernel of its own for ",
                                attributes.arch, ": implementation='xla' runs"));
}

}  // namespace

StagedHandler DecodeKernelHandler(Platform platform) {
  return MakeStagedHandler<DecodeKernelAttributes, DecodeKernel>(platform);
}

}  // namespace jax_mla
