// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sstream>

#include "gpu/status.h"
#include "xla/ffi/api/ffi.h"

namespace jax_mla {

// An error of `code` whose message is the arguments, put together.
template <typename... Parts>
xla::ffi::Error MakeError(xla::ffi::ErrorCode code, const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  return xla::ffi::Error(code, message.str());
}

template <typename... Parts>
xla::ffi::Error InvalidArgument(const Parts&... parts) {
  return MakeError(xla::ffi::ErrorCode::kInvalidArgument, parts...);
}

// What only the machine at hand can say, a missing driver for one.
inline xla::ffi::Error FailedPrecondition(const char* op, const Status& status) {
  return MakeError(xla::ffi::ErrorCode::kFailedPrecondition, "jax_mla ", op, ": ", status.reason(),
                   " (`python -m jax_mla doctor` looks for the cause)");
}

// Returns from the enclosing function if `expression` is an error.
#define JAX_MLA_RETURN_IF_ERROR(expression)                  \
  do {                                                       \
    xla::ffi::Error jax_mla_error = (expression);            \
    if (jax_mla_error.failure()) return jax_mla_error;       \
  } while (false)

}  // namespace jax_mla
