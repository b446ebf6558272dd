// SPDX-License-Identifier: Apache-2.0
// The state of a wave and of its workgroup.
#pragma once
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "code_object.h"
#include "emu.h"
#include "memory.h"
#include "races.h"
#include "waits.h"

namespace emu {

constexpr int lanes = 64;
constexpr int vector_registers = 512;  // VGPRs, then AccVGPRs

// Aligned so that loops over the lanes become vector instructions.
template <class T>
struct alignas(64) Lanes {
  T lane[lanes];
  T &operator[](int l) { return lane[l]; }
  const T &operator[](int l) const { return lane[l]; }
};

struct Checks {
  bool bounds, waits, strict, uninitialised, traffic;
  bool any_shadow() const { return waits || uninitialised; }
};

enum class WaveState : uint8_t { running, at_barrier, ended };

struct Workgroup;

// Bits of the MODE register.
enum : uint32_t {
  mode_f32_round = 3,
  mode_f64_round = 3 << 2,
  mode_f32_input_denormals = 1 << 4,
  mode_f32_output_denormals = 1 << 5,
  mode_f64_input_denormals = 1 << 6,
  mode_f64_output_denormals = 1 << 7,
  mode_fp16_overflow_clamps = 1 << 23,
  mode_gpr_index = 1 << 27
};

struct Wave {
  uint32_t (*v)[lanes] = nullptr;  // VGPRs and AccVGPRs
  uint32_t s[128];                 // SGPRs, VCC, M0, EXEC at their operand codes
  bool scc = false;
  uint32_t mode = 0;
  uint64_t pc = 0;  // host address of the next instruction
  WaveState state = WaveState::running;
  int id = 0;
  uint64_t executed = 0;
  Workgroup *workgroup = nullptr;
  const Instruction *current = nullptr;
  uint32_t operation = 0;  // number of the current memory operation
  WaitState waits;
  VisibleAllocation *last_allocation = nullptr;
  uint8_t *scratch = nullptr;
  uint32_t scratch_per_lane = 0;
  bool traced = false;

  uint64_t pair(unsigned r) const { return static_cast<uint64_t>(s[r + 1]) << 32 | s[r]; }
  void set_pair(unsigned r, uint64_t value) {
    s[r] = static_cast<uint32_t>(value);
    s[r + 1] = static_cast<uint32_t>(value >> 32);
  }
  uint64_t exec_mask() const { return pair(exec); }
  uint32_t *row(unsigned operand) { return v[operand - vgpr]; }

  // EXEC-like masks spread to lanes; the last one is kept.
  const uint32_t *lane_mask(uint64_t mask) {
    if (mask != spread_mask_ || !spread_valid_) {
      for (int l = 0; l < lanes; l++) spread_[l] = mask >> l & 1 ? ~0u : 0;
      spread_mask_ = mask;
      spread_valid_ = true;
    }
    return spread_.lane;
  }

 private:
  uint64_t spread_mask_ = 0;
  bool spread_valid_ = false;
  Lanes<uint32_t> spread_;
};

// What all workgroups of a launch share.
struct Launch {
  CodeObject *code = nullptr;
  const Kernel *kernel = nullptr;
  uint32_t grid[3], block[3];
  uint32_t lds_bytes = 0;
  MemoryView memory;
  Checks checks{};
  uint64_t kernarg = 0, packet = 0;
  std::vector<uint8_t> kernarg_bytes, packet_bytes;
};

struct Workgroup {
  Launch *launch = nullptr;
  uint32_t id[3] = {};
  std::vector<std::unique_ptr<Wave>> waves;
  std::vector<uint8_t> lds;
  RaceShadow races;
  emu_counters *counters = nullptr;
  TrafficCount *traffic = nullptr;
  uint64_t executed = 0;

  Arch arch() const { return launch->code->arch; }
  bool in_lds(const uint8_t *p) const { return p >= lds.data() && p < lds.data() + lds.size(); }
};

// The upper halves of the addresses through which FLAT instructions reach LDS and scratch.
constexpr uint64_t shared_aperture = 0x0001000000000000ull;
constexpr uint64_t private_aperture = 0x0002000000000000ull;

// The counter of a family: they follow each other in the order of Family.
inline uint64_t &counter_of(emu_counters &counters, Family family) {
  static_assert(offsetof(emu_counters, control) - offsetof(emu_counters, scalar) ==
                sizeof(uint64_t) * static_cast<size_t>(Family::control));
  return *(&counters.scalar + static_cast<size_t>(family));
}

// Ends the launch with a report. `lane` below 0: concerns the wave.
[[noreturn]] void fault(const Wave &wave, const std::string &what, int lane = -1);
[[noreturn]] void fault_at(const Wave &wave, const std::string &what, int lane, uint64_t address);

}  // namespace emu
