// SPDX-License-Identifier: Apache-2.0
// Compiled by clang with a source of csrc/kernels as JAX_MLA_SOURCE.
#include JAX_MLA_SOURCE

namespace jax_mla {
namespace {

alignas(1024) u8 dynamic_shared[kSm90SharedBytes];

struct Call {
  void (*kernel)(DecodeSm90Arguments);
  const DecodeSm90Arguments* arguments;
};

}  // namespace
}  // namespace jax_mla

extern "C" EXPORTED const char* JAX_MLA_LAUNCH(
    void (*kernel)(jax_mla::DecodeSm90Arguments), const jax_mla::DecodeSm90Arguments* arguments,
    const unsigned* grid, unsigned seed) {
  jax_mla::Call call = {kernel, arguments};
  const auto body = [](void* x) {
    const auto& mine = *static_cast<jax_mla::Call*>(x);
    mine.kernel(*mine.arguments);
  };
  return machine::launch(body, &call, grid, JAX_MLA_THREADS, seed,
                         reinterpret_cast<char*>(jax_mla::dynamic_shared),
                         sizeof(jax_mla::dynamic_shared));
}

// libgcc has it from version 13 on.
extern "C" __attribute__((weak)) __bf16 __truncsfbf2(float x) {
  const auto bits = __builtin_bit_cast(unsigned, x);
  const unsigned rounded = x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return __builtin_bit_cast(__bf16, static_cast<unsigned short>(rounded));
}
