// SPDX-License-Identifier: Apache-2.0
// Which of the instruction sets decode runs on.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernel.h"

namespace jax_mla::cpu {

// Names of those that this build has and this machine, best first.
std::vector<std::string> InstructionSets();

// The one to run, the best unless another was chosen; null if there is none.
const Kernel* ChosenKernel();

// Takes the named one from now on, for tests; false if it is not among them.
bool Choose(const std::string& name);

}  // namespace jax_mla::cpu
