// SPDX-License-Identifier: Apache-2.0
// Where the instruction families enter what they implement. To add an instruction, add its line to
// the family's file; the tables know its encoding already.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>

#include "instruction.h"

namespace emu {

struct Binding {
  Handler execute = nullptr;
  const MemoryOperation *memory = nullptr;
  const MatrixShape *matrix = nullptr;
};

class Bindings {
 public:
  void add(std::string mnemonic, Binding binding) {
    if (!table_.emplace(std::move(mnemonic), binding).second)
      throw std::logic_error("instruction bound twice: " + mnemonic);
  }
  void add(std::string mnemonic, Handler execute) { add(std::move(mnemonic), Binding{execute}); }
  Binding find(const std::string &mnemonic) const {
    auto found = table_.find(mnemonic);
    return found == table_.end() ? Binding{} : found->second;
  }

 private:
  std::unordered_map<std::string, Binding> table_;
};

void add_scalar_arithmetic(Bindings &);
void add_scalar_control(Bindings &);
void add_scalar_memory(Bindings &);
void add_vector_move(Bindings &);
void add_vector_integer(Bindings &);
void add_vector_integer16(Bindings &);
void add_vector_float32(Bindings &);
void add_vector_float64(Bindings &);
void add_vector_float16(Bindings &);
void add_vector_compare(Bindings &);
void add_vector_convert(Bindings &);
void add_vector_convert8(Bindings &);
void add_vector_scaled(Bindings &);
void add_vector_divide(Bindings &);
void add_vector_packed(Bindings &);
void add_vector_dot(Bindings &);
void add_matrix(Bindings &);
void add_lds(Bindings &);
void add_buffer(Bindings &);
void add_flat(Bindings &);

}  // namespace emu
