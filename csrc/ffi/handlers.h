// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "xla/ffi/api/ffi.h"

namespace jax_mla {

XLA_FFI_Handler* AppendHandler();
XLA_FFI_Handler* DecodeHandler();

}  // namespace jax_mla
