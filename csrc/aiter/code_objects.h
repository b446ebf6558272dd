// SPDX-License-Identifier: Apache-2.0
// AITER's code objects that jax_mla/aiter.py found and trusts, by their SHA-256.
#pragma once

#include <string>
#include <string_view>

#include "gpu/device_code.h"

namespace jax_mla::aiter {

struct CodeObject {
  DeviceCode code;
  const char* symbol;  // of its only kernel
};

// Adds one for the rest of the process; a second one of the same hash is ignored.
void AddCodeObject(const std::string& sha256, const std::string& file, const std::string& arch,
                   const std::string& symbol, std::string_view content);

// Null if there is none of this hash.
const CodeObject* FindCodeObject(std::string_view sha256);

}  // namespace jax_mla::aiter
