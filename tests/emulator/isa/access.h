// SPDX-License-Identifier: Apache-2.0
// What all memory instructions share: address checks, and moving data between lanes and memory.
#pragma once
#include "memory_operation.h"
#include "operands.h"

namespace emu {

// The bytes that each active lane addresses; null: nothing there, reads as zero, writes are
// dropped.
using Pointers = uint8_t *[lanes];

enum class Access : uint8_t { read, write, read_write };

// A checked host pointer for one lane (`lane` < 0: a scalar access).
uint8_t *memory_at(Wave &wave, int lane, uint64_t address, unsigned bytes, Access access);
uint8_t *lds_at(Wave &wave, int lane, uint32_t address, unsigned bytes);
uint8_t *scratch_at(Wave &wave, int lane, uint32_t offset, unsigned bytes);

void load_lanes(Wave &wave, const MemoryOperation &operation, unsigned destination,
                const Pointers &pointers, uint64_t active);
void store_lanes(Wave &wave, const MemoryOperation &operation, unsigned source,
                 const Pointers &pointers, uint64_t active);
// One read-modify-write a lane; `comparand` is a register or no_operand.
void atomic_lanes(Wave &wave, const MemoryOperation &operation, unsigned source, unsigned comparand,
                  unsigned destination, bool returns, const Pointers &pointers, uint64_t active);
// Data from memory straight to LDS: lane l writes at `lds_address` + l * the size of an element.
void load_lanes_to_lds(Wave &wave, const MemoryOperation &operation, uint32_t lds_address,
                       const Pointers &pointers, uint64_t active);

// For the shadows of LDS and memory: `lane` is about to read, or has chosen what to write.
void note_read(Wave &wave, int lane, const uint8_t *p, unsigned bytes);
void note_write(Wave &wave, int lane, const uint8_t *p, unsigned bytes, const void *data,
                RaceShadow::Stamp stamp);
RaceShadow::Stamp begin_write(Wave &wave);

}  // namespace emu
