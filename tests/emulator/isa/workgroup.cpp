// SPDX-License-Identifier: Apache-2.0
// Waves: their initial state, their turns, their barriers.
#include "workgroup.h"

#include <algorithm>
#include <cstdlib>

#include "error.h"
#include "lanewise.h"

namespace emu {
namespace {

// Registers and LDS start as NaNs that tell where they come from.
constexpr uint32_t vector_poison = 0x7fc0beefu, scalar_poison = 0x7fc1f00du,
                   lds_poison = 0x7fc2deadu;

// Kernel code properties: the SGPRs that the launch sets up, in this order.
enum : uint32_t {
  wants_private_buffer = 1,
  wants_dispatch_packet = 2,
  wants_queue = 4,
  wants_kernarg = 8,
  wants_dispatch_id = 16,
  wants_flat_scratch = 32,
  wants_private_size = 64
};
// compute_pgm_rsrc2
enum : uint32_t {
  wants_group_x = 1 << 7,
  wants_group_y = 1 << 8,
  wants_group_z = 1 << 9,
  wants_group_info = 1 << 10
};

uint32_t initial_mode(uint32_t rsrc1) {
  const uint32_t float_mode = rsrc1 >> 12 & 0xff, dx10_clamp = rsrc1 >> 21 & 1,
                 ieee = rsrc1 >> 23 & 1;
  const uint32_t fp16_overflow = rsrc1 >> 26 & 1;
  return float_mode | dx10_clamp << 8 | ieee << 9 | fp16_overflow << 23;
}

}  // namespace

WorkgroupRunner::WorkgroupRunner(Launch &launch, const Options &options, emu_counters &counters,
                                 TrafficCount &traffic)
    : launch_(launch), options_(options), counters_(counters) {
  group_.launch = &launch;
  group_.counters = &counters;
  group_.traffic = &traffic;
  const uint32_t items = launch.block[0] * launch.block[1] * launch.block[2];
  const uint32_t waves = (items + lanes - 1) / lanes;
  constexpr size_t bytes = sizeof(uint32_t) * vector_registers * lanes;
  for (uint32_t id = 0; id < waves; id++) {
    auto *memory = static_cast<uint32_t(*)[lanes]>(std::aligned_alloc(64, bytes));
    if (!memory) throw Error("out of memory for registers");
    registers_.emplace_back(memory);
    scratch_.emplace_back(uint64_t{launch.kernel->private_bytes} * lanes);
    auto wave = std::make_unique<Wave>();
    wave->v = memory;
    wave->id = static_cast<int>(id);
    wave->workgroup = &group_;
    wave->scratch = scratch_.back().data();
    wave->scratch_per_lane = launch.kernel->private_bytes;
    group_.waves.push_back(std::move(wave));
  }
}

void WorkgroupRunner::start(uint64_t index) {
  const uint32_t *grid = launch_.grid;
  group_.id[0] = static_cast<uint32_t>(index % grid[0]);
  group_.id[1] = static_cast<uint32_t>(index / grid[0] % grid[1]);
  group_.id[2] = static_cast<uint32_t>(index / grid[0] / grid[1]);
  group_.lds.resize(launch_.lds_bytes);
  for (size_t at = 0; at < group_.lds.size(); at++)
    group_.lds[at] = static_cast<uint8_t>(lds_poison >> (8 * (at & 3)));
  group_.executed = 0;
  if (launch_.checks.any_shadow()) group_.races.begin_workgroup(group_.lds.size());
  for (auto &wave : group_.waves)
    start_wave(*wave, index * group_.waves.size() + static_cast<uint64_t>(wave->id));
  counters_.workgroups++;
  counters_.waves += group_.waves.size();
}

void WorkgroupRunner::start_wave(Wave &wave, uint64_t wave_index) {
  for (int r = 0; r < vector_registers; r++) std::fill_n(wave.v[r], lanes, vector_poison);
  std::fill(std::begin(wave.s), std::end(wave.s), scalar_poison);
  std::fill(wave.scratch, wave.scratch + uint64_t{wave.scratch_per_lane} * lanes, 0x7f);
  wave.scc = false;
  wave.state = WaveState::running;
  wave.executed = 0;
  wave.current = nullptr;
  wave.last_allocation = nullptr;
  wave.waits.reset();
  wave.mode = initial_mode(launch_.kernel->rsrc1);
  wave.traced = options_.trace > 0 && static_cast<uint64_t>(options_.trace) == wave_index + 1;
  set_scalar_inputs(wave);
  set_vector_inputs(wave);
  // Kernels with preloaded arguments begin with a prologue for hardware that cannot preload.
  const uint64_t skipped = launch_.kernel->preload & 127 ? 256 : 0;
  wave.pc = reinterpret_cast<uint64_t>(launch_.code->base) + launch_.kernel->entry + skipped;
}

void WorkgroupRunner::set_scalar_inputs(Wave &wave) {
  const Kernel &kernel = *launch_.kernel;
  unsigned next = 0;
  auto add = [&](uint32_t value) { wave.s[next++] = value; };
  auto add64 = [&](uint64_t value) {
    add(static_cast<uint32_t>(value)), add(static_cast<uint32_t>(value >> 32));
  };
  if (kernel.properties & wants_private_buffer) add64(0), add64(0);
  if (kernel.properties & wants_dispatch_packet) add64(launch_.packet);
  if (kernel.properties & wants_queue) add64(0);
  if (kernel.properties & wants_kernarg) add64(launch_.kernarg);
  if (kernel.properties & wants_dispatch_id) add64(1);
  if (kernel.properties & wants_flat_scratch) add64(0);
  if (kernel.properties & wants_private_size) add(kernel.private_bytes);
  const unsigned preloaded = kernel.preload & 127, first = kernel.preload >> 7;
  for (unsigned k = 0; k < preloaded; k++) {
    uint32_t value = 0;
    const size_t at = 4ull * (first + k);
    if (at + 4 <= launch_.kernarg_bytes.size())
      std::memcpy(&value, reinterpret_cast<const uint8_t *>(launch_.kernarg) + at, 4);
    add(value);
  }
  next = std::max(next, kernel.rsrc2 >> 1 & 31);  // the number of user SGPRs
  if (kernel.rsrc2 & wants_group_x) add(group_.id[0]);
  if (kernel.rsrc2 & wants_group_y) add(group_.id[1]);
  if (kernel.rsrc2 & wants_group_z) add(group_.id[2]);
  if (kernel.rsrc2 & wants_group_info)
    add(static_cast<uint32_t>(group_.waves.size()) | static_cast<uint32_t>(wave.id) << 6);
}

void WorkgroupRunner::set_vector_inputs(Wave &wave) {
  const uint32_t *block = launch_.block;
  const uint32_t items = block[0] * block[1] * block[2];
  uint64_t active = 0;
  for (int l = 0; l < lanes; l++) {
    const uint32_t item = static_cast<uint32_t>(wave.id * lanes + l);
    active |= uint64_t{item < items} << l;
    const uint32_t x = item % block[0], y = item / block[0] % block[1],
                   z = item / block[0] / block[1];
    wave.v[0][l] = x | y << 10 | z << 20;
  }
  wave.set_pair(exec, active);
}

bool WorkgroupRunner::run_round() {
  for (auto &wave : group_.waves)
    if (wave->state == WaveState::running) run_wave(*wave);
  const auto in_state = [&](WaveState state) {
    return std::count_if(group_.waves.begin(), group_.waves.end(),
                         [&](const auto &wave) { return wave->state == state; });
  };
  const auto waiting = in_state(WaveState::at_barrier), ended = in_state(WaveState::ended);
  if (waiting && ended) {
    const auto at = std::find_if(group_.waves.begin(), group_.waves.end(), [](const auto &wave) {
      return wave->state == WaveState::at_barrier;
    });
    fault(**at, format("waits at an s_barrier that %ld of the workgroup's %zu waves never reach: "
                       "they have ended",
                       static_cast<long>(ended), group_.waves.size()));
  }
  if (waiting == static_cast<long>(group_.waves.size())) release_barrier();
  if (options_.max_instructions &&
      group_.executed > static_cast<uint64_t>(options_.max_instructions))
    fault(*group_.waves[0], format("the workgroup has run more than %lld instructions",
                                   static_cast<long long>(options_.max_instructions)));
  return ended == static_cast<long>(group_.waves.size());
}

void WorkgroupRunner::release_barrier() {
  if (launch_.checks.any_shadow()) group_.races.barrier(group_);
  for (auto &wave : group_.waves) wave->state = WaveState::running;
  counters_.barriers += group_.waves.size();
}

void WorkgroupRunner::run_wave(Wave &wave) {
  CodeObject &code = *launch_.code;
  const uint64_t base = reinterpret_cast<uint64_t>(code.base);
  for (int64_t turn = 0; turn < options_.quantum && wave.state == WaveState::running; turn++) {
    const Instruction *instruction = code.fetch(wave.pc - base);
    if (!instruction) {
      wave.current = nullptr;
      fault(wave, format("program counter 0x%llx is outside the code",
                         static_cast<unsigned long long>(wave.pc - base)));
    }
    wave.current = instruction;
    if (!instruction->opcode) fault(wave, "unknown instruction encoding");
    if (!instruction->opcode->execute)
      fault(wave, format("instruction %s is not implemented", instruction->opcode->mnemonic));
    execute(wave, *instruction);
  }
}

void WorkgroupRunner::execute(Wave &wave, const Instruction &instruction) {
  if (launch_.checks.waits) {
    if (const char *why = wave.waits.violation(instruction, launch_.checks.strict))
      fault(wave, why);
    if (instruction.queue != Queue::none &&
        (instruction.opcode->memory || instruction.delivers.count))
      wave.operation = wave.waits.issue(instruction);
    wave.waits.step(instruction);
  }
  if (wave.traced)
    std::fprintf(stderr, "wave %d  0x%06llx  %s\n", wave.id,
                 static_cast<unsigned long long>(instruction.offset),
                 disassemble(instruction).c_str());
  wave.pc += instruction.bytes;
  wave.executed++;
  group_.executed++;
  counter_of(counters_, instruction.opcode->family)++;
  if (wave.mode & mode_f32_round) [[unlikely]] {
    HostRounding rounding(static_cast<Round>(wave.mode & mode_f32_round));
    return instruction.opcode->execute(wave, instruction);
  }
  instruction.opcode->execute(wave, instruction);
}

}  // namespace emu
