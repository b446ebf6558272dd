// SPDX-License-Identifier: Apache-2.0
// Flat, global and scratch instructions.
#include "access.h"
#include "vector_memory.h"

namespace emu {
namespace {

Access access_of(const MemoryOperation &operation) {
  switch (operation.kind) {
    case MemoryOperation::load: return Access::read;
    case MemoryOperation::store: return Access::write;
    default: return Access::read_write;
  }
}

uint64_t lane_address(Wave &wave, const Instruction &i, int l) {
  const uint32_t *low = wave.row(i.address);
  const uint64_t base = i.scalar_address == no_operand ? uint64_t{low[lanes + l]} << 32 | low[l]
                                                       : wave.pair(i.scalar_address) + low[l];
  return base + static_cast<uint64_t>(int64_t{i.immediate});
}

uint8_t *resolve_global(Wave &wave, const Instruction &i, int l) {
  const MemoryOperation &operation = *i.opcode->memory;
  return memory_at(wave, l, lane_address(wave, i, l), operation.bytes, access_of(operation));
}

uint8_t *resolve_flat(Wave &wave, const Instruction &i, int l) {
  const uint64_t address = lane_address(wave, i, l);
  const uint32_t low = static_cast<uint32_t>(address);
  const unsigned bytes = i.opcode->memory->bytes;
  if (address - low == shared_aperture) return lds_at(wave, l, low, bytes);
  if (address - low == private_aperture) return scratch_at(wave, l, low, bytes);
  return resolve_global(wave, i, l);
}

uint8_t *resolve_scratch(Wave &wave, const Instruction &i, int l) {
  uint32_t offset = static_cast<uint32_t>(i.immediate);
  if (i.address != no_operand) offset += wave.row(i.address)[l];
  if (i.scalar_address != no_operand) offset += wave.s[i.scalar_address];
  return scratch_at(wave, l, offset, i.opcode->memory->bytes);
}

template <uint8_t *(*resolve)(Wave &, const Instruction &, int)>
void access_flat(Wave &wave, const Instruction &i) {
  const MemoryOperation &operation = *i.opcode->memory;
  const uint64_t active = wave.exec_mask();
  Pointers pointers;
  for (uint64_t rest = active; rest; rest &= rest - 1) {
    const int l = std::countr_zero(rest);
    pointers[l] = resolve(wave, i, l);
  }
  if (operation.to_lds) {
    const uint32_t mask = wave.workgroup->arch() == Arch::gfx950 ? 0x3ffff : 0xffff;
    const uint32_t base = (wave.s[m0] & mask) + static_cast<uint32_t>(i.immediate);
    return load_lanes_to_lds(wave, operation, base, pointers, active);
  }
  switch (operation.kind) {
    case MemoryOperation::load: return load_lanes(wave, operation, i.destination, pointers, active);
    case MemoryOperation::store: return store_lanes(wave, operation, i.data, pointers, active);
    default: {
      const bool compares = operation.operation == Atomic::compare_swap;
      const unsigned comparand = compares ? i.data + operation.bytes / 4u : unsigned{no_operand};
      atomic_lanes(wave, operation, i.data, comparand, i.destination, i.sc0, pointers, active);
    }
  }
}

}  // namespace

void add_flat(Bindings &b) {
  add_loads_and_stores(b, "flat_", access_flat<resolve_flat>);
  add_atomics(b, "flat_", access_flat<resolve_flat>);
  add_loads_and_stores(b, "global_", access_flat<resolve_global>);
  add_atomics(b, "global_", access_flat<resolve_global>);
  add_loads_to_lds(b, "global_", access_flat<resolve_global>);
  add_loads_and_stores(b, "scratch_", access_flat<resolve_scratch>);
  add_loads_to_lds(b, "scratch_", access_flat<resolve_scratch>);
}

}  // namespace emu
