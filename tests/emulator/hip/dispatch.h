// SPDX-License-Identifier: Apache-2.0
// The one seam to the instruction interpreter: memory, code objects, launches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "abi.h"
#include "emu.h"
#include "launch.h"

namespace hip {

void add_memory(const void* start, size_t bytes, const std::string& name);
void remove_memory(const void* start);

// Bytes that the host or a copy has written: reading them is no longer an error.
void mark_written(const void* start, size_t bytes);

struct Kernel {
  struct Argument {
    uint32_t offset, size;
  };
  std::string name;
  emu_kernel_info info;
  std::vector<Argument> arguments;  // without the hidden ones, which the interpreter fills in
};

class CodeObject {
 public:
  // Null, with the reason in emu_last_error, if the interpreter refuses it.
  static std::shared_ptr<CodeObject> load(const void* elf, size_t bytes);
  ~CodeObject();
  CodeObject(const CodeObject&) = delete;
  CodeObject& operator=(const CodeObject&) = delete;

  const Kernel* kernel(const std::string& name) const;
  const std::map<std::string, Kernel>& kernels() const { return kernels_; }

  // Address of a device variable, which any kernel may then read and write; or null.
  void* variable(const std::string& name, size_t* bytes);

 private:
  explicit CodeObject(emu_module* module);

  emu_module* module_;
  std::map<std::string, Kernel> kernels_;
  std::map<std::string, void*> variables_;  // those that were asked for

  friend hipError_t dispatch(const Launch& launch);
};

// Runs the kernel to its end. A fault becomes hipErrorLaunchFailure with the interpreter's report.
hipError_t dispatch(const Launch& launch);

}  // namespace hip
