// SPDX-License-Identifier: Apache-2.0
// A decoded instruction, and the table row of its opcode.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

enum class Arch { gfx942, gfx950 };

enum class Format : uint8_t {
  SOP2,
  SOPK,
  SOP1,
  SOPC,
  SOPP,
  SMEM,
  VOP2,
  VOP1,
  VOPC,
  VOP3,
  VOP3P,
  VOP3PX2,
  DS,
  MUBUF,
  MTBUF,
  FLAT,
  SCRATCH,
  GLOBAL,
  count
};

// What the counters call it. "control" is what neither computes nor moves data: waits, barriers.
enum class Family : uint8_t {
  scalar,
  branch,
  vector,
  matrix,
  lds,
  vector_memory,
  scalar_memory,
  control,
  count
};

// The counters that s_waitcnt waits for. FLAT may go to LDS or to memory and counts in both.
enum class Queue : uint8_t { none, vector_memory, lds, scalar_memory, flat };

struct Wave;
struct Instruction;
struct MemoryOperation;
struct MatrixShape;

using Handler = void (*)(Wave &, const Instruction &);

struct Opcode {
  const char *mnemonic;
  Format format;
  Family family;
  uint8_t dwords[4];  // of the first four operands, in the order in which they are printed
  Handler execute;    // null: known by name, not implemented
  const MemoryOperation *memory;
  const MatrixShape *matrix;
};

// Operand codes: below 256 the scalar encodings of the ISA, then VGPRs, then AccVGPRs.
enum : uint16_t {
  vcc = 106,
  m0 = 124,
  exec = 126,
  sgpr_end = 128,
  literal_operand = 255,
  vgpr = 256,
  agpr = 512,
  register_end = 768,
  no_operand = 0xffff
};

// A run of registers, by operand code.
struct Registers {
  uint16_t first = no_operand;
  uint8_t count = 0;
};

struct Instruction {
  const Opcode *opcode = nullptr;  // null: unknown encoding
  uint64_t offset = 0;             // from the start of the code object
  uint32_t raw[4] = {};
  uint8_t bytes = 4;

  uint8_t source_count = 0;
  uint16_t destination = no_operand, scalar_destination = no_operand;
  uint16_t source[3] = {no_operand, no_operand, no_operand};
  uint8_t destination_dwords = 0, source_dwords[3] = {};
  uint32_t literal = 0;
  int32_t immediate = 0;

  // VOP modifiers; bit k belongs to source k
  uint8_t negate = 0, absolute = 0, negate_high = 0, op_sel = 0, op_sel_high = 0;
  uint8_t output_modifier = 0;
  bool clamp = false;
  bool dpp = false, bound_control = false;
  uint16_t dpp_control = 0;
  uint8_t row_mask = 15, bank_mask = 15;
  bool sdwa = false, sign_extend[2] = {};
  uint8_t destination_select = 6, destination_unused = 0, select[2] = {6, 6};
  uint8_t cbsz = 0, abid = 0, blgp = 0;
  uint16_t scale[2] = {no_operand, no_operand};  // of VOP3PX2
  uint8_t bitop = 0;

  // memory
  bool offset_enable = false, index_enable = false, sc0 = false, sc1 = false, to_lds = false;
  bool gds = false;
  uint8_t offset0 = 0, offset1 = 0;
  uint16_t address = no_operand, data = no_operand, data2 = no_operand;
  uint16_t scalar_address = no_operand, resource = no_operand, scalar_offset = no_operand;
  uint8_t address_dwords = 1;

  // what s_waitcnt is about
  Queue queue = Queue::none;
  Registers uses[8];    // everything read or written, except what a load delivers later
  Registers delivers;   // what a load writes when it completes
};

// Fills in `uses`, `delivers` and, for some, `queue`; part of decode.
void note_registers(Instruction &instruction);

// Decodes at most `available` dwords. An unknown encoding leaves opcode null and raw set.
Instruction decode(const uint32_t *words, size_t available, Arch arch);

std::string disassemble(const Instruction &instruction);

// The table row, or null for an opcode number that the architecture does not have.
const Opcode *find_opcode(Arch arch, Format format, unsigned number);

}  // namespace emu
