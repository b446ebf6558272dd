// SPDX-License-Identifier: Apache-2.0
// LDS instructions, and those that move data between lanes through the LDS hardware.
#include <deque>

#include "access.h"
#include "error.h"
#include "handlers.h"

namespace emu {
namespace {

void require_lds(const Wave &wave, const Instruction &i) {
  if (i.gds) fault(wave, "GDS is not implemented");
}

// The bytes at `offset` from each active lane's address.
void address_lanes(Wave &wave, const Instruction &i, uint32_t offset, unsigned bytes,
                   Pointers &pointers) {
  const uint32_t *address = wave.row(i.address);
  for (uint64_t active = wave.exec_mask(); active; active &= active - 1) {
    const int l = std::countr_zero(active);
    pointers[l] = lds_at(wave, l, address[l] + offset, bytes);
  }
}

uint32_t element_offset(const MemoryOperation &operation, uint8_t offset) {
  return uint32_t{offset} * operation.bytes * (operation.stride64 ? 64 : 1);
}

void read(Wave &wave, const Instruction &i) {
  const MemoryOperation &operation = *i.opcode->memory;
  require_lds(wave, i);
  Pointers pointers;
  if (!operation.two) {
    address_lanes(wave, i, static_cast<uint32_t>(i.immediate), operation.bytes, pointers);
    return load_lanes(wave, operation, i.destination, pointers, wave.exec_mask());
  }
  // The destination may be the address: form both addresses first.
  Pointers second;
  address_lanes(wave, i, element_offset(operation, i.offset0), operation.bytes, pointers);
  address_lanes(wave, i, element_offset(operation, i.offset1), operation.bytes, second);
  load_lanes(wave, operation, i.destination, pointers, wave.exec_mask());
  load_lanes(wave, operation, i.destination + operation.bytes / 4, second, wave.exec_mask());
}

void write(Wave &wave, const Instruction &i) {
  const MemoryOperation &operation = *i.opcode->memory;
  require_lds(wave, i);
  Pointers pointers;
  const uint32_t first =
      operation.two ? element_offset(operation, i.offset0) : static_cast<uint32_t>(i.immediate);
  address_lanes(wave, i, first, operation.bytes, pointers);
  store_lanes(wave, operation, i.data, pointers, wave.exec_mask());
  if (!operation.two) return;
  address_lanes(wave, i, element_offset(operation, i.offset1), operation.bytes, pointers);
  store_lanes(wave, operation, i.data2, pointers, wave.exec_mask());
}

void atomic(Wave &wave, const Instruction &i) {
  const MemoryOperation &operation = *i.opcode->memory;
  require_lds(wave, i);
  Pointers pointers;
  address_lanes(wave, i, static_cast<uint32_t>(i.immediate), operation.bytes, pointers);
  // ds_cmpst: data is the comparand and data2 the new value. ds_mskor: data is the mask.
  const bool compares = operation.operation == Atomic::compare_swap ||
                        operation.operation == Atomic::float_compare_swap;
  const unsigned source = compares ? i.data2 : i.data;
  const unsigned second = compares                 ? i.data
                          : operation.data2_dwords ? i.data2
                                                   : unsigned{no_operand};
  atomic_lanes(wave, operation, source, second, i.destination, operation.always_returns, pointers,
               wave.exec_mask());
}

// Each of 16 lanes fetches a line of a block of small elements; the block comes back transposed.
template <int element_bits, int line_bytes>
void read_transposed(Wave &wave, const Instruction &i) {
  constexpr int per_lane = line_bytes * 8 / element_bits, lanes_per_line = 16 / per_lane;
  static_assert(16 % per_lane == 0);
  Pointers pointers;
  const uint64_t active = wave.exec_mask();
  address_lanes(wave, i, static_cast<uint32_t>(i.immediate), line_bytes, pointers);
  uint64_t line[lanes] = {};
  for (int l = 0; l < lanes; l++) {
    if (!(active >> l & 1)) continue;
    if ((pointers[l] - wave.workgroup->lds.data()) % line_bytes)
      fault(wave, "misaligned address of a transposing LDS read", l);
    note_read(wave, l, pointers[l], line_bytes);
    std::memcpy(&line[l], pointers[l], line_bytes);
  }
  Row low, high;
  for (int l = 0; l < lanes; l++) {
    const int column = l & 15, group = l & ~15;
    uint64_t value = 0;
    for (int j = 0; j < per_lane; j++) {
      const uint64_t from = line[group + lanes_per_line * j + column / per_lane];
      const uint64_t element =
          from >> (element_bits * (column % per_lane)) & ((1ull << element_bits) - 1);
      value |= element << (element_bits * j);
    }
    low[l] = static_cast<uint32_t>(value);
    high[l] = static_cast<uint32_t>(value >> 32);
  }
  store_row(wave, i.destination, low.lane, active);
  store_row(wave, i.destination + 1, high.lane, active);
}

void permute_backward(Wave &wave, const Instruction &i) {  // each lane pulls
  const uint32_t *address = wave.row(i.address), *data = wave.row(i.data);
  const uint64_t active = wave.exec_mask();
  Row result;
  for (int l = 0; l < lanes; l++) {
    const int from = static_cast<int>((address[l] + static_cast<uint32_t>(i.immediate)) >> 2 & 63);
    result[l] = active >> from & 1 ? data[from] : 0;
  }
  store_row(wave, i.destination, result.lane, active);
}

void permute_forward(Wave &wave, const Instruction &i) {  // each lane pushes
  const uint32_t *address = wave.row(i.address), *data = wave.row(i.data);
  const uint64_t active = wave.exec_mask();
  Row result{};
  for (int l = 0; l < lanes; l++)
    if (active >> l & 1)
      result[(address[l] + static_cast<uint32_t>(i.immediate)) >> 2 & 63] = data[l];
  store_row(wave, i.destination, result.lane, active);
}

int swizzle_source(uint32_t control, int lane) {
  if (control & 0x8000) return (lane & ~3) | static_cast<int>(control >> (2 * (lane & 3)) & 3);
  const int and_mask = control & 31, or_mask = control >> 5 & 31, xor_mask = control >> 10 & 31;
  return (lane & 32) | ((((lane & 31) & and_mask) | or_mask) ^ xor_mask);
}

void swizzle(Wave &wave, const Instruction &i) {
  const uint32_t *data = wave.row(i.address);
  const uint64_t active = wave.exec_mask();
  Row result;
  for (int l = 0; l < lanes; l++) {
    const int from = swizzle_source(static_cast<uint32_t>(i.immediate), l);
    result[l] = active >> from & 1 ? data[from] : 0;
  }
  store_row(wave, i.destination, result.lane, active);
}

using Operation = MemoryOperation;

const Operation *keep(Operation operation) {
  static std::deque<Operation> kept;
  return &kept.emplace_back(operation);
}

void add_read(Bindings &b, const std::string &name, Operation operation, Handler handler = read) {
  operation.kind = Operation::load;
  operation.always_returns = true;
  operation.result_dwords =
      static_cast<uint8_t>((operation.bytes + 3) / 4 * (operation.two ? 2 : 1));
  b.add("ds_read" + name, {handler, keep(operation)});
}

void add_write(Bindings &b, const std::string &name, Operation operation) {
  operation.kind = Operation::store;
  operation.data_dwords = static_cast<uint8_t>((operation.bytes + 3) / 4);
  operation.data2_dwords = operation.two ? operation.data_dwords : 0;
  b.add("ds_write" + name, {write, keep(operation)});
}

void add_atomic(Bindings &b, const std::string &name, const std::string &type, Atomic operation,
                uint8_t bytes, bool two_operands = false) {
  Operation memory{.kind = Operation::atomic, .bytes = bytes, .operation = operation};
  memory.data_dwords = bytes / 4;
  memory.data2_dwords = two_operands ? bytes / 4 : 0;
  memory.result_dwords = bytes / 4;
  // The exchange only exists with a return value.
  if (operation != Atomic::swap) b.add("ds_" + name + "_" + type, {atomic, keep(memory)});
  memory.always_returns = true;
  b.add("ds_" + name + "_rtn_" + type, {atomic, keep(memory)});
}

void add_atomics(Bindings &b) {
  for (uint8_t bytes : {uint8_t{4}, uint8_t{8}}) {
    const std::string bits = bytes == 4 ? "32" : "64";
    add_atomic(b, "add", "u" + bits, Atomic::add, bytes);
    add_atomic(b, "sub", "u" + bits, Atomic::subtract, bytes);
    add_atomic(b, "rsub", "u" + bits, Atomic::reverse_subtract, bytes);
    add_atomic(b, "inc", "u" + bits, Atomic::increment, bytes);
    add_atomic(b, "dec", "u" + bits, Atomic::decrement, bytes);
    add_atomic(b, "min", "i" + bits, Atomic::signed_min, bytes);
    add_atomic(b, "max", "i" + bits, Atomic::signed_max, bytes);
    add_atomic(b, "min", "u" + bits, Atomic::unsigned_min, bytes);
    add_atomic(b, "max", "u" + bits, Atomic::unsigned_max, bytes);
    add_atomic(b, "and", "b" + bits, Atomic::bit_and, bytes);
    add_atomic(b, "or", "b" + bits, Atomic::bit_or, bytes);
    add_atomic(b, "xor", "b" + bits, Atomic::bit_xor, bytes);
    add_atomic(b, "mskor", "b" + bits, Atomic::masked_or, bytes, true);
    add_atomic(b, "cmpst", "b" + bits, Atomic::compare_swap, bytes, true);
    add_atomic(b, "cmpst", "f" + bits, Atomic::float_compare_swap, bytes, true);
    add_atomic(b, "wrxchg", "b" + bits, Atomic::swap, bytes);
    add_atomic(b, "add", "f" + bits, Atomic::float_add, bytes);
    add_atomic(b, "min", "f" + bits, Atomic::float_min, bytes);
    add_atomic(b, "max", "f" + bits, Atomic::float_max, bytes);
  }
  add_atomic(b, "pk_add", "f16", Atomic::packed_half_add, 4);
  add_atomic(b, "pk_add", "bf16", Atomic::packed_bfloat_add, 4);
}

}  // namespace

void add_lds(Bindings &b) {
  add_read(b, "_b32", {.bytes = 4});
  add_read(b, "_b64", {.bytes = 8});
  add_read(b, "_b96", {.bytes = 12});
  add_read(b, "_b128", {.bytes = 16});
  add_read(b, "_i8", {.bytes = 1, .sign_extend = true});
  add_read(b, "_u8", {.bytes = 1});
  add_read(b, "_i16", {.bytes = 2, .sign_extend = true});
  add_read(b, "_u16", {.bytes = 2});
  add_read(b, "_u8_d16", {.bytes = 1, .half_register = true});
  add_read(b, "_u8_d16_hi", {.bytes = 1, .half_register = true, .high = true});
  add_read(b, "_i8_d16", {.bytes = 1, .sign_extend = true, .half_register = true});
  add_read(b, "_i8_d16_hi", {.bytes = 1, .sign_extend = true, .half_register = true, .high = true});
  add_read(b, "_u16_d16", {.bytes = 2, .half_register = true});
  add_read(b, "_u16_d16_hi", {.bytes = 2, .half_register = true, .high = true});
  add_read(b, "2_b32", {.bytes = 4, .two = true});
  add_read(b, "2_b64", {.bytes = 8, .two = true});
  add_read(b, "2st64_b32", {.bytes = 4, .two = true, .stride64 = true});
  add_read(b, "2st64_b64", {.bytes = 8, .two = true, .stride64 = true});
  add_read(b, "_b64_tr_b4", {.bytes = 8}, read_transposed<4, 8>);
  add_read(b, "_b64_tr_b8", {.bytes = 8}, read_transposed<8, 8>);
  add_read(b, "_b64_tr_b16", {.bytes = 8}, read_transposed<16, 8>);
  add_write(b, "_b32", {.bytes = 4});
  add_write(b, "_b64", {.bytes = 8});
  add_write(b, "_b96", {.bytes = 12});
  add_write(b, "_b128", {.bytes = 16});
  add_write(b, "_b8", {.bytes = 1});
  add_write(b, "_b16", {.bytes = 2});
  add_write(b, "_b8_d16_hi", {.bytes = 1, .high = true});
  add_write(b, "_b16_d16_hi", {.bytes = 2, .high = true});
  add_write(b, "2_b32", {.bytes = 4, .two = true});
  add_write(b, "2_b64", {.bytes = 8, .two = true});
  add_write(b, "2st64_b32", {.bytes = 4, .two = true, .stride64 = true});
  add_write(b, "2st64_b64", {.bytes = 8, .two = true, .stride64 = true});
  add_atomics(b);
  const Operation between_lanes{
      .kind = Operation::local, .always_returns = true, .data_dwords = 1, .result_dwords = 1};
  b.add("ds_bpermute_b32", {permute_backward, keep(between_lanes)});
  b.add("ds_permute_b32", {permute_forward, keep(between_lanes)});
  Operation of_address = between_lanes;
  of_address.data_dwords = 0;
  b.add("ds_swizzle_b32", {swizzle, keep(of_address)});
  b.add("ds_nop", [](Wave &, const Instruction &) {});
}

}  // namespace emu
