// SPDX-License-Identifier: Apache-2.0
// The driver of a vendor's GPUs, found at run time: nothing of ROCm or CUDA is needed to build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "gpu/status.h"

namespace jax_mla {

enum class Platform { kRocm, kCuda };

using Module = void*;
using Function = void*;
using Stream = void*;

struct Grid {
  uint32_t x = 1, y = 1, z = 1;  // blocks
};

// The blocks of a grid.
struct Block {
  Block(uint32_t threads, uint32_t shared_bytes = 0, bool overlaps = false)
      : threads(threads), shared_bytes(shared_bytes), overlaps(overlaps) {}
  uint32_t threads;
  uint32_t shared_bytes;  // of shared memory, beside what the kernel declares
  // Whether they may start before the launch before them has ended, where the platform can: the
  // kernel then waits by itself.
  bool overlaps;
};

// Memory that a launch may touch; none if `start` is null. The emulated ROCm holds it to that; a real
// driver does not ask.
struct Extent {
  enum Access { kRead = 1, kWrite = 2, kReadWrite = 3 };
  const char* name;
  const void* start;
  size_t bytes;
  Access access;
};

// One argument block for a kernel, by value.
struct Arguments {
  const void* data;
  size_t bytes;
  // Whether to hand over the bytes as they are, for code objects that do not say what is in them,
  // rather than as the kernel's only parameter.
  bool raw = false;
};

class Driver {
 public:
  virtual ~Driver() = default;

  // The driver of a platform; null, with the reason, where there is none. Found once a process.
  static const Driver* Find(Platform platform, std::string* reason);

  // Path of the library in use.
  const std::string& library() const { return library_; }
  // "ROCm" or "CUDA".
  virtual const char* platform_name() const = 0;

  // Architecture of a device as device code is named for it: "gfx942", "sm_90".
  virtual Status GetArch(int device, std::string* arch) const = 0;

  // Makes `device` current for this thread until the Scope ends.
  class Scope {
   public:
    Scope(const Driver& driver, int device)
        : driver_(driver), status_(driver.Enter(device, &previous_)) {}
    ~Scope() { driver_.Leave(previous_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    const Status& status() const { return status_; }

   private:
    const Driver& driver_;
    intptr_t previous_ = kUnchanged;
    Status status_;
  };

  // On the current device.
  Status LoadModule(const void* image, Module* module) const;
  Status GetFunction(Module module, const char* name, Function* function) const;
  Status Launch(Function function, Grid grid, Block block, Stream stream,
                const Arguments& arguments, std::initializer_list<Extent> extents) const;

  // Makes the description of memory that tensor copies take, `map` of 128 bytes: `lines` lines of
  // `line_bytes`, 64 or 128, which are copied `box_lines` at a time and swizzled by their size.
  virtual Status MapLines(const void* start, uint64_t lines, uint32_t line_bytes,
                          uint32_t box_lines, void* map) const;

 protected:
  static constexpr intptr_t kUnchanged = -1;

  // Makes `device` current; `previous` is for Leave, kUnchanged if it was current before.
  virtual Status Enter(int device, intptr_t* previous) const = 0;
  virtual void Leave(intptr_t previous) const = 0;
  // Lets launches of a function take as much shared memory as the device has.
  virtual Status AllowSharedMemory(Function) const { return {}; }
  // A launch with Block::overlaps.
  virtual int LaunchOverlapping(Function function, Grid grid, Block block, Stream stream,
                                void** parameters) const;
  // Name and text of an error code.
  virtual std::string ErrorText(int code) const = 0;
  // Leaves no trace of an error for whoever asks the driver for the last one.
  virtual void ClearError() const {}

  Status Check(int code, const char* call, const char* file, int line) const;

  // Both vendors' functions of this kind have the same parameters.
  struct Table {
    int (*module_load_data)(Module*, const void*);
    int (*module_get_function)(Function*, Module, const char*);
    int (*launch_kernel)(Function, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t,
                         uint32_t, Stream, void**, void**);
    void (*debug_extents)(const void*, size_t, const char*, int);  // null but on the emulated ROCm
    void* launch_parameter_end;  // closes the list of raw arguments
  };
  Table table_ = {};
  std::string library_;
};

#define JAX_MLA_CHECK_DRIVER(call) Check((call), #call, __FILE__, __LINE__)

// The vendors' drivers; null, with the reason, where there is none.
const Driver* FindHip(std::string* reason);
const Driver* FindCuda(std::string* reason);

}  // namespace jax_mla
