// SPDX-License-Identifier: Apache-2.0
#include "cpu/dispatch.h"

#include <atomic>

namespace jax_mla::cpu {
namespace {

struct Named {
  const char* name;
  const Kernel* kernel;
};

const std::vector<Named>& Supported() {
  static const std::vector<Named> supported = [] {
    std::vector<Named> found;
#ifdef JAX_MLA_X86_64
    __builtin_cpu_init();
    const auto has = [](bool feature, const char* name, const Kernel& kernel,
                        std::vector<Named>& list) {
      if (feature) list.push_back({name, &kernel});
    };
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    has(avx512 && __builtin_cpu_supports("avx512bf16"), "avx512_bf16", kAvx512Bf16, found);
    has(avx512, "avx512", kAvx512, found);
    has(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
            __builtin_cpu_supports("f16c"),
        "avx2", kAvx2, found);
#endif
    return found;
  }();
  return supported;
}

std::atomic<const Kernel*>& Chosen() {
  static std::atomic<const Kernel*> chosen{Supported().empty() ? nullptr
                                                               : Supported().front().kernel};
  return chosen;
}

}  // namespace

std::vector<std::string> InstructionSets() {
  std::vector<std::string> names;
  for (const Named& named : Supported()) names.push_back(named.name);
  return names;
}

const Kernel* ChosenKernel() { return Chosen(); }

bool Choose(const std::string& name) {
  for (const Named& named : Supported()) {
    if (name != named.name) continue;
    Chosen() = named.kernel;
    return true;
  }
  return false;
}

}  // namespace jax_mla::cpu
