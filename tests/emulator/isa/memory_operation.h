// SPDX-License-Identifier: Apache-2.0
// What a memory instruction moves, apart from how it forms its addresses.
#pragma once
#include <cstdint>

namespace emu {

enum class Atomic : uint8_t {
  none,
  swap,
  compare_swap,
  float_compare_swap,
  add,
  subtract,
  reverse_subtract,
  signed_min,
  unsigned_min,
  signed_max,
  unsigned_max,
  bit_and,
  bit_or,
  bit_xor,
  masked_or,
  increment,
  decrement,
  float_add,
  float_min,
  float_max,
  packed_half_add,
  packed_bfloat_add
};

struct MemoryOperation {
  enum Kind : uint8_t { load, store, atomic, local } kind = load;  // local: lanes among themselves
  uint8_t bytes = 4;  // of one access of a lane
  bool sign_extend = false;  // of a byte or a short
  bool half_register = false;  // d16: keeps the other half of the destination
  bool high = false;  // the high half
  bool to_lds = false;  // the data goes to LDS
  bool two = false;  // two accesses a lane, at offset0 and offset1
  bool stride64 = false;  // whose offsets count 64 elements
  bool always_returns = false;
  bool uses_address = true;
  Atomic operation = Atomic::none;
  uint8_t data_dwords = 0, data2_dwords = 0, result_dwords = 0;
};

}  // namespace emu
