// SPDX-License-Identifier: Apache-2.0
// A place where one workgroup after the other runs: its waves take turns until all have ended.
#pragma once
#include "context.h"
#include "wave.h"

namespace emu {

class WorkgroupRunner {
 public:
  WorkgroupRunner(Launch &launch, const Options &options, emu_counters &counters,
                  TrafficCount &traffic);
  void start(uint64_t index);  // in the linear order of the grid
  bool run_round();            // a turn for every wave; true when the workgroup has ended

 private:
  Launch &launch_;
  const Options &options_;
  emu_counters &counters_;
  Workgroup group_;
  struct AlignedDelete {
    void operator()(uint32_t (*p)[lanes]) const { std::free(p); }
  };
  std::vector<std::unique_ptr<uint32_t[][lanes], AlignedDelete>> registers_;
  std::vector<std::vector<uint8_t>> scratch_;

  void start_wave(Wave &wave, uint64_t wave_index);
  void set_scalar_inputs(Wave &wave);
  void set_vector_inputs(Wave &wave);
  void run_wave(Wave &wave);
  void execute(Wave &wave, const Instruction &instruction);
  void release_barrier();
};

}  // namespace emu
