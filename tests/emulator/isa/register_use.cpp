// SPDX-License-Identifier: Apache-2.0
// Which registers an instruction touches at once, and which a load writes later.
#include <cstring>

#include "instruction.h"
#include "memory_operation.h"

namespace emu {

void note_registers(Instruction &i) {
  int count = 0;
  auto use = [&](uint16_t first, int dwords) {
    const bool is_register = first < sgpr_end || (first >= vgpr && first < register_end);
    if (is_register && dwords) i.uses[count++] = {first, static_cast<uint8_t>(dwords)};
  };
  const MemoryOperation *memory = i.opcode->memory;
  if (i.opcode->format == Format::SMEM) {
    use(i.scalar_address, std::strstr(i.opcode->mnemonic, "buffer") ? 4 : 2);
    use(i.scalar_offset, 1);
    const bool load =
        std::strstr(i.opcode->mnemonic, "_load_") || std::strstr(i.opcode->mnemonic, "time");
    if (load)
      i.delivers = {i.destination, i.destination_dwords};
    else
      use(i.destination, i.destination_dwords);
    return;
  }
  if (i.queue == Queue::none || !memory) {
    use(i.destination, i.destination_dwords);
    use(i.scalar_destination, 2);
    for (int k = 0; k < i.source_count; k++) use(i.source[k], i.source_dwords[k]);
    for (uint16_t scale : i.scale) use(scale, 1);
    return;
  }
  if (memory->uses_address) use(i.address, i.address_dwords);
  use(i.scalar_address, i.opcode->format == Format::SCRATCH ? 1 : 2);
  use(i.resource, 4);
  use(i.scalar_offset, 1);
  use(i.data, memory->data_dwords);
  use(i.data2, memory->data2_dwords);
  const bool returns = memory->kind == MemoryOperation::load || memory->always_returns ||
                       (memory->kind == MemoryOperation::atomic && i.sc0);
  if (returns && !memory->to_lds && !i.to_lds) i.delivers = {i.destination, memory->result_dwords};
  if (memory->kind == MemoryOperation::local) i.queue = Queue::lds;
}

}  // namespace emu
