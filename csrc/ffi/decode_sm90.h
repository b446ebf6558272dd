// SPDX-License-Identifier: Apache-2.0
// Launches Hopper's decode kernels.
#pragma once

#include "ffi/decode_call.h"

namespace jax_mla {

// How the keys are dealt out: kernels/decode_sm90.h.
struct Sm90Parts {
  int64_t num_splits;
  int64_t workers;
};

// Rows of partial results that a call has room for.
int64_t CountSm90PartialRows(const DecodeCall& call, const Sm90Parts& parts);

// An error for what the kernels do not take.
xla::ffi::Error CheckSm90(const DecodeCall& call, const Sm90Parts& parts);

// Both stages.
Status LaunchDecodeSm90(const Launcher& launcher, const DecodeCall& call,
                        const Workspace& workspace, const Sm90Parts& parts, float scale);

}  // namespace jax_mla
