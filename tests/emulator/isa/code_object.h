// SPDX-License-Identifier: Apache-2.0
// A loaded code object: its image, its kernels, its instructions decoded on demand.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "instruction.h"

namespace emu {

struct Argument {
  std::string name, kind;
  uint32_t offset = 0, size = 0;
};

struct Kernel {
  std::string name;
  uint64_t entry = 0;  // offset in the image
  uint32_t static_lds = 0, private_bytes = 0, kernarg_bytes = 0, explicit_bytes = 0;
  uint32_t rsrc1 = 0, rsrc2 = 0, rsrc3 = 0, properties = 0, preload = 0;
  uint32_t max_workgroup_size = 0, sgprs = 0, vgprs = 0, agprs = 0;
  std::vector<Argument> arguments;

  bool splits_workgroups() const { return rsrc3 >> 16 & 1; }  // threadgroup split mode
  uint32_t allocated_registers() const { return ((rsrc1 & 63) + 1) * 8; }  // VGPRs and AccVGPRs
};

class CodeObject {
 public:
  Arch arch = Arch::gfx942;
  std::string arch_name;
  uint8_t *base = nullptr;  // where the image begins
  uint64_t image_bytes = 0, code_begin = 0, code_end = 0;
  std::vector<Kernel> kernels;
  struct Variable {
    uint64_t offset, size;
  };
  std::map<std::string, Variable> variables;

  // The instruction at an offset of the image; null outside the code.
  const Instruction *fetch(uint64_t offset);
  const Kernel &kernel(const char *name) const;  // null: the only one; throws if there is none

  std::vector<uint8_t> image;  // holds what base points to
  void reserve_instructions();

 private:
  std::unique_ptr<std::atomic<const Instruction *>[]> decoded_;  // by dword
  std::vector<std::unique_ptr<Instruction>> pool_;
  std::mutex mutex_;
};

// Loads an ELF, or the entry for `arch` of an offload bundle. `arch` may be null.
std::unique_ptr<CodeObject> load_code_object(const void *bytes, size_t size, const char *arch);

// Fills in what the metadata note says about the kernels.
void read_metadata(const uint8_t *note, size_t size, std::vector<Kernel> &kernels);

}  // namespace emu
