// SPDX-License-Identifier: Apache-2.0
// Moves data between the lanes of registers and the bytes they address.
#include "access.h"
#include "atomics.h"
#include "error.h"

namespace emu {
namespace {

template <class F>
void for_lanes(uint64_t active, F visit) {
  for (; active; active &= active - 1) visit(std::countr_zero(active));
}

template <int dwords>
void load_dwords(Wave &wave, unsigned destination, const Pointers &pointers, uint64_t active) {
  uint32_t *row = wave.row(destination);
  for_lanes(active, [&](int l) {
    uint32_t value[dwords] = {};
    if (pointers[l]) std::memcpy(value, pointers[l], sizeof value);
    for (int k = 0; k < dwords; k++) row[k * lanes + l] = value[k];
  });
}

uint32_t load_small(const MemoryOperation &operation, const uint8_t *p) {
  if (!p) return 0;
  if (operation.bytes == 1)
    return operation.sign_extend ? static_cast<uint32_t>(static_cast<int8_t>(*p)) : *p;
  uint16_t half;
  std::memcpy(&half, p, 2);
  return operation.sign_extend ? static_cast<uint32_t>(static_cast<int16_t>(half)) : half;
}

void load_small_lanes(Wave &wave, const MemoryOperation &operation, unsigned destination,
                      const Pointers &pointers, uint64_t active) {
  uint32_t *row = wave.row(destination);
  for_lanes(active, [&](int l) {
    const uint32_t value = load_small(operation, pointers[l]);
    if (!operation.half_register)
      row[l] = value;
    else if (operation.high)
      row[l] = (row[l] & 0xffff) | value << 16;
    else
      row[l] = (row[l] & 0xffff0000u) | (value & 0xffff);
  });
}

template <int dwords>
void store_dwords(Wave &wave, unsigned source, const Pointers &pointers, uint64_t active) {
  const uint32_t *row = wave.row(source);
  const RaceShadow::Stamp stamp = begin_write(wave);
  for_lanes(active, [&](int l) {
    if (!pointers[l]) return;
    uint32_t value[dwords];
    for (int k = 0; k < dwords; k++) value[k] = row[k * lanes + l];
    note_write(wave, l, pointers[l], sizeof value, value, stamp);
    std::memcpy(pointers[l], value, sizeof value);
  });
}

void store_small_lanes(Wave &wave, const MemoryOperation &operation, unsigned source,
                       const Pointers &pointers, uint64_t active) {
  const uint32_t *row = wave.row(source);
  const RaceShadow::Stamp stamp = begin_write(wave);
  for_lanes(active, [&](int l) {
    if (!pointers[l]) return;
    const uint32_t value = operation.high ? row[l] >> 16 : row[l];
    note_write(wave, l, pointers[l], operation.bytes, &value, stamp);
    std::memcpy(pointers[l], &value, operation.bytes);
  });
}

template <class T>
void atomic_of(Wave &wave, const MemoryOperation &operation, unsigned source, unsigned comparand,
               unsigned destination, bool returns, const Pointers &pointers, uint64_t active) {
  constexpr int dwords = sizeof(T) / 4;
  const auto apply = atomic_function<T>(operation.operation);
  auto operand = [&](unsigned first, int l) {
    T value = wave.row(first)[l];
    if constexpr (dwords == 2) value |= static_cast<T>(wave.row(first + 1)[l]) << 32;
    return value;
  };
  const RaceShadow::Stamp stamp = begin_write(wave);
  for_lanes(active, [&](int l) {
    T old = 0;
    if (pointers[l]) {
      if (reinterpret_cast<uintptr_t>(pointers[l]) % sizeof(T))
        fault_at(wave, format("misaligned %zu-byte atomic", sizeof(T)), l,
                 reinterpret_cast<uint64_t>(pointers[l]));
      note_read(wave, l, pointers[l], sizeof(T));
      note_write(wave, l, pointers[l], sizeof(T), nullptr, stamp);
      const T second = comparand == no_operand ? 0 : operand(comparand, l);
      old = modify(reinterpret_cast<T *>(pointers[l]), apply, operand(source, l), second);
    }
    if (!returns) return;
    wave.row(destination)[l] = static_cast<uint32_t>(old);
    if constexpr (dwords == 2) wave.row(destination + 1)[l] = static_cast<uint32_t>(old >> 32);
  });
}

void note_reads(Wave &wave, const MemoryOperation &operation, const Pointers &pointers,
                uint64_t active) {
  if (!wave.workgroup->launch->checks.any_shadow()) return;
  for_lanes(active, [&](int l) {
    if (pointers[l]) note_read(wave, l, pointers[l], operation.bytes);
  });
}

}  // namespace

void load_lanes(Wave &wave, const MemoryOperation &operation, unsigned destination,
                const Pointers &pointers, uint64_t active) {
  note_reads(wave, operation, pointers, active);
  switch (operation.bytes) {
    case 4: return load_dwords<1>(wave, destination, pointers, active);
    case 8: return load_dwords<2>(wave, destination, pointers, active);
    case 12: return load_dwords<3>(wave, destination, pointers, active);
    case 16: return load_dwords<4>(wave, destination, pointers, active);
  }
  load_small_lanes(wave, operation, destination, pointers, active);
}

void store_lanes(Wave &wave, const MemoryOperation &operation, unsigned source,
                 const Pointers &pointers, uint64_t active) {
  switch (operation.bytes) {
    case 4: return store_dwords<1>(wave, source, pointers, active);
    case 8: return store_dwords<2>(wave, source, pointers, active);
    case 12: return store_dwords<3>(wave, source, pointers, active);
    case 16: return store_dwords<4>(wave, source, pointers, active);
  }
  store_small_lanes(wave, operation, source, pointers, active);
}

void atomic_lanes(Wave &wave, const MemoryOperation &operation, unsigned source, unsigned comparand,
                  unsigned destination, bool returns, const Pointers &pointers, uint64_t active) {
  if (operation.bytes == 8)
    return atomic_of<uint64_t>(wave, operation, source, comparand, destination, returns, pointers,
                               active);
  atomic_of<uint32_t>(wave, operation, source, comparand, destination, returns, pointers, active);
}

void load_lanes_to_lds(Wave &wave, const MemoryOperation &operation, uint32_t lds_address,
                       const Pointers &pointers, uint64_t active) {
  const unsigned size = operation.bytes < 4 ? 4 : operation.bytes;
  if (lds_address % 4)
    fault(wave, format("misaligned LDS address 0x%x of a load to LDS", lds_address));
  note_reads(wave, operation, pointers, active);
  const RaceShadow::Stamp stamp = begin_write(wave);
  for_lanes(active, [&](int l) {
    uint8_t *target = lds_at(wave, l, lds_address + size * static_cast<unsigned>(l), size);
    uint32_t value[4] = {};
    if (operation.bytes < 4)
      value[0] = load_small(operation, pointers[l]);
    else if (pointers[l])
      std::memcpy(value, pointers[l], operation.bytes);
    note_write(wave, l, target, size, value, stamp);
    std::memcpy(target, value, size);
  });
}

}  // namespace emu
