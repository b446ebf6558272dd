// SPDX-License-Identifier: Apache-2.0
// The opcode tables: generated encodings joined with the handlers of the families.
#include <cstring>
#include <memory>

#include "handlers.h"
#include "instruction.h"

namespace emu {
namespace {

constexpr size_t formats = static_cast<size_t>(Format::count);
using Table = Opcode[formats][1024];

struct Row {
  Format format;
  unsigned number;
  const char *mnemonic;
  uint8_t dwords[4];
};

#define OPCODE(format, number, mnemonic, a, b, c, d) \
  {Format::format, number, mnemonic, {a, b, c, d}},
constexpr Row gfx942_rows[] = {
#include "tables/gfx942.inc"
};
constexpr Row gfx950_rows[] = {
#include "tables/gfx950.inc"
};
#undef OPCODE

bool starts_with(const char *text, const char *prefix) {
  return std::strncmp(text, prefix, std::strlen(prefix)) == 0;
}

Family family_of(Format format, const char *mnemonic) {
  switch (format) {
    case Format::SOP2:
    case Format::SOPK:
    case Format::SOP1:
    case Format::SOPC: return Family::scalar;
    case Format::SOPP:
      return starts_with(mnemonic, "s_branch") || starts_with(mnemonic, "s_cbranch")
                 ? Family::branch
                 : Family::control;
    case Format::SMEM: return Family::scalar_memory;
    case Format::DS: return Family::lds;
    case Format::MUBUF:
    case Format::MTBUF:
    case Format::FLAT:
    case Format::SCRATCH:
    case Format::GLOBAL: return Family::vector_memory;
    default:
      return starts_with(mnemonic, "v_mfma") || starts_with(mnemonic, "v_smfmac") ? Family::matrix
                                                                                  : Family::vector;
  }
}

Bindings all_bindings() {
  Bindings bindings;
  for (auto add : {add_scalar_arithmetic,
                   add_scalar_control,
                   add_scalar_memory,
                   add_vector_move,
                   add_vector_integer,
                   add_vector_integer16,
                   add_vector_float32,
                   add_vector_float64,
                   add_vector_float16,
                   add_vector_compare,
                   add_vector_convert,
                   add_vector_convert8,
                   add_vector_scaled,
                   add_vector_divide,
                   add_vector_packed,
                   add_vector_dot,
                   add_matrix,
                   add_lds,
                   add_buffer,
                   add_flat})
    add(bindings);
  return bindings;
}

template <size_t count>
void fill(Table &table, const Row (&rows)[count], const Bindings &bindings) {
  for (const Row &row : rows) {
    Opcode &opcode = table[static_cast<size_t>(row.format)][row.number];
    opcode = {};
    if (!*row.mnemonic) continue;  // removed on this architecture
    Binding binding = bindings.find(row.mnemonic);
    opcode = {
        row.mnemonic,   row.format,    family_of(row.format, row.mnemonic), {}, binding.execute,
        binding.memory, binding.matrix};
    std::memcpy(opcode.dwords, row.dwords, sizeof row.dwords);
  }
}

struct Tables {
  std::unique_ptr<Table[]> of_arch = std::make_unique<Table[]>(2);
  Tables() {
    Bindings bindings = all_bindings();
    fill(of_arch[0], gfx942_rows, bindings);
    fill(of_arch[1], gfx942_rows, bindings);
    fill(of_arch[1], gfx950_rows, bindings);
  }
};

}  // namespace

const Opcode *find_opcode(Arch arch, Format format, unsigned number) {
  static const Tables tables;
  const Opcode &opcode =
      tables.of_arch[static_cast<size_t>(arch)][static_cast<size_t>(format)][number];
  return opcode.mnemonic ? &opcode : nullptr;
}

}  // namespace emu
