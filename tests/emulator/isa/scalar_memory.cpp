// SPDX-License-Identifier: Apache-2.0
// Scalar loads and stores.
#include "access.h"
#include "error.h"
#include "handlers.h"

namespace emu {
namespace {

int64_t offset_of(const Wave &wave, const Instruction &i) {
  int64_t offset = i.immediate;
  if (i.scalar_offset != no_operand) offset += read_scalar(wave, i.scalar_offset, 0);
  return offset;
}

// The hardware drops the low two bits of an address; nobody means that.
void require_alignment(const Wave &wave, uint64_t address) {
  if (address & 3) fault_at(wave, "misaligned scalar access", -1, address);
}

void load(Wave &wave, const Instruction &i) {
  const uint64_t address = wave.pair(i.scalar_address) + static_cast<uint64_t>(offset_of(wave, i));
  require_alignment(wave, address);
  const unsigned bytes = i.destination_dwords * 4u;
  const uint8_t *p = memory_at(wave, -1, address, bytes, Access::read);
  note_read(wave, -1, p, bytes);
  std::memcpy(wave.s + i.destination, p, bytes);
}

void store(Wave &wave, const Instruction &i) {
  const uint64_t address = wave.pair(i.scalar_address) + static_cast<uint64_t>(offset_of(wave, i));
  require_alignment(wave, address);
  const unsigned bytes = i.destination_dwords * 4u;
  std::memcpy(memory_at(wave, -1, address, bytes, Access::write), wave.s + i.destination, bytes);
}

void load_buffer(Wave &wave, const Instruction &i) {
  const uint32_t *descriptor = wave.s + i.scalar_address;
  const uint64_t base = descriptor[0] | uint64_t{descriptor[1] & 0xffff} << 32;
  const uint64_t stride = descriptor[1] >> 16 & 0x3fff;
  const uint64_t limit = stride ? stride * descriptor[2] : descriptor[2];
  uint32_t value[16] = {};
  for (unsigned k = 0; k < i.destination_dwords; k++) {
    const uint64_t offset = static_cast<uint64_t>(offset_of(wave, i)) + 4 * k;
    require_alignment(wave, base + offset);
    if (offset + 4 > limit) {
      wave.workgroup->counters->clipped_reads++;
      continue;
    }
    const uint8_t *p = memory_at(wave, -1, base + offset, 4, Access::read);
    note_read(wave, -1, p, 4);
    std::memcpy(&value[k], p, 4);
  }
  std::memcpy(wave.s + i.destination, value, i.destination_dwords * 4u);
}

}  // namespace

void add_scalar_memory(Bindings &b) {
  for (const std::string width : {"", "x2", "x4", "x8", "x16"}) {
    b.add("s_load_dword" + width, load);
    b.add("s_buffer_load_dword" + width, load_buffer);
  }
  for (const std::string width : {"", "x2", "x4"}) b.add("s_store_dword" + width, store);
  // Time is not modelled: a clock that ticks with the instructions is enough to make progress.
  for (auto name : {"s_memtime", "s_memrealtime"})
    b.add(name, [](Wave &wave, const Instruction &i) {
      wave.set_pair(i.destination, 4 * wave.executed);
    });
  for (auto name : {"s_dcache_inv", "s_dcache_wb", "s_dcache_inv_vol", "s_dcache_wb_vol"})
    b.add(name, [](Wave &, const Instruction &) {});
}

}  // namespace emu
