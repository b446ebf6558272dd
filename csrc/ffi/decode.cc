// SPDX-License-Identifier: Apache-2.0
#include "ffi/handlers.h"

#include "ffi/decode_call.h"
#include "ffi/error.h"

namespace jax_mla {
namespace {

namespace ffi = xla::ffi;

ffi::Error Decode(ffi::RemainingArgs operands, ffi::RemainingRets results, int64_t heads,
                  int64_t padded_heads, int64_t head_stride, std::string_view implementation,
                  std::string_view mode, int64_t num_kv_splits, float scale, std::string_view arch,
                  int64_t compute_units) {
  const DecodeAttributes attributes{heads, padded_heads,  head_stride, implementation, mode,
                                    num_kv_splits, scale, arch,        compute_units};
  DecodeCall call;
  JAX_MLA_RETURN_IF_ERROR(DecodeCustomCall(operands, results, attributes, call));
  return MakeError(ffi::ErrorCode::kFailedPrecondition, "jax_mla decode: implementation '",
                   implementation, "' for ", arch,
                   ": this version of jax_mla has no device code; implementation='xla' runs");
}

XLA_FFI_DEFINE_HANDLER(kDecode, Decode,
                       ffi::Ffi::Bind()
                           .RemainingArgs()
                           .RemainingRets()
                           .Attr<int64_t>("heads")
                           .Attr<int64_t>("padded_heads")
                           .Attr<int64_t>("head_stride")
                           .Attr<std::string_view>("implementation")
                           .Attr<std::string_view>("mode")
                           .Attr<int64_t>("num_kv_splits")
                           .Attr<float>("scale")
                           .Attr<std::string_view>("arch")
                           .Attr<int64_t>("compute_units"));

}  // namespace

XLA_FFI_Handler* DecodeHandler() { return kDecode; }

}  // namespace jax_mla
