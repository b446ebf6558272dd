// SPDX-License-Identifier: Apache-2.0
// Program flow, waits, barriers, hardware registers, relative addressing.
#include "error.h"
#include "handlers.h"
#include "operands.h"

namespace emu {
namespace {

void jump(Wave &wave, const Instruction &i) { wave.pc += int64_t{i.immediate} * 4; }

template <class F>
constexpr Handler branch_if(F) {
  return [](Wave &wave, const Instruction &i) {
    if (F{}(wave)) jump(wave, i);
  };
}

void nothing(Wave &, const Instruction &) {}

void wait_count(Wave &wave, const Instruction &i) {
  const unsigned counts = static_cast<unsigned>(i.immediate);
  wave.waits.wait((counts & 15) | (counts >> 14 & 3) << 4, counts >> 8 & 15);
}

enum : unsigned {
  hwreg_mode = 1,
  hwreg_status = 2,
  hwreg_trapsts = 3,
  hwreg_hw_id = 4,
  hwreg_gpr_alloc = 5,
  hwreg_lds_alloc = 6,
  hwreg_ib_sts = 7,
  hwreg_mem_bases = 15,
  hwreg_xcc_id = 20
};

uint32_t read_hardware_register(const Wave &wave, unsigned id) {
  switch (id) {
    case hwreg_mode: return wave.mode;
    case hwreg_status: return wave.scc | (wave.exec_mask() == 0) << 9 | (wave.pair(vcc) == 0) << 10;
    case hwreg_hw_id: return static_cast<uint32_t>(wave.id & 3) << 4;  // the SIMD
    case hwreg_mem_bases:
      return static_cast<uint32_t>(shared_aperture >> 48 << 16 | private_aperture >> 48);
    case hwreg_trapsts:
    case hwreg_gpr_alloc:
    case hwreg_lds_alloc:
    case hwreg_ib_sts:
    case hwreg_xcc_id: return 0;
  }
  fault(wave, format("hardware register %u is not implemented", id));
}

struct Field {
  unsigned id, offset;
  uint32_t mask;
  explicit Field(int32_t immediate) : id(immediate & 63), offset(immediate >> 6 & 31) {
    const unsigned width = (immediate >> 11 & 31) + 1;
    mask = width == 32 ? ~0u : (1u << width) - 1;
  }
};

void get_register(Wave &wave, const Instruction &i) {
  const Field field(i.immediate);
  wave.s[i.destination] = read_hardware_register(wave, field.id) >> field.offset & field.mask;
}

void set_register(Wave &wave, const Instruction &i, uint32_t value) {
  const Field field(i.immediate);
  if (field.id != hwreg_mode && field.id != hwreg_status && field.id != hwreg_trapsts)
    fault(wave, format("writing hardware register %u is not implemented", field.id));
  if (field.id != hwreg_mode) return;
  wave.mode = (wave.mode & ~(field.mask << field.offset)) | (value & field.mask) << field.offset;
}

void add_flow(Bindings &b) {
  b.add("s_branch", jump);
  b.add("s_cbranch_scc0", branch_if([](const Wave &wave) { return !wave.scc; }));
  b.add("s_cbranch_scc1", branch_if([](const Wave &wave) { return wave.scc; }));
  b.add("s_cbranch_vccz", branch_if([](const Wave &wave) { return wave.pair(vcc) == 0; }));
  b.add("s_cbranch_vccnz", branch_if([](const Wave &wave) { return wave.pair(vcc) != 0; }));
  b.add("s_cbranch_execz", branch_if([](const Wave &wave) { return wave.exec_mask() == 0; }));
  b.add("s_cbranch_execnz", branch_if([](const Wave &wave) { return wave.exec_mask() != 0; }));
  b.add("s_getpc_b64",
        [](Wave &wave, const Instruction &i) { wave.set_pair(i.destination, wave.pc); });
  b.add("s_setpc_b64", [](Wave &wave, const Instruction &i) { wave.pc = wave.pair(i.source[0]); });
  b.add("s_swappc_b64", [](Wave &wave, const Instruction &i) {
    const uint64_t target = wave.pair(i.source[0]);
    wave.set_pair(i.destination, wave.pc);
    wave.pc = target;
  });
  b.add("s_call_b64", [](Wave &wave, const Instruction &i) {
    wave.set_pair(i.destination, wave.pc);
    jump(wave, i);
  });
  b.add("s_endpgm", [](Wave &wave, const Instruction &) { wave.state = WaveState::ended; });
  b.add("s_barrier", [](Wave &wave, const Instruction &) { wave.state = WaveState::at_barrier; });
  b.add("s_trap",
        [](Wave &wave, const Instruction &i) { fault(wave, format("s_trap %d", i.immediate)); });
  b.add("s_waitcnt", wait_count);
  for (auto name : {"s_nop", "s_setprio", "s_icache_inv", "s_sleep", "s_wakeup", "s_sethalt",
                    "s_incperflevel", "s_decperflevel", "s_ttracedata", "s_sendmsg"})
    b.add(name, nothing);
}

void add_relative_addressing(Bindings &b) {
  b.add("s_set_gpr_idx_on", [](Wave &wave, const Instruction &i) {
    const uint32_t index = read_scalar(wave, i.source[0], i.literal) & 0xff;
    wave.mode |= mode_gpr_index;
    wave.s[m0] = (wave.s[m0] & 0xffff0f00u) | index | static_cast<uint32_t>(i.immediate) << 12;
  });
  b.add("s_set_gpr_idx_idx", [](Wave &wave, const Instruction &i) {
    wave.s[m0] = (wave.s[m0] & ~0xffu) | (read_scalar(wave, i.source[0], i.literal) & 0xff);
  });
  b.add("s_set_gpr_idx_mode", [](Wave &wave, const Instruction &i) {
    wave.s[m0] = (wave.s[m0] & 0xffff0fffu) | static_cast<uint32_t>(i.immediate & 15) << 12;
  });
  b.add("s_set_gpr_idx_off", [](Wave &wave, const Instruction &) { wave.mode &= ~mode_gpr_index; });
}

}  // namespace

void add_scalar_control(Bindings &b) {
  add_flow(b);
  add_relative_addressing(b);
  b.add("s_getreg_b32", get_register);
  b.add("s_setreg_b32",
        [](Wave &wave, const Instruction &i) { set_register(wave, i, wave.s[i.destination]); });
  b.add("s_setreg_imm32_b32",
        [](Wave &wave, const Instruction &i) { set_register(wave, i, i.literal); });
}

}  // namespace emu
