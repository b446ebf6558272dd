// SPDX-License-Identifier: Apache-2.0
// Finds the code object for the emulated GPU in what is handed to HIP as an image.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hip {

// `image` is an ELF file, clang's offload bundle or its compressed form. Empty, with the reason in
// `why`, if it holds nothing for `target`, such as "gfx942:sramecc+:xnack-".
std::vector<uint8_t> find_code_object(const void* image, const std::string& target,
                                      std::string* why);

}  // namespace hip
