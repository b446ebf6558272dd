// SPDX-License-Identifier: Apache-2.0
// The table of loads, stores and atomics.
#include "vector_memory.h"

#include <iterator>

namespace emu {
namespace {

using Operation = MemoryOperation;

struct Named {
  const char *name;
  Operation operation;
};

constexpr Operation load(uint8_t bytes, bool sign_extend = false) {
  return {.bytes = bytes,
          .sign_extend = sign_extend,
          .result_dwords = static_cast<uint8_t>((bytes + 3) / 4)};
}
constexpr Operation load_half(uint8_t bytes, bool sign_extend, bool high) {
  return {.bytes = bytes,
          .sign_extend = sign_extend,
          .half_register = true,
          .high = high,
          .result_dwords = 1};
}
constexpr Operation store(uint8_t bytes, bool high = false) {
  return {.kind = Operation::store,
          .bytes = bytes,
          .high = high,
          .data_dwords = static_cast<uint8_t>((bytes + 3) / 4)};
}
constexpr Operation load_to_lds(uint8_t bytes, bool sign_extend = false) {
  return {.bytes = bytes, .sign_extend = sign_extend, .to_lds = true};
}
constexpr Operation atomic(Atomic operation, uint8_t bytes) {
  const bool compares = operation == Atomic::compare_swap;
  return {.kind = Operation::atomic,
          .bytes = bytes,
          .operation = operation,
          .data_dwords = static_cast<uint8_t>(bytes / 4 * (compares ? 2 : 1)),
          .result_dwords = static_cast<uint8_t>(bytes / 4)};
}

constexpr Named loads_and_stores[] = {
    {"load_ubyte", load(1)},
    {"load_sbyte", load(1, true)},
    {"load_ushort", load(2)},
    {"load_sshort", load(2, true)},
    {"load_dword", load(4)},
    {"load_dwordx2", load(8)},
    {"load_dwordx3", load(12)},
    {"load_dwordx4", load(16)},
    {"load_ubyte_d16", load_half(1, false, false)},
    {"load_ubyte_d16_hi", load_half(1, false, true)},
    {"load_sbyte_d16", load_half(1, true, false)},
    {"load_sbyte_d16_hi", load_half(1, true, true)},
    {"load_short_d16", load_half(2, false, false)},
    {"load_short_d16_hi", load_half(2, false, true)},
    {"store_byte", store(1)},
    {"store_byte_d16_hi", store(1, true)},
    {"store_short", store(2)},
    {"store_short_d16_hi", store(2, true)},
    {"store_dword", store(4)},
    {"store_dwordx2", store(8)},
    {"store_dwordx3", store(12)},
    {"store_dwordx4", store(16)},
};

constexpr Named to_lds[] = {
    {"load_lds_ubyte", load_to_lds(1)},    {"load_lds_sbyte", load_to_lds(1, true)},
    {"load_lds_ushort", load_to_lds(2)},   {"load_lds_sshort", load_to_lds(2, true)},
    {"load_lds_dword", load_to_lds(4)},    {"load_lds_dwordx3", load_to_lds(12)},
    {"load_lds_dwordx4", load_to_lds(16)},
};

constexpr Named atomics[] = {
    {"atomic_swap", atomic(Atomic::swap, 4)},
    {"atomic_cmpswap", atomic(Atomic::compare_swap, 4)},
    {"atomic_add", atomic(Atomic::add, 4)},
    {"atomic_sub", atomic(Atomic::subtract, 4)},
    {"atomic_smin", atomic(Atomic::signed_min, 4)},
    {"atomic_umin", atomic(Atomic::unsigned_min, 4)},
    {"atomic_smax", atomic(Atomic::signed_max, 4)},
    {"atomic_umax", atomic(Atomic::unsigned_max, 4)},
    {"atomic_and", atomic(Atomic::bit_and, 4)},
    {"atomic_or", atomic(Atomic::bit_or, 4)},
    {"atomic_xor", atomic(Atomic::bit_xor, 4)},
    {"atomic_inc", atomic(Atomic::increment, 4)},
    {"atomic_dec", atomic(Atomic::decrement, 4)},
    {"atomic_add_f32", atomic(Atomic::float_add, 4)},
    {"atomic_pk_add_f16", atomic(Atomic::packed_half_add, 4)},
    {"atomic_pk_add_bf16", atomic(Atomic::packed_bfloat_add, 4)},
    {"atomic_swap_x2", atomic(Atomic::swap, 8)},
    {"atomic_cmpswap_x2", atomic(Atomic::compare_swap, 8)},
    {"atomic_add_x2", atomic(Atomic::add, 8)},
    {"atomic_sub_x2", atomic(Atomic::subtract, 8)},
    {"atomic_smin_x2", atomic(Atomic::signed_min, 8)},
    {"atomic_umin_x2", atomic(Atomic::unsigned_min, 8)},
    {"atomic_smax_x2", atomic(Atomic::signed_max, 8)},
    {"atomic_umax_x2", atomic(Atomic::unsigned_max, 8)},
    {"atomic_and_x2", atomic(Atomic::bit_and, 8)},
    {"atomic_or_x2", atomic(Atomic::bit_or, 8)},
    {"atomic_xor_x2", atomic(Atomic::bit_xor, 8)},
    {"atomic_inc_x2", atomic(Atomic::increment, 8)},
    {"atomic_dec_x2", atomic(Atomic::decrement, 8)},
    {"atomic_add_f64", atomic(Atomic::float_add, 8)},
    {"atomic_min_f64", atomic(Atomic::float_min, 8)},
    {"atomic_max_f64", atomic(Atomic::float_max, 8)},
};

template <size_t count>
void add(Bindings &b, const std::string &prefix, const Named (&list)[count], Handler handler) {
  for (const Named &named : list) b.add(prefix + named.name, {handler, &named.operation});
}

}  // namespace

void add_loads_and_stores(Bindings &b, const std::string &prefix, Handler handler) {
  add(b, prefix, loads_and_stores, handler);
}
void add_loads_to_lds(Bindings &b, const std::string &prefix, Handler handler) {
  add(b, prefix, to_lds, handler);
}
void add_atomics(Bindings &b, const std::string &prefix, Handler handler) {
  add(b, prefix, atomics, handler);
}

}  // namespace emu
