// SPDX-License-Identifier: Apache-2.0
// s_waitcnt: which memory operations of a wave are outstanding, and the registers they still own.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "instruction.h"

namespace emu {

// Data moves when an instruction executes; what is modelled here is when the wave may rely on it.
// Loads and stores to memory complete in order, LDS operations complete in order, scalar loads in
// any order (only lgkmcnt(0) tells), FLAT ones when both counters have been waited down to 0.
class WaitState {
 public:
  void reset();

  // Fault text if the instruction touches a register that a load has yet to write, else null.
  // Unless `strict`, a load is taken to be complete after as many instructions as hand-written
  // kernels are seen to count on.
  const char *violation(const Instruction &instruction, bool strict) const;

  // Call for each memory operation. Its number orders it among all operations of the wave.
  uint32_t issue(const Instruction &instruction);

  void wait(unsigned vector_memory, unsigned lgkm);  // s_waitcnt with these counts
  void step(const Instruction &instruction);         // one instruction of time has passed

  bool complete(Queue queue, uint32_t number) const;
  // Whether any s_waitcnt on the LDS counter came after this operation, even one for fewer.
  bool lds_waited_since(uint32_t number) const { return number < lds_wait_number_; }
  bool idle(Queue queue) const { return queue_of(queue).size() == 0; }

 private:
  struct Operation {
    uint32_t number = 0;
    Registers delivers;
    bool vector_done = false, lgkm_done = false;  // of a FLAT operation
  };
  class Line {  // first in, first out
   public:
    size_t size() const { return operations_.size() - head_; }
    Operation &front() { return operations_[head_]; }
    const Operation &front() const { return operations_[head_]; }
    void push(Operation operation) { operations_.push_back(operation); }
    void pop();
    void clear() { operations_.clear(), head_ = 0; }
    auto begin() { return operations_.begin() + static_cast<long>(head_); }
    auto end() { return operations_.end(); }

   private:
    std::vector<Operation> operations_;
    size_t head_ = 0;
  };

  const Line &queue_of(Queue queue) const { return lines_[static_cast<size_t>(queue)]; }
  Line &queue_of(Queue queue) { return lines_[static_cast<size_t>(queue)]; }
  bool pending(Registers registers, bool strict) const;
  bool in_order_overwrite(const Instruction &instruction) const;
  void retire(Line &line);
  void retire_flat();

  std::array<Line, 5> lines_;                         // by Queue
  std::array<uint64_t, register_end / 64> pending_{}; // registers that a load has yet to write
  std::array<uint32_t, register_end> number_{};       // of that load
  std::array<Queue, register_end> owner_{};
  std::array<uint32_t, register_end> issued_at_{};    // in instructions of the wave
  uint32_t now_ = 0;
  uint32_t next_number_ = 1, lds_wait_number_ = 0;
  unsigned outstanding_ = 0;

  // A store of more than 64 bits reads its data late: a vector instruction may not write them in
  // the next two wait states. All other stores have read theirs when the next instruction issues.
  Registers stored_;
  int stored_wait_states_ = 0;
};

}  // namespace emu
