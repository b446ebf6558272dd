// SPDX-License-Identifier: Apache-2.0
// The compiled kernels that are part of the extension.
#pragma once

#include <cstddef>
#include <vector>

namespace jax_mla {

// One code object: an ELF file for gfx targets, NUL-terminated PTX for sm targets.
struct DeviceCode {
  const char* name;    // of the kernel source
  const char* arch;    // "gfx942", "gfx950", "sm_80", "sm_90a"
  const char* sha256;  // of the bytes, in hexadecimal
  const unsigned char* bytes;
  size_t size;
};

// Empty where the extension was built without device code.
const std::vector<DeviceCode>& EmbeddedDeviceCode();

}  // namespace jax_mla
